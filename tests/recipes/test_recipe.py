import copy
import json
from pathlib import Path

import pytest

from zoo.base.untrusted import parse_yaml as yaml_value
from zoo.errors import RecipeError, RunError
from zoo.recipes import methods
from zoo.recipes.recipe import Recipe, with_choices
from zoo.recipes.strategies import PRESETS, Phase
from zoo.runs.recipe_file import RESOLVED, read_recipe, recipe_of_run


def why(**choices) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe(**choices)
    return caught.value.why


def names(recipe: Recipe) -> list[str]:
    return [phase.name for phase in recipe.expand()]


def test_the_default_is_probe_then_finetune_from_its_preset():
    preset = PRESETS["lp-ft"]
    probe, finetune = Recipe().expand()
    assert probe == Phase("probe", preset.probe_epochs, preset.probe_lr, "head")
    assert finetune == Phase("finetune", preset.epochs, preset.lr, "all", preset.lr_decay)


@pytest.mark.parametrize(
    ("strategy", "phases"),
    [
        ("probe", [("probe", "head")]),
        ("partial", [("partial", "head-1")]),
        ("finetune", [("finetune", "all")]),
        ("gradual", [("probe", "head"), ("unfreeze-1", "head-1"), ("unfreeze-2", "head-2"), ("finetune", "all")]),
        ("lp-ft", [("probe", "head"), ("finetune", "all")]),
        ("scratch", [("scratch", "all")]),
    ],
)
def test_each_strategy_is_a_preset_for_phases(strategy, phases):
    recipe = Recipe(strategy=strategy)
    assert [(phase.name, phase.train_from) for phase in recipe.expand()] == phases
    assert recipe.expand()[-1].epochs == PRESETS[strategy].epochs
    assert all(phase.lr > 0 and phase.epochs > 0 for phase in recipe.expand())
    # What expands is itself a recipe, so that phases in full can repeat any strategy.
    assert Recipe(strategy=strategy, phases=recipe.expand()).expand() == recipe.expand()


def test_choices_land_in_the_phase_they_are_for():
    recipe = Recipe(epochs=7, lr=0.01, lr_decay=0.3, probe_epochs=2, probe_lr=0.5, train_from="layer3")
    assert recipe.expand() == (
        Phase("probe", 2, 0.5, "head"),
        Phase("finetune", 7, 0.01, "layer3", 0.3),
    )
    assert names(Recipe(probe_epochs=0)) == ["finetune"]
    assert names(Recipe(strategy="gradual", probe_epochs=0)) == ["finetune"]
    assert Recipe(strategy="partial", train_from="layer4").expand()[0].train_from == "layer4"
    assert Recipe(lr_decay=0).expand()[-1].lr_decay == 0, "0 is a choice, not the absence of one"


def test_every_fault_is_reported_at_once():
    text = why(
        strategy="fine-tune", epochs=0, lr="fast", batch_size=2.5, clip=-1, val_fraction=0, seed=True, norm=None,
        optimizer="", group_lr={"head": -1, 3: 0.1}, mixup=float("nan"), image_size="64",
        phases=[Phase("a", 0, 0, "", 2), Phase("a", 1, 1, "head"), "b"],
    )  # fmt: skip
    assert text.split("; ") == [
        "strategy: 'fine-tune' is not one of probe, partial, finetune, gradual, lp-ft, scratch",
        "epochs: must lie between 1 and 100000, not 0",
        "lr: must be a number or auto, not 'fast'",
        "optimizer: must be a text",
        "batch_size: must be a whole number, not 2.5",
        "clip: must be at least 0, not -1",
        "norm: must not be empty",
        "mixup: must be a number, not nan",
        "image_size: must be a number, not '64'",
        "val_fraction: must be more than 0, not 0",
        "seed: must be a number, not True",
        "group_lr[head]: must be a number of at least 0",
        "group_lr[3]: must be a number of at least 0",
        "phases[0].epochs: must be a whole number of at least 1",
        "phases[0].lr: must be a number above 0",
        "phases[0].lr_decay: must lie between 0 and 1",
        "phases[0].train_from: must name a layer group",
        "phases[1].name: must be a text of its own",
        "phases[2]: must be a phase",
        "phases: given in full, they leave no use for epochs, lr",
    ]


def test_the_message_counts():
    with pytest.raises(RecipeError, match="the recipe has an invalid choice\n  why: epochs: must lie"):
        Recipe(epochs=0)
    with pytest.raises(RecipeError, match="the recipe has 2 invalid choices"):
        Recipe(epochs=0, seed=-1)


