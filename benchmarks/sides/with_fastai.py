"""fastai as its documentation shows it: `vision_learner` on a timm architecture, `fit_one_cycle` or `fine_tune`.

Concatenated pooling, a head of two layers with dropout, the augmentation of `aug_transforms`, batches of 64: all of it
its defaults. The weights are the file's, through timm's own loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)
from safetensors.torch import load_file

from benchmarks.sides.shared import facts
from benchmarks.stopwatch import Stopwatch

BATCH = 64
RATE = 2e-3  # at which `fine_tune` trains the head before it unfreezes the rest; better here than a learner's 1e-3


class Curve(Callback):  # type: ignore[misc]  # fastai is not typed
    """Stops the clock while the reported images are scored, which `fit` does after every epoch."""

    order = 60  # after fastai's own recorder

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def before_validate(self) -> None:
        self._pause = self.watch.paused()
        self._pause.__enter__()

    def after_validate(self) -> None:
        self._pause.__exit__(None, None, None)

    def after_epoch(self) -> None:
        self.watch.point(float(self.recorder.values[-1][2]))


def _check(body: torch.nn.Module, weights: str) -> None:
    """timm is lenient where the number of classes differs: other weights would go unnoticed."""
    given = load_file(weights)
    assert all(torch.equal(tensor, given[name]) for name, tensor in body.state_dict().items())


def run(job: Mapping[str, Any], watch: Stopwatch) -> dict[str, Any]:
    set_seed(job["seed"])
    said = facts(job["weights"])
    data = ImageDataLoaders.from_folder(
        job["data"],
        valid="test",
        item_tfms=Resize(job["image_size"]),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(said["mean"], said["std"])],
        bs=BATCH,
    )
    learner = vision_learner(
        data,
        job["arch"],
        metrics=accuracy,
        pretrained_cfg_overlay={"file": job["weights"]},
        **said["model_args"],
    )
    _check(learner.model[0].model, job["weights"])
    curve = Curve(watch)
    watch.mark("training")
    with learner.no_bar():
        if job["kind"] == "probe":
            learner.fit_one_cycle(job["epochs"], RATE, cbs=curve)
        elif job["kind"] == "finetune":
            learner.fine_tune(job["epochs"], cbs=curve)
        else:
            learner.unfreeze()
            learner.fit_one_cycle(job["epochs"], cbs=curve)
        watch.mark("trained")
        final = float(learner.validate()[1])
    torch.save(learner.model.state_dict(), job["out"])
    return {"accuracy": final, "n": len(data.valid_ds), "trained_on": len(data.train_ds)}
