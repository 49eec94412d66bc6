"""Training data of each phase: images, or cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from zoo.data import Batch
from zoo.data.batches.maker import Key
from zoo.errors import DataError
from zoo.events import Note
from zoo.recipes.plan import CachePlan, PhasePlan
from zoo.tasks.outputs import Outputs
from zoo.training.collect import collect
from zoo.training.frozen_cache.compute import FeatureCache
from zoo.training.frozen_cache.feature_file import CachedFeatures, Layout, NoSpace, gather
from zoo.training.frozen_cache.parts import Cut
from zoo.training.loaded import Loaded, Work
from zoo.training.state.session import Session
from zoo.training.unlabelled_stream import UnlabelledStream


@dataclass(frozen=True, slots=True)
class Option:
    """How a phase could train from cached features."""

    cut: Cut  # where the network is split
    layout: Layout  # of one image's features
    plan: CachePlan
    missing: int  # images that have to go through the frozen part first, because no file has them
    most: int = 1  # cached views of each training image, if there are enough epochs


@dataclass(frozen=True, slots=True)
class Source:
    """Images and the whole network; or cached features and the part of the network above them."""

    network: nn.Module  # takes a batch's `images`, gives (B, classes) logits
    epoch: Callable[[int, int], Iterator[Batch]]  # the batches of an epoch of the run, from a step on
    evaluate: Callable[[nn.Module], Outputs]  # the whole network (or its average) over the validation images


def open_source(
    loaded: Loaded, work: Work, options: Mapping[str, Option], phase: PhasePlan, session: Session
) -> Source:
    """What a phase that begins trains on; `options` are by name, and a phase without one computes the whole network."""
    loader, stream = work.loader, work.stream

    def evaluate(candidate: nn.Module) -> Outputs:
        outputs = collect(candidate, work.val_loader, loaded.accelerator, mixed=True)
        outputs.target = stream.predict(candidate, loaded.accelerator) if stream else None
        return outputs

    epoch = stream.joined(loader) if stream and phase.unlabelled else partial(loader.epoch, steps=_steps(phase, stream))
    images = Source(loaded.model, epoch, evaluate)
    return _open_cached(loaded, work, options[phase.name], phase, session, images) if phase.name in options else images


def _open_cached(
    loaded: Loaded, work: Work, option: Option, phase: PhasePlan, session: Session, images: Source
) -> Source:
    """Compute the features or open their files; `images` if there is no space for them.

    They depend on what earlier phases trained. `session.position.kept` makes a resumed phase do the same.
    """
    at, accelerator = session.position, loaded.accelerator
    if at.kept == "not":
        return images
    first = at.epochs_seen - at.epoch + 1  # the phase's first epoch in the run
    epochs = range(first, first + option.plan.views)
    cache = FeatureCache(loaded, work, option.cut, option.layout, phase.frozen, epochs)
    if at.kept is None:
        at.kept = _decided(accelerator, lambda: "folded" if cache.folds() else "plain")
    if at.kept == "plain" and option.cut.folds:
        session.emit(Note(f"{phase.name}: norms are not folded into convolutions, which would change features"))
    features = _load(accelerator, cache, at.kept == "folded", session)
    if isinstance(features, str):
        at.kept = "not"
        session.emit(Note(f"{phase.name}: features are not cached: {features}"))
        return images
    dataset, stream, steps = loaded.dataset, work.stream, _steps(phase, work.stream)
    pinned = accelerator.device.type == "cuda"
    training = _CachedBatches(features[:-1], first, dataset.train.truth(), pinned=pinned)
    validation = _CachedBatches(features[-1:], 0, dataset.val.truth(), pinned=pinned)

    def evaluate(candidate: nn.Module) -> Outputs:
        batches = map(validation.batch, work.val_loader.keys)
        outputs = collect(option.cut.suffix(candidate), batches, accelerator, mixed=True)
        outputs.target = stream.predict(candidate, accelerator) if stream else None
        return outputs

    def epoch(number: int, start: int) -> Iterator[Batch]:
        return map(training.batch, work.loader.keys(number, start, steps))

    return Source(option.cut.suffix(loaded.model), epoch, evaluate)


def _steps(phase: PhasePlan, stream: UnlabelledStream | None) -> int | None:
    """Batches of an epoch, if that is not a pass over the labelled images."""
    return stream.steps if stream and phase.trains_body else None


def _decided(accelerator: Accelerator, decide: Callable[[], str]) -> str:
    """The main process's decision, in every process."""
    decision = decide() if accelerator.is_main_process else ""
    return str(broadcast_object_list([decision])[0]) if accelerator.num_processes > 1 else decision


def _load(accelerator: Accelerator, cache: FeatureCache, folded: bool, session: Session) -> list[CachedFeatures] | str:
    """The cached features, or why one of the processes has no space for them."""
    if accelerator.num_processes == 1:
        return _load_or_reason(cache, folded, session, session.checkpoint)

    def synchronise(done: bool = False) -> bool:
        """Called by all processes again and again, so that none waits for the first one until it times out."""
        session.checkpoint()
        return bool(broadcast_object_list([done])[0])

    # The first process writes the files that the others open. If it could not write any, each has to compute.
    if accelerator.is_main_process:
        features = _load_or_reason(cache, folded, session, synchronise)
        synchronise(True)
    else:
        while not synchronise():
            pass
        features = _load_or_reason(cache, folded, session, lambda: None)
    reasons = gather_object([features if isinstance(features, str) else ""])
    return next(filter(None, reasons), features)


def _load_or_reason(
    cache: FeatureCache, folded: bool, session: Session, check: Callable[[], object]
) -> list[CachedFeatures] | str:
    try:
        return cache.load(folded, session.emit, check)
    except NoSpace as error:
        return str(error)


class _CachedBatches:
    """Batches of a part's cached features: `views` take turns by epoch from epoch `first`; `pinned` is for a GPU."""

    def __init__(
        self, views: Sequence[CachedFeatures], first: int, labels: torch.Tensor, *, pinned: bool = False
    ) -> None:
        self._views, self._first, self._labels, self._pinned = views, first, labels, pinned
        self._present = np.stack([view.present for view in views])

    def batch(self, keys: Sequence[Key]) -> Batch:
        epochs, positions, again = np.array(keys, dtype=np.int64).T
        which = (epochs - self._first + again) % len(self._views)
        present = self._present[which, positions]
        if not present.all():
            which, positions = which[present], positions[present]
            if not len(positions):
                raise DataError("no image of a batch can be read", fix="repair or remove the unreadable images")
        indices = torch.from_numpy(np.ascontiguousarray(positions))
        batch = Batch(gather(self._views, which, positions), self._labels[indices], indices)
        return batch.pin_memory() if self._pinned else batch
