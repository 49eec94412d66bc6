"""What each phase of a run trains on: images, or activations that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from zoo.data import Batch
from zoo.data.batches.maker import Key
from zoo.errors import DataError
from zoo.events import Note
from zoo.recipes.plan import CachePlan, PhasePlan
from zoo.tasks.outputs import Outputs
from zoo.training.collect import collect
from zoo.training.frozen_cache.compute import Keeper, Material
from zoo.training.frozen_cache.feature_file import Kept, Layout, NoRoom, gather
from zoo.training.frozen_cache.parts import Cut
from zoo.training.state.session import Session
from zoo.training.unlabelled_stream import Besides


@dataclass(frozen=True, slots=True)
class Sources:
    """Makes the source of each phase.

    Args:
        material: The network, the images, the recipe.
        options: How phases train from kept activations, by name; a phase that is not here computes the whole network.
        besides: Images without labels, where there are some.
    """

    material: Material
    options: Mapping[str, Option]
    besides: Besides | None = None

    def __call__(self, phase: PhasePlan, session: Session, check: Callable[[], None]) -> Source:
        """What a phase trains on.

        Args:
            phase: The phase.
            session: Where training stands; it remembers how a phase began, so that a resumed one goes on alike.
            check: Called between chunks of work, by all processes alike; raises when the run was told to stop.
        """
        option = self.options.get(phase.name)
        at, steps = session.position, self._steps(phase)
        if option is None or at.kept == "not":
            return self._whole(phase, session)
        first = at.epochs_seen - at.epoch + 1  # the phase's first epoch in the run
        epochs = range(first, first + option.plan.views)
        keeper = Keeper(self.material, option.cut, option.layout, phase.frozen, epochs)
        if at.kept is None:
            at.kept = self._decided(lambda: "folded" if keeper.folds() else "plain")
        if at.kept == "plain" and option.cut.folds:
            session.emit(Note(f"{phase.name}: norms are not folded into convolutions, which would change activations"))
        made = self._made(keeper, at.kept == "folded", session, check)
        if isinstance(made, str):
            at.kept = "not"
            session.emit(Note(f"{phase.name}: no activations are kept: {made}"))
            return self._whole(phase, session)
        dataset, loader, choosing = self.material.dataset, self.material.loader, self.material.choosing
        pinned = self.material.accelerator.device.type == "cuda"
        training = _Shelf(made[:-1], first, dataset.fit.truth(), pinned=pinned)
        scoring = _Shelf(made[-1:], 0, dataset.choose.truth(), pinned=pinned)

        def evaluate(candidate: nn.Module) -> Outputs:
            batches = map(scoring.batch, choosing.keys)
            outputs = collect(option.cut.suffix(candidate), batches, self.material.accelerator, mixed=True)
            return self._with_target(outputs, candidate, session)

        def epoch(number: int, start: int) -> Iterator[Batch]:
            return map(training.batch, loader.keys(number, start, steps))

        return Source(option.cut.suffix(self.material.model), epoch, evaluate)

    def _whole(self, phase: PhasePlan, session: Session) -> Source:
        material, steps = self.material, self._steps(phase)

        def evaluate(candidate: nn.Module) -> Outputs:
            outputs = collect(candidate, material.choosing, material.accelerator, mixed=True)
            return self._with_target(outputs, candidate, session)

        def epoch(number: int, start: int) -> Iterator[Batch]:
            return material.loader.epoch(number, start, steps)

        if phase.unlabelled and self.besides is not None:
            return Source(material.model, self.besides.joined(material.loader), evaluate)
        return Source(material.model, epoch, evaluate)

    def _steps(self, phase: PhasePlan) -> int | None:
        """Batches of an epoch, where that is not a pass over the labelled images."""
        return self.besides.steps if self.besides is not None and phase.trains_body else None

    def _with_target(self, outputs: Outputs, candidate: nn.Module, session: Session) -> Outputs:
        if self.besides is not None:
            outputs.target = self.besides.look(candidate, session, self.material.accelerator)
        return outputs

    def _decided(self, decide: Callable[[], str]) -> str:
        """What the first process decides."""
        accelerator = self.material.accelerator
        decided = decide() if accelerator.is_main_process else ""
        return str(broadcast_object_list([decided])[0]) if accelerator.num_processes > 1 else decided

    def _made(self, keeper: Keeper, folded: bool, session: Session, check: Callable[[], None]) -> list[Kept] | str:
        """The activations, or why there is no room for them in one of the processes."""
        accelerator = self.material.accelerator
        if accelerator.num_processes == 1:
            return _tried(lambda: keeper.make(folded, session.emit, check))

        def meet(done: bool) -> bool:
            """All processes come here again and again, so that none waits for the first one until it gives up."""
            check()
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


def _tried(make: Callable[[], list[Kept]]) -> list[Kept] | str:
    try:
        return make()
    except NoRoom as error:
        return str(error)


@dataclass(frozen=True, slots=True)
class Source:
    """Images and the whole network; or kept activations and the part of the network above them."""

    network: nn.Module  # takes a batch's `images`, gives (B, classes) logits
    epoch: Callable[[int, int], Iterator[Batch]]  # the batches of an epoch of the run, from a step on
    evaluate: Callable[[nn.Module], Outputs]  # the whole network (or its average) over the choosing images


@dataclass(frozen=True, slots=True)
class Option:
    """How a phase could train from kept activations."""

    cut: Cut  # where the network is split
    layout: Layout  # of one image's activations
    plan: CachePlan
    missing: int  # images that have to go through the frozen part first; those on the disk need not
    most: int = 1  # views that would be kept of each training image, were there epochs enough
