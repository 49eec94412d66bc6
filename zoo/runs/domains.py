"""What a run says about the domain that it adapted to: before training, and when training is over.

Here alone the target's labels are looked at, if there are any, when nothing can be decided by them any more.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo import data
from zoo.base.files import write_atomic
from zoo.data import EvaluationLoader, Part
from zoo.data.types import ranked
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import Run
from zoo.tasks.outputs import Outputs
from zoo.tasks.single_label import measure
from zoo.training import unlabelled_stream
from zoo.training.collect import collect
from zoo.training.loaded import Loaded
from zoo.training.norms.reestimate import features, recalibrate
from zoo.training.seeds import derive
from zoo.training.validators import VALIDATORS, validators

DRAWN = 300  # images of each domain in the plot


def facts(loaded: Loaded) -> dict[str, Any]:
    """What is known of the images without labels before training, for the record."""
    images, recipe = loaded.unlabelled, loaded.recipe
    if images is None:
        return {}
    named = {
        "ref": unlabelled_stream.reference(recipe),
        "name": images.name,
        "fingerprint": images.fingerprint,
        "n": len(images.train),
        "choosing": len(images.val) if recipe.target else 0,
        "license": images.license,
        "bad": [image.as_dict() for image in images.bad],
        "notes": list(images.notes),
    }
    return {"target" if recipe.target else "unlabelled": named}


def chosen_on(loaded: Loaded, settled: Recipe) -> str:
    """The images that chose the epoch: labelled ones, or those of the target."""
    if loaded.unlabelled is None or settled.select_by not in VALIDATORS:
        return loaded.dataset.selected_on
    return f"{loaded.unlabelled.name}, without labels"


def remember_features(this: Run, loaded: Loaded, batch_size: int) -> None:
    """Keep where both domains lie before training, for the report; a run that goes on has it already."""
    place = this.path / "domains.json"
    if loaded.recipe.target and loaded.accelerator.is_main_process and not place.is_file():
        write_atomic(place, json.dumps(_drawn(loaded, loaded.model, batch_size)))


def recalibrated(loaded: Loaded, batch_size: int) -> None:
    """For AdaBN: give the trained network the target's norm statistics, in the process that saves it."""
    images = loaded.unlabelled
    if loaded.recipe.align != "adabn" or images is None or not loaded.accelerator.is_main_process:
        return
    loader = data.train_loader(
        images.train,
        config=loaded.config,
        augment="none",
        batch_size=min(len(images.train), max(32, batch_size)),
        seed=derive(loaded.recipe.seed, "adabn"),
        device=loaded.accelerator.device,
    )
    recalibrate(loaded.model, loader.epoch(0), loaded.accelerator)


def described(
    this: Run, loaded: Loaded, settled: Recipe, plan: Plan, best: dict[str, Any] | None, model: nn.Module
) -> dict[str, Any]:
    """What the finished run says about the target, for the record: validators, and with labels the truth.

    Args:
        this: The run.
        loaded: What was trained.
        settled: How.
        plan: In which phases.
        best: The epoch that was chosen.
        model: The saved model, loaded back.

    Returns:
        Under `target`: the facts; what the validators say of the model; `result`, as a run's; `epochs`, the accuracy of
        each on the images that epochs are compared on, with `chosen` and `oracle` among them, which is the epoch that
        their labels would have chosen (of AdaBN none: the network that is saved is none of those that were compared);
        `domains`, the plot; the last two in the main process alone.
    """
    images, answers, recipe, batch_size = loaded.unlabelled, loaded.true_labels, loaded.recipe, settled.batch
    if images is None or not recipe.target:
        return facts(loaded)
    said: dict[str, Any] = facts(loaded)["target"] | {"align": recipe.align, "semi": recipe.semi}
    said["select_by"] = settled.select_by
    said["validators"] = validators(_outputs(loaded, images.val, model, batch_size).logits)
    if answers is not None:
        result = measure(_outputs(loaded, answers.test, model, batch_size), loaded.dataset.classes, answers.test.ids)
        said["result"] = result | {"split": answers.split, "selected_on": chosen_on(loaded, settled)}
    if not loaded.accelerator.is_main_process:
        return {"target": said}
    if answers is not None and recipe.align != "adabn":  # its guesses were those of the statistics before
        said |= _truth(this, plan, best or {}, answers.val)
    place = this.path / "domains.json"
    before = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    said["domains"] = {"before": before, "after": _drawn(loaded, model, batch_size)}
    place.unlink(missing_ok=True)
    return {"target": said}


def _truth(this: Run, plan: Plan, best: dict[str, Any], labels: tuple[int, ...] | None) -> dict[str, Any]:
    """How right the guesses of each epoch were, and which epoch the labels would have chosen."""
    if labels is None:
        return {}
    true = np.asarray(labels)
    epochs: list[dict[str, Any]] = [
        {"phase": plan.phases[phase].name, "epoch": epoch, "accuracy": float((guesses == true).mean())}
        for phase, epoch, guesses in unlabelled_stream.target_predictions(this.checkpoints)
    ]
    chosen = next(
        (row for row in epochs if (row["phase"], row["epoch"]) == (best.get("phase"), best.get("epoch"))), None
    )
    eligible = {phase.name for phase in plan.phases if phase.eligible}
    could_be = [row for row in epochs if row["phase"] in eligible]
    return {"epochs": epochs, "chosen": chosen, "oracle": max(could_be, key=lambda row: row["accuracy"], default=None)}


def _outputs(loaded: Loaded, part: Part, model: nn.Module, batch_size: int) -> Outputs:
    """What all processes together make of a part."""
    accelerator = loaded.accelerator
    batches = _batches(loaded, part, batch_size, rank=accelerator.process_index, world=accelerator.num_processes)
    return collect(model, batches, accelerator, mixed=False)


def _batches(loaded: Loaded, part: Part, batch_size: int, rank: int = 0, world: int = 1) -> EvaluationLoader:
    return data.eval_batches(
        part, config=loaded.config, batch_size=batch_size, rank=rank, world=world, device=loaded.accelerator.device
    )


@torch.no_grad()
def _drawn(loaded: Loaded, model: nn.Module, batch_size: int) -> dict[str, Any]:
    """The two directions in which the features of both domains vary most (PCA), and where each image lies in them."""
    from sklearn.decomposition import PCA  # takes seconds to import

    assert loaded.unlabelled is not None
    parts = {"source": loaded.dataset.val, "target": loaded.unlabelled.val}
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, part in parts.items():
        order = ranked(part.ids, seed=0, purpose="plot")
        sample = part.some(sorted(order[:DRAWN]))
        rows, _ = features(model, _batches(loaded, sample, batch_size), loaded.accelerator)
        found[name] = rows.double().numpy()
    both = np.concatenate(list(found.values()))
    reduced = PCA(n_components=min(2, *both.shape), svd_solver="full").fit(both)
    drawn = {name: np.round(reduced.transform(rows), 3).tolist() for name, rows in found.items()}
    return drawn | {"share": round(float(reduced.explained_variance_ratio_.sum()), 3)}
