"""What each phase of a run trains on: images, or activations that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
from zoo.training.frozen_cache.compute import Keeper
from zoo.training.frozen_cache.feature_file import Kept, Layout, NoRoom, gather
from zoo.training.frozen_cache.parts import Cut
from zoo.training.loaded import Loaded, Work
from zoo.training.state.session import Session
from zoo.training.unlabelled_stream import UnlabelledStream


@dataclass(frozen=True, slots=True)
class Option:
    """How a phase could train from kept activations."""

    cut: Cut  # where the network is split
    layout: Layout  # of one image's activations
    plan: CachePlan
    missing: int  # images that have to go through the frozen part first; those on the disk need not
    most: int = 1  # views that would be kept of each training image, were there epochs enough


class PhaseSource(Protocol):
    """What gives a phase its images, or activations, when it begins."""

    def begin(self, session: Session) -> Source:
        """What the phase trains on; the session knows how it began, for one that goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """Images and the whole network; or kept activations and the part of the network above them."""

    network: nn.Module  # takes a batch's `images`, gives (B, classes) logits
    epoch: Callable[[int, int], Iterator[Batch]]  # the batches of an epoch of the run, from a step on
    evaluate: Callable[[nn.Module], Outputs]  # the whole network (or its average) over the validation images

    def begin(self, session: Session) -> Source:
        """What the phase trains on; of images nothing has to be made first."""
        return self


@dataclass(frozen=True, slots=True)
class CachedSource:
    """Kept activations, which are made when their phase begins: they depend on what the phases before it trained."""

    phase: PhasePlan
    option: Option
    loaded: Loaded
    work: Work
    images: Source  # where no activations can be kept

    def begin(self, session: Session) -> Source:
        """Make the activations, or find them on the disk.

        Args:
            session: Where training stands; it remembers how a phase began, so that a resumed one goes on alike.
        """
        at, option, accelerator = session.position, self.option, self.loaded.accelerator
        if at.kept == "not":
            return self.images
        first = at.epochs_seen - at.epoch + 1  # the phase's first epoch in the run
        epochs = range(first, first + option.plan.views)
        keeper = Keeper(self.loaded, self.work, option.cut, option.layout, self.phase.frozen, epochs)
        if at.kept is None:
            at.kept = _decided(accelerator, lambda: "folded" if keeper.folds() else "plain")
        if at.kept == "plain" and option.cut.folds:
            session.emit(
                Note(f"{self.phase.name}: norms are not folded into convolutions, which would change activations")
            )
        made = _made(accelerator, keeper, at.kept == "folded", session)
        if isinstance(made, str):
            at.kept = "not"
            session.emit(Note(f"{self.phase.name}: no activations are kept: {made}"))
            return self.images
        dataset, work, stream = self.loaded.dataset, self.work, self.work.stream
        pinned = accelerator.device.type == "cuda"
        training = _Shelf(made[:-1], first, dataset.train.truth(), pinned=pinned)
        scoring = _Shelf(made[-1:], 0, dataset.val.truth(), pinned=pinned)
        steps = _steps(self.phase, stream)

        def evaluate(candidate: nn.Module) -> Outputs:
            batches = map(scoring.batch, work.val_loader.keys)
            outputs = collect(option.cut.suffix(candidate), batches, accelerator, mixed=True)
            outputs.target = stream.look(candidate, accelerator) if stream else None
            return outputs

        def epoch(number: int, start: int) -> Iterator[Batch]:
            return map(training.batch, work.loader.keys(number, start, steps))

        return Source(option.cut.suffix(self.loaded.model), epoch, evaluate)


def sources_for(
    phases: Sequence[PhasePlan], loaded: Loaded, work: Work, options: Mapping[str, Option]
) -> list[PhaseSource]:
    """What each phase trains on.

    Args:
        phases: In order.
        loaded: The network and the images.
        work: Their batches.
        options: How phases train from kept activations, by name; one that is not here computes the whole network.
    """
    accelerator, loader, stream = loaded.accelerator, work.loader, work.stream

    def evaluate(candidate: nn.Module) -> Outputs:
        outputs = collect(candidate, work.val_loader, accelerator, mixed=True)
        outputs.target = stream.look(candidate, accelerator) if stream else None
        return outputs

    def made(phase: PhasePlan) -> PhaseSource:
        def epoch(number: int, start: int) -> Iterator[Batch]:
            return loader.epoch(number, start, _steps(phase, stream))

        joined = stream.joined(loader) if stream and phase.unlabelled else epoch
        images = Source(loaded.model, joined, evaluate)
        option = options.get(phase.name)
        return images if option is None else CachedSource(phase, option, loaded, work, images)

    return [made(phase) for phase in phases]


def _steps(phase: PhasePlan, stream: UnlabelledStream | None) -> int | None:
    """Batches of an epoch, where that is not a pass over the labelled images."""
    return stream.steps if stream and phase.trains_body else None


def _decided(accelerator: Accelerator, decide: Callable[[], str]) -> str:
    """What the first process decides."""
    decided = decide() if accelerator.is_main_process else ""
    return str(broadcast_object_list([decided])[0]) if accelerator.num_processes > 1 else decided


def _made(accelerator: Accelerator, keeper: Keeper, folded: bool, session: Session) -> list[Kept] | str:
    """The activations, or why there is no room for them in one of the processes."""
    if accelerator.num_processes == 1:
        return _tried(lambda: keeper.make(folded, session.emit, session.checkpoint))

    def meet(done: bool) -> bool:
        """All processes come here again and again, so that none waits for the first one until it gives up."""
        session.checkpoint()
        return bool(broadcast_object_list([done])[0])

    def go_on() -> None:
        meet(False)

    # The first process writes the files that the others open. Where it could not write any, each has to compute.
    if accelerator.is_main_process:
        made = _tried(lambda: keeper.make(folded, session.emit, go_on))
        meet(True)
    else:
        while not meet(False):
            pass
        made = _tried(lambda: keeper.make(folded, session.emit, lambda: None))
    reasons = gather_object([made if isinstance(made, str) else ""])
    return next(filter(None, reasons), made)


def _tried(make: Callable[[], list[Kept]]) -> list[Kept] | str:
    try:
        return make()
    except NoRoom as error:
        return str(error)


class _Shelf:
    """Batches from kept views of the images of a part.

    Args:
        views: One or more, which epochs take in turn.
        first: The epoch that takes the first one.
        labels: Of all images, as `Part.truth` has them.
        pinned: Put batches where a GPU fetches them from while it computes.
    """

    def __init__(self, views: Sequence[Kept], first: int, labels: torch.Tensor, *, pinned: bool = False) -> None:
        self._views, self._first, self._labels, self._pinned = views, first, labels, pinned
        self._present = np.stack([view.present for view in views])

    def batch(self, keys: Sequence[Key]) -> Batch:
        epochs, positions, again = np.array(keys, dtype=np.int64).T
        which = (epochs - self._first + again) % len(self._views)
        there = self._present[which, positions]
        if not there.all():
            which, positions = which[there], positions[there]
            if not len(positions):
                raise DataError("no image of a batch can be read", fix="repair or remove the unreadable images")
        indices = torch.from_numpy(np.ascontiguousarray(positions))
        batch = Batch(gather(self._views, which, positions), self._labels[indices], indices)
        return batch.pin_memory() if self._pinned else batch
