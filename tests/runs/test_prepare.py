"""What is decided from the data where the person left it open."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo.data import Batch
from zoo.errors import RecipeError
from zoo.events import ignore
from zoo.runs.prepare import prepare
from zoo.tasks.schema import Task
from zoo.training.autotune import batch_size
from zoo.training.autotune.decide import decide
from zoo.training.make_objective import (
    backwards,
    compiled,
    objective,
    refuse_unfit,
    selected_by,
    smoothing,
    surgery_note,
)
from zoo.training.products import Product
from zoo.training.selection import FEW


def norms(recipe: zoo.Recipe) -> tuple[set[str], str]:
    """Norm modes of the groups that train, and the plan's notes."""
    plan = zoo.plan("resnet_nano", dataset="digits", recipe=recipe)
    trained = [group for group in plan.phases[-1].groups if not group.frozen]
    return {group.norm for group in trained} - {"none"}, " ".join(plan.notes)


def test_few_images_leave_pretrained_norm_statistics_as_they_are() -> None:
    modes, notes = norms(zoo.Recipe(train_per_class=20, image_size=16))
    assert modes == {"fixed"} and "160 images are too few" in notes


@pytest.mark.parametrize(
    "choices", [{}, {"train_per_class": 20, "strategy": "scratch"}, {"train_per_class": 20, "norm": "live"}]
)
def test_many_images_random_weights_and_a_person_make_them_live(choices: dict[str, object]) -> None:
    modes, notes = norms(zoo.Recipe(image_size=16, **choices))
    assert modes == {"live"} and "too few" not in notes


def test_small_batches_leave_them_too() -> None:
    modes, notes = norms(zoo.Recipe(batch_size=4, image_size=16))
    assert modes == {"fixed"} and "under 8 images" in notes


@pytest.mark.parametrize(
    ("images", "processes", "size"),
    [(160, 1, 32), (159, 1, 16), (80, 1, 16), (79, 1, 8), (3, 1, 8), (50, 2, 16), (50, 4, 32), (50, 3, 32)],
)  # fmt: skip
def test_few_images_come_in_smaller_batches(images: int, processes: int, size: int) -> None:
    found, note = batch_size.usual(images, processes)
    assert found == size
    assert (f"of {size} images" in note) == (size != batch_size.USUAL)


def test_the_batch_that_nobody_chose_is_planned_and_kept() -> None:
    recipe = zoo.Recipe(train_per_class=5, image_size=16, strategy="finetune")
    few = prepare("resnet_nano", "digits", recipe, ignore)
    assert few.resolved()["batch_size"] == 8 and few.plan.phases[-1].steps_per_epoch == 40 // 8
    assert "batches are of 8 images: of 32, an epoch would have only 1" in few.plan.notes
    many = prepare("resnet_nano", "digits", zoo.Recipe(image_size=16, strategy="finetune"), ignore)
    assert many.resolved()["batch_size"] == 32
    asked = prepare("resnet_nano", "digits", replace(recipe, batch_size=20), ignore)
    assert asked.resolved()["batch_size"] == 20, "a person decides"


@pytest.mark.parametrize(("ratio", "size"), [(3, 32), (10, 16)])  # about 1,400 images: an epoch has so many by ratio
def test_beside_many_images_without_labels_batches_are_as_usual(ratio: int, size: int) -> None:
    recipe = zoo.Recipe(train_per_class=5, image_size=16, strategy="finetune", unlabelled="digits", semi="pseudo",
                        unlabelled_ratio=ratio)  # fmt: skip
    assert prepare("resnet_nano", "digits", recipe, ignore).resolved()["batch_size"] == size


def test_networks_without_statistics_are_not_spoken_of() -> None:
    recipe = zoo.Recipe(train_per_class=2, batch_size=4, image_size=32, weights="none", refit="off")
    plan = zoo.plan("timm/test_convnext", dataset="digits", recipe=recipe)
    assert not plan.notes


def chosen_by(choosing: int, *tasks: Task, **choices: Any) -> str:
    dataset: Any = SimpleNamespace(tasks=tasks, val=range(choosing))
    return selected_by(zoo.Recipe(**choices), dataset)


def test_what_chooses_an_epoch_follows_from_how_many_images_choose() -> None:
    assert chosen_by(FEW - 1) == "refinement"
    assert chosen_by(FEW) == "accuracy"
    assert chosen_by(10, select_by="accuracy") == "accuracy"
    assert chosen_by(10, target="drawings", align="dann") == "information"


def test_what_chooses_an_epoch_follows_from_what_images_answer() -> None:
    labels, age = Task("label", "multi-label", ("a", "b")), Task("age", "regression")
    assert chosen_by(10, labels) == "map"
    assert chosen_by(10, age) == chosen_by(10, labels, age) == "score"
    assert chosen_by(10, age, select_by="loss") == "loss"


def test_a_network_that_is_gone_back_through_for_each_task_is_not_compiled() -> None:
    tasks = ("a=t.csv:a", "b=t.csv:b")
    assert compiled(zoo.Recipe(tasks=tasks)) == "auto"
    assert compiled(zoo.Recipe(tasks=tasks, task_weighting="pcgrad")) == "off"


KIND, AGE = Task("kind", "single-label", ("a", "b")), Task("age", "regression")
SIGNS = Task("signs", "multi-label", ("x", "y"))


def recipe_and_data(*tasks: Task, **choices: Any) -> tuple[zoo.Recipe, Any]:
    asked = tuple(f"{task.name}=t.csv:{task.name}" for task in tasks)
    return zoo.Recipe(tasks=asked, **choices), SimpleNamespace(tasks=tasks, name="t")