@pytest.mark.parametrize(
    ("choices", "fault"),
    [
        ({"strategy": "scratch", "weights": "a1_in1k"}, "scratch starts from random weights"),
        ({"strategy": "probe", "weights": "none"}, "a probe of random weights learns next to nothing"),
        ({"strategy": "probe", "train_from": "layer4"}, "the strategy probe trains the head alone"),
        ({"mixup": 0.2, "balance": "weights"}, "mixup: does not go with balance weights"),
        ({"cutmix": 0.2, "balance": "weights"}, "cutmix: does not go with balance weights"),
        ({"phases": (Phase("a", 1, 0.1, "all"),), "lr": "auto"}, "they leave no use for lr"),
        ({"phases": (Phase("a", 1, 0.1, "all"),), "probe_epochs": 0}, "they leave no use for probe_epochs"),
        ({"phases": 5}, "phases: must be a list of phases"),
        ({"phases": (Phase(["a"], 1, 0.1, "all"),)}, "phases[0].name: must be a text"),
        ({"phases": (Phase("a", 1, float("nan"), "all"),)}, "phases[0].lr: must be a number above 0"),
        ({"group_lr": [1]}, "group_lr: must map names to numbers"),
        ({"group_lr": {"head": float("inf")}}, "group_lr[head]: must be a number of at least 0"),
        ({"strategy": ["probe"]}, "strategy: ['probe'] is not one of"),
    ],
)
def test_contradictions_and_wrong_shapes(choices, fault):
    assert fault in why(**choices)


def test_a_recipe_does_not_change_with_what_it_was_made_from():
    rates = {"head": 0.1}
    recipe = Recipe(group_lr=rates)
    rates["head"] = 9
    assert recipe.group_lr == {"head": 0.1}
    with pytest.raises(TypeError):
        recipe.group_lr["head"] = 9  # type: ignore[index]
    with pytest.raises(AttributeError):
        recipe.seed = 1  # type: ignore[misc]


def test_with_choices_leaves_what_is_none():
    recipe = with_choices(Recipe(epochs=3), {"epochs": None, "lr": 0.1, "group_lr": {"head": 1}})
    assert (recipe.epochs, recipe.lr, recipe.group_lr) == (3, 0.1, {"head": 1})
    with pytest.raises(RecipeError, match="epochs: must lie between"):
        with_choices(recipe, {"epochs": 0})


FULL = Recipe(
    strategy="gradual", epochs=4, probe_epochs=1, lr=1e-05, lr_decay=0.25, group_lr={"stem": 0.0, "head": 1e-2},
    optimizer="lookahead_sgd", schedule="cosine", ema=0.999, mixup=0.2, patience=3, image_size=96, seed=5,
    precision="bf16", path_column="file", augment="none", weight_decay=0.0,
)  # fmt: skip
PHASED = Recipe(phases=(Phase("a", 1, 1e-05, "head"), Phase("b", 2, 0.1, "layer2", 0.5)))


@pytest.mark.parametrize("recipe", [Recipe(), FULL, PHASED, Recipe(lr="auto")])
def test_there_and_back(recipe, tmp_path):
    assert Recipe.from_record(recipe.record()) == recipe
    assert Recipe.from_record(json.loads(json.dumps(recipe.record()))) == recipe
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    read = read_recipe(file)
    assert (read.recipe, read.backbone, read.dataset) == (recipe, None, None)


def test_yaml_leaves_defaults_out():
    assert Recipe().to_yaml() == "{}\n"
    assert Recipe(epochs=3, seed=0).to_yaml() == "epochs: 3\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_recipe_file_may_name_backbone_and_dataset_and_rates_as_people_write_them(tmp_path):
    read = read_recipe(write(tmp_path, "backbone: resnet50\ndataset: cifar10\nlr: 1e-3\ngroup_lr: {head: 5e-2}\n"))
    assert (read.backbone, read.dataset) == ("resnet50", "cifar10")
    assert read.recipe == Recipe(lr=0.001, group_lr={"head": 0.05})


