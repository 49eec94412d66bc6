"""Domain adaptation in the record: the target before and after training.

Only here are the target's labels used, if there are any, and only after all decisions are made.
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
    """The unlabelled images before training, for the record."""
    images, recipe = loaded.unlabelled, loaded.recipe
    if images is None:
        return {}
    entry = {
        "ref": unlabelled_stream.reference(recipe),
        "name": images.name,
        "fingerprint": images.fingerprint,
        "n": len(images.train),
        "choosing": len(images.val) if recipe.target else 0,
        "license": images.license,
        "bad": [image.as_dict() for image in images.bad],
        "notes": list(images.notes),
    }
    return {"target" if recipe.target else "unlabelled": entry}


def chosen_on(loaded: Loaded, settled: Recipe) -> str:
    """The images that chose the epoch: validation images, or unlabelled ones of the target."""
    if loaded.unlabelled is None or settled.select_by not in VALIDATORS:
        return loaded.dataset.selected_on
    return f"{loaded.unlabelled.name}, without labels"


def remember_features(this: Run, loaded: Loaded, batch_size: int) -> None:
    """Save the features of both domains before training, for the report; a resumed run has them already."""
    place = this.path / "domains.json"
    if loaded.recipe.target and loaded.accelerator.is_main_process and not place.is_file():
        write_atomic(place, json.dumps(_drawn(loaded, loaded.model, batch_size)))


def recalibrated(loaded: Loaded, batch_size: int) -> None:
    """For AdaBN, re-estimate the trained network's norm statistics on the target, in the main process."""
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
    """`target` of a finished run's record, from the saved model and the epoch that was chosen (`best`).

    Its `oracle` is the epoch that the target's labels would have chosen; the main process alone returns it, `epochs`
    and `domains`, the plot.
    """
    images, truth, recipe, batch_size = loaded.unlabelled, loaded.true_labels, loaded.recipe, settled.batch
    if images is None or not recipe.target:
        return facts(loaded)
    entry: dict[str, Any] = facts(loaded)["target"] | {"align": recipe.align, "semi": recipe.semi}
    entry["select_by"] = settled.select_by
    entry["validators"] = validators(_outputs(loaded, images.val, model, batch_size).logits)
    if truth is not None:
        result = measure(_outputs(loaded, truth.test, model, batch_size), loaded.dataset.classes, truth.test.ids)
        entry["result"] = result | {"split": truth.split, "selected_on": chosen_on(loaded, settled)}
    if not loaded.accelerator.is_main_process:
        return {"target": entry}
    # AdaBN's epochs were predicted with other norm statistics than the saved network has.
    if truth is not None and truth.val is not None and recipe.align != "adabn":
        entry |= _epoch_accuracies(this, plan, best or {}, truth.val)
    place = this.path / "domains.json"
    before = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    entry["domains"] = {"before": before, "after": _drawn(loaded, model, batch_size)}
    place.unlink(missing_ok=True)
    return {"target": entry}


def _epoch_accuracies(this: Run, plan: Plan, best: dict[str, Any], labels: tuple[int, ...]) -> dict[str, Any]:
    """The target accuracy of each epoch, the chosen epoch, and the one that the labels would have chosen."""
    true = np.asarray(labels)
    epochs: list[dict[str, Any]] = [
        {"phase": plan.phases[phase].name, "epoch": epoch, "accuracy": float((guesses == true).mean())}
        for phase, epoch, guesses in unlabelled_stream.target_predictions(this.checkpoints)
    ]
    place = best.get("phase"), best.get("epoch")
    chosen = next((row for row in epochs if (row["phase"], row["epoch"]) == place), None)
    names = {phase.name for phase in plan.phases if phase.eligible}
    eligible = [row for row in epochs if row["phase"] in names]
    return {"epochs": epochs, "chosen": chosen, "oracle": max(eligible, key=lambda row: row["accuracy"], default=None)}


def _outputs(loaded: Loaded, part: Part, model: nn.Module, batch_size: int) -> Outputs:
    """The predictions for a part, by all processes together."""
    accelerator = loaded.accelerator
    batches = _batches(loaded, part, batch_size, rank=accelerator.process_index, world=accelerator.num_processes)
    return collect(model, batches, accelerator, mixed=False)


def _batches(loaded: Loaded, part: Part, batch_size: int, rank: int = 0, world: int = 1) -> EvaluationLoader:
    return data.eval_batches(
        part, config=loaded.config, batch_size=batch_size, rank=rank, world=world, device=loaded.accelerator.device
    )


@torch.no_grad()
def _drawn(loaded: Loaded, model: nn.Module, batch_size: int) -> dict[str, Any]:
    """The features of both domains in their first two principal components, and the share of variance explained."""
    from sklearn.decomposition import PCA  # takes seconds to import

    assert loaded.unlabelled is not None
    domains: dict[str, np.ndarray[Any, Any]] = {}
    for name, part in (("source", loaded.dataset.val), ("target", loaded.unlabelled.val)):
        sample = part.some(sorted(ranked(part.ids, seed=0, purpose="plot")[:DRAWN]))
        rows, _ = features(model, _batches(loaded, sample, batch_size), loaded.accelerator)
        domains[name] = rows.double().numpy()
    both = np.concatenate(list(domains.values()))
    reduced = PCA(n_components=min(2, *both.shape), svd_solver="full").fit(both)
    drawn = {name: np.round(reduced.transform(rows), 3).tolist() for name, rows in domains.items()}
    return drawn | {"share": round(float(reduced.explained_variance_ratio_.sum()), 3)}