@pytest.mark.parametrize(
    ("tasks", "choices", "what", "why"),
    [
        ((SIGNS,), {"task_weighting": "pcgrad"}, "task_weighting pcgrad", "there is one task"),
        ((AGE,), {"task_weights": {"age": 2.0}}, "task_weights age", "there is one task"),
        (
            (KIND, AGE),
            {"label_loss": "asymmetric"},
            "label_loss asymmetric",
            "none of the tasks gives an image",
        ),
    ],
)
def test_choices_that_would_change_nothing_are_refused(
    tasks: tuple[Task, ...], choices: dict[str, Any], what: str, why: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        refuse_unfit(*recipe_and_data(*tasks, **choices))
    assert caught.value.what == f"these choices do not go with t: {what}" and why in caught.value.why
    refuse_unfit(*recipe_and_data(KIND, SIGNS, **(choices if "task_weights" not in choices else {})))


def test_labels_are_smoothed_where_somebody_asks_for_it() -> None:
    assert smoothing(*recipe_and_data(KIND, AGE)) == 0.1
    assert smoothing(*recipe_and_data(SIGNS)) == 0.0
    assert smoothing(*recipe_and_data(KIND, SIGNS)) is None, "classes have the default, labels nothing"
    assert smoothing(*recipe_and_data(KIND, SIGNS, label_smoothing=0.2)) == 0.2


def test_what_pcgrad_compares_is_said_where_a_step_has_several_batches() -> None:
    recipe, data = recipe_and_data(KIND, AGE, SIGNS, task_weighting="pcgrad", batch_size=32)
    assert backwards(recipe, data) == 4 and surgery_note(recipe, data, 1) == ""
    assert "within each 16 of a step's 32 images" in surgery_note(recipe, data, 2)
    accumulated, _ = recipe_and_data(KIND, AGE, task_weighting="pcgrad", batch_size=32, accumulate=4)
    assert "within each 32 of a step's 128 images" in surgery_note(accumulated, data, 1)
    assert surgery_note(*recipe_and_data(KIND, AGE, accumulate=4), 2) == ""


def test_losses_go_by_how_much_of_the_drawn_images_is_known() -> None:
    """Of eight images all say of which kind they are, and two how old."""
    recipe, _ = recipe_and_data(KIND, AGE)
    truth = torch.tensor([[0.0, 3.0], [1.0, 5.0], *[[0.0, math.nan]] * 6])
    part: Any = SimpleNamespace(tasks=(KIND, AGE), truth=lambda: truth, targets=[tuple(row) for row in truth.tolist()])

    def loaded(part: Any) -> Any:
        groups, accelerator = (SimpleNamespace(parameters=()),), SimpleNamespace(device="cpu")
        return SimpleNamespace(dataset=SimpleNamespace(train=part), groups=groups, accelerator=accelerator)

    even = objective(recipe, loaded(part), None)
    assert even.shares.tolist() == [1.0, 0.25]
    drawn = objective(replace(recipe, task_temperature=0.0), loaded(part), None)
    often = (1 / 8 + 1 / 2) / 2  # an image of both tasks, beside 1/8 for one of `kind` alone
    assert drawn.shares.tolist() == pytest.approx([1.0, 2 * often / (2 * often + 6 / 8)])
    signs: Any = SimpleNamespace(tasks=(SIGNS,), truth=lambda: truth)
    labels = objective(recipe_and_data(SIGNS)[0], loaded(signs), None)
    batch = Batch(torch.zeros(8, 2), truth.clamp(max=1), torch.arange(8))
    assert labels(torch.nn.Identity(), batch, 0.0).total.item() == pytest.approx(math.log(2)), "the mean, over all"


def test_on_the_cpu_a_kernel_that_covers_its_input_is_a_matrix_product() -> None:
    ready = prepare("resnet_nano", "digits", zoo.Recipe(image_size=16, strategy="finetune", device="cpu"), ignore)
    assert type(ready.loaded.model.get_submodule("layer3.0.conv1")) is Product


@pytest.mark.parametrize(
    ("choices", "what"),
    [
        ({"cache": "warmup"}, "there is no phase named warmup to cache features for"),
        ({"compile": "probe,warmup"}, "there is no phase named warmup to compile"),
        ({"optimizer": "sdg"}, "there is no optimizer named 'sdg'"),
        ({"strategy": "probe", "wise": 0.5}, "wise averages the network before and after its body trains"),
        ({"train_from": "head", "target": "digits", "align": "dann"}, "unlabelled images change nothing but"),
        ({"target": "digits", "align": "dann,coral"}, "there is no one plan for --align dann,coral"),
    ],
)
def test_what_needs_neither_data_nor_weights_is_refused_before_they_are_touched(
    choices: dict[str, Any], what: str
) -> None:
    heard: list[object] = []
    with pytest.raises(RecipeError) as caught:
        prepare("resnet_nano", "nowhere", zoo.Recipe(**choices), heard.append)
    assert caught.value.what.startswith(what) and not heard


def test_each_decider_leaves_alone_what_is_decided() -> None:
    recipe = zoo.Recipe(image_size=16, limit=40, epochs=1, probe_epochs=1, threads=1, device="cpu")
    ready = prepare("resnet_nano", "digits", recipe, ignore)
    again, _ = decide(replace(ready.loaded, recipe=ready.work.settled))
    assert again == ready.work.settled