def test_unknown_keys_and_bad_values_of_a_file_are_told_together(tmp_path):
    file = write(tmp_path, "epoch: 3\nlearning_rate: 1\nseed: -1\nphases: [{name: a, epochs: 1, lr: 1, from: head}]\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(file)
    assert caught.value.what == f"{file} cannot be used"
    assert caught.value.why == (
        "epoch: unknown key; learning_rate: unknown key; "
        "phases: must be a list of mappings with name, epochs, lr, train_from and perhaps lr_decay; "
        "seed: must lie between 0 and 2147483647, not -1"
    )
    assert caught.value.fix.startswith("known keys: accumulate, align, ")


@pytest.mark.parametrize("phases", ["5", "abc", "{a: 1}", "[1]", "[{1: 2}]", "[null]"])
def test_phases_of_a_wrong_shape(tmp_path, phases):
    with pytest.raises(RecipeError, match="phases: must be a list of mappings"):
        read_recipe(write(tmp_path, f"phases: {phases}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a mapping\n  why: it holds NoneType"),
        ("- a", "must hold a mapping\n  why: it holds list"),
        ("a: [", "is not valid YAML"),
        ("a: 2020-13-45", "is not valid YAML\n  why: month must be in 1..12"),
        ("backbone: 3\ndataset: [a]", "why: backbone must be a text; dataset must be a text"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, text, message):
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*gone\.yaml\n  why: No such file"):
        read_recipe(tmp_path / "gone.yaml")
    with pytest.raises(RunError, match="is not a run folder"):
        read_recipe(tmp_path)


def run_record(recipe: Recipe, **resolved) -> dict:
    return {
        "schema": 1,
        "recipe": recipe.record(),
        "resolved": {"batch_size": 999, **resolved},
        "backbone": {"name": "resnet/resnet_nano"},
        "dataset": {"ref": "digits"},
    }


MACHINE = {"precision": "bf16", "device": "cpu", "threads": 2, "workers": 0, "norm": "fixed"}


def test_writing_the_presets_out_changes_no_phase():
    for strategy in PRESETS:
        recipe = Recipe(strategy=strategy, epochs=3)
        full = recipe.with_preset()
        assert full.expand() == recipe.expand()
        assert None not in (full.augment, full.weight_decay, full.epochs, full.lr, full.lr_decay, full.probe_epochs)
        assert full.with_preset() == full


def test_a_runs_recipe_has_its_automatic_choices_resolved(tmp_path):
    settled = with_choices(Recipe(lr="auto", epochs=2).with_preset(), {**MACHINE, "lr": 0.007})
    record = run_record(Recipe(lr="auto", epochs=2), **{name: getattr(settled, name) for name in RESOLVED})
    before = copy.deepcopy(record)
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "copied.json").write_text(json.dumps(record))
    for path in (tmp_path, tmp_path / "run.json", tmp_path / "copied.json"):
        read = read_recipe(path)
        assert (read.recipe, read.backbone, read.dataset) == (settled, "resnet/resnet_nano", "digits")
    recipe_of_run(record)
    assert record == before


def test_every_automatic_choice_is_resolved():
    plain, full = Recipe(), Recipe().with_preset()
    automatic = {name for name, value in plain.record().items() if value == "auto" or full.record()[name] != value}
    assert automatic <= set(RESOLVED)
    assert {"threads", "workers", "lr"} <= set(RESOLVED)


def test_a_run_with_phases_in_full_is_repeated_with_their_rates():
    settled = with_choices(PHASED.with_preset(), MACHINE)
    read = recipe_of_run(run_record(PHASED, **{name: getattr(settled, name) for name in RESOLVED}))
    assert read.recipe == settled
    assert read.recipe.expand() == PHASED.phases


@pytest.mark.parametrize("missing", ["recipe", "resolved", "backbone", "dataset"])
def test_a_record_without_a_recipe(missing):
    record = run_record(Recipe())
    del record[missing]
    with pytest.raises(RecipeError) as caught:
        recipe_of_run(record)
    assert str(caught.value) == f"the run's record holds no recipe\n  why: missing: '{missing}'"


@pytest.mark.parametrize("word", ["on", "off"])
def test_on_and_off_need_no_quotes(tmp_path, word):
    (tmp_path / "recipe.yaml").write_text(f"cache: {word}\n")
    assert read_recipe(tmp_path / "recipe.yaml").recipe.cache == word
    (tmp_path / "again.yaml").write_text(Recipe(cache=word).to_yaml())
    assert read_recipe(tmp_path / "again.yaml").recipe.cache == word
    assert yaml_value("true") is True and yaml_value("False") is False and yaml_value("no") == "no"


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "2", "2/", "a/b", "1/1000"])
def test_a_fold_is_part_of_a_whole(text):
    with pytest.raises(RecipeError) as caught:
        Recipe(fold=text)
    assert f"fold: {text!r} is not K/N, such as 2/5 for the second of five folds" in caught.value.why


def test_what_cuts_the_images_has_a_seed_of_its_own_if_it_is_given_one():
    assert Recipe(seed=3).cut_seed == 3 and Recipe(seed=3, data_seed=0).cut_seed == 0
    assert Recipe().held_fold is None and Recipe(fold="2/5").held_fold == (2, 5)


def test_averages_of_weights_and_a_second_training_exclude_each_other():
    for chosen in ({"soup": True}, {"wise": "sweep"}):
        with pytest.raises(RecipeError) as caught:
            Recipe(refit="on", **chosen)
        assert "refit: soup and wise need the validation images after training" in caught.value.why
    with pytest.raises(RecipeError) as caught:
        Recipe(soup="yes")
    assert "soup: must be true or false, not 'yes'" in caught.value.why


def test_the_help_names_what_auto_tries() -> None:
    assert f"auto: {','.join(methods.TRIED)}." in Recipe.__dataclass_fields__["align"].metadata["help"]
