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
from zoo.runs.prepare import Prepared
from zoo.runs.run_folder import Run
from zoo.tasks.outputs import Outputs
from zoo.tasks.single_label import measure
from zoo.training import unlabelled_stream
from zoo.training.collect import collect
from zoo.training.norms.reestimate import features, recalibrate
from zoo.training.seeds import derive
from zoo.training.validators import VALIDATORS, validators

DRAWN = 300  # images of each domain in the plot


def facts(ready: Prepared) -> dict[str, Any]:
    """What is known of the images without labels before training, for the record."""
    if ready.besides is None:
        return {}
    images = ready.besides.images
    named = {
        "ref": unlabelled_stream.reference(ready.recipe),
        "name": images.name,
        "fingerprint": images.fingerprint,
        "n": len(images.fit),
        "choosing": len(images.choose) if ready.recipe.target else 0,
        "license": images.license,
        "bad": [image.as_dict() for image in images.bad],
        "notes": list(images.notes),
    }
    return {"target" if ready.recipe.target else "unlabelled": named}


def chosen_on(ready: Prepared) -> str:
    """The images that chose the epoch: labelled ones, or those of the target."""
    if ready.besides is None or ready.settled.select_by not in VALIDATORS:
        return ready.dataset.selected_on
    return f"{ready.besides.images.name}, without labels"


def remember_features(this: Run, ready: Prepared) -> None:
    """Keep where both domains lie before training, for the report; a run that goes on has it already."""
    place = this.path / "domains.json"
    if ready.recipe.target and ready.accelerator.is_main_process and not place.is_file():
        write_atomic(place, json.dumps(_drawn(ready, ready.model)))


def recalibrated(ready: Prepared) -> None:
    """For AdaBN: give the trained network the target's norm statistics, in the process that saves it."""
    if ready.recipe.align != "adabn" or ready.besides is None or not ready.accelerator.is_main_process:
        return
    loader = data.train_loader(
        ready.besides.images.fit,
        config=ready.config,
        augment="none",
        batch_size=min(len(ready.besides.images.fit), max(32, ready.settled.batch)),
        seed=derive(ready.recipe.seed, "adabn"),
        device=ready.accelerator.device,
    )
    recalibrate(ready.model, loader.epoch(0), ready.accelerator)


def described(this: Run, ready: Prepared, best: dict[str, Any] | None, model: nn.Module) -> dict[str, Any]:
    """What the finished run says about the target, for the record: validators, and with labels the truth.

    Args:
        this: The run.
        ready: What was trained.
        best: The epoch that was chosen.
        model: The saved model, loaded back.

    Returns:
        Under `target`: the facts; what the validators say of the model; `result`, as a run's; `epochs`, the accuracy of
        each on the images that epochs are compared on, with `chosen` and `oracle` among them, which is the epoch that
        their labels would have chosen (of AdaBN none: the network that is saved is none of those that were compared);
        `domains`, the plot; the last two in the main process alone.
    """
    besides, answers = ready.besides, ready.answers
    if besides is None or not ready.recipe.target:
        return facts(ready)
    said: dict[str, Any] = facts(ready)["target"] | {"align": ready.recipe.align, "semi": ready.recipe.semi}
    said["select_by"] = ready.settled.select_by
    said["validators"] = validators(_outputs(ready, besides.images.choose, model).logits)
    if answers is not None:
        result = measure(
            _outputs(ready, answers.report, model),
            ready.dataset.classes,
            answers.report.ids,
        )
        said["result"] = result | {"split": answers.split, "selected_on": chosen_on(ready)}
    if not ready.accelerator.is_main_process:
        return {"target": said}
    if answers is not None and ready.recipe.align != "adabn":  # its guesses were those of the statistics before
        said |= _truth(this, ready, best or {}, answers.choose)
    place = this.path / "domains.json"
    before = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    said["domains"] = {"before": before, "after": _drawn(ready, model)}
    place.unlink(missing_ok=True)
    return {"target": said}


def _truth(this: Run, ready: Prepared, best: dict[str, Any], labels: tuple[int, ...] | None) -> dict[str, Any]:
    """How right the guesses of each epoch were, and which epoch the labels would have chosen."""
    if labels is None:
        return {}
    true = np.asarray(labels)
    epochs: list[dict[str, Any]] = [
        {"phase": ready.plan.phases[phase].name, "epoch": epoch, "accuracy": float((guesses == true).mean())}
        for phase, epoch, guesses in unlabelled_stream.guesses(this.checkpoints)
    ]
    chosen = next(
        (row for row in epochs if (row["phase"], row["epoch"]) == (best.get("phase"), best.get("epoch"))), None
    )
    eligible = {phase.name for phase in ready.plan.phases if phase.eligible}
    could_be = [row for row in epochs if row["phase"] in eligible]
    return {"epochs": epochs, "chosen": chosen, "oracle": max(could_be, key=lambda row: row["accuracy"], default=None)}


def _outputs(ready: Prepared, part: Part, model: nn.Module) -> Outputs:
    """What all processes together make of a part."""
    accelerator = ready.accelerator
    batches = _batches(ready, part, rank=accelerator.process_index, world=accelerator.num_processes)
    return collect(model, batches, accelerator, mixed=False)


def _batches(ready: Prepared, part: Part, rank: int = 0, world: int = 1) -> EvaluationLoader:
    return data.eval_batches(
        part,
        config=ready.config,
        batch_size=ready.settled.batch,
        rank=rank,
        world=world,
        device=ready.accelerator.device,
    )


@torch.no_grad()
def _drawn(ready: Prepared, model: nn.Module) -> dict[str, Any]:
    """The two directions in which the features of both domains vary most (PCA), and where each image lies in them."""
    from sklearn.decomposition import PCA  # takes seconds to import

    assert ready.besides is not None
    parts = {"source": ready.dataset.choose, "target": ready.besides.images.choose}
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, part in parts.items():
        order = ranked(part.ids, seed=0, purpose="plot")
        rows, _ = features(model, _batches(ready, part.some(sorted(order[:DRAWN]))), ready.accelerator)
        found[name] = rows.double().numpy()
    both = np.concatenate(list(found.values()))
    reduced = PCA(n_components=min(2, *both.shape), svd_solver="full").fit(both)
    drawn = {name: np.round(reduced.transform(rows), 3).tolist() for name, rows in found.items()}
    return drawn | {"share": round(float(reduced.explained_variance_ratio_.sum()), 3)}
