"""Which phases train from kept activations, and the activations they train from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

import zoo
from zoo.cache import activations_folder
from zoo.data import Batch, Dataset, EvaluationLoader, TrainLoader
from zoo.data.batches import Key
from zoo.engine.activations import Kept, Layout, NoRoom, keep, open_kept, path_of
from zoo.engine.boundary import Splitter
from zoo.engine.evaluation import Outputs, collect
from zoo.engine.events import Note, Progress
from zoo.engine.folding import agrees, folded_parts
from zoo.engine.halves import Cut, Prefix
from zoo.engine.session import Session
from zoo.engine.source import Source
from zoo.errors import DataError
from zoo.groups import Group
from zoo.planning import CachePlan, PhasePlan, Plan, asked_phases
from zoo.recipe import Recipe

VIEWS = 4  # kept where nobody chose, if images are augmented
CHUNK = 32  # images that go through the prefix at once: always as many, so that the same bits come out again
COMPARED = 64  # images on which folding is checked


@dataclass(frozen=True, slots=True)
class Option:
    """How a phase could train from kept activations."""

    cut: Cut
    layout: Layout
    plan: CachePlan


def options(
    plan: Plan,
    model: nn.Module,
    groups: Sequence[Group],
    recipe: Recipe,
    accelerator: Accelerator,
    image: tuple[int, int, int],
    dataset: Dataset,
) -> tuple[dict[str, Option], list[str]]:
    """The phases that could train from kept activations, by name, and what there is to say about the others.

    Raises:
        RecipeError: The recipe names a phase that there is not.
    """
    asked = asked_phases(recipe.cache, plan, "keep activations for")
    candidates = [phase for phase in plan.phases if phase.name in asked and phase.groups[0].frozen]
    found: dict[str, Option] = {}
    notes: list[str] = []
    if not candidates:
        return found, notes
    if recipe.cutmix:
        return found, [
            f"{', '.join(phase.name for phase in candidates)}: no activations are kept, for CutMix needs pixels"
        ]
    splitter = Splitter(model, groups, image)
    for phase in candidates:
        cut = splitter.split(phase.frozen, phase.fixed_norm)
        if cut is None:
            notes.append(
                f"{phase.name}: no activations are kept, for the network cannot be split where its frozen part ends"
            )
            continue
        blank = torch.zeros(2, *image, device=accelerator.device).to(memory_format=torch.channels_last)
        with accelerator.autocast():
            layout = Layout.of(cut.prefix(model)(blank))
        views = min(recipe.cache_views or 1, phase.epochs)
        size = (views * len(dataset.fit) + len(dataset.choose)) * layout.row_bytes
        if size > 1e9 * max(recipe.cache_gb, recipe.cache_ram_gb / accelerator.num_processes):
            notes.append(f"{phase.name}: no activations are kept, for they take {size / 1e9:.1f} GB; see --cache-gb")
            continue
        if cut.recomputed:
            notes.append(f"{phase.name}: activations can be kept only before {cut.entry}; "
                         f"{', '.join(cut.recomputed)} are frozen too, and computed in every step")  # fmt: skip
        found[phase.name] = Option(cut, layout, CachePlan(cut.group, cut.entry, views, size))
    return found, notes


def views(recipe: Recipe, random: bool) -> int:
    """The views that are kept of each image: one where all look alike."""
    return (recipe.cache_views or VIEWS) if random else 1


def chosen(recipe: Recipe, saved: dict[str, float], accelerator: Accelerator) -> list[str]:
    """The phases that train from kept activations.

    Args:
        recipe: Says whether that is a matter of time at all.
        saved: Estimated seconds that it saves each phase that could.
        accelerator: One process decides: another may have timed otherwise.
    """
    names = [name for name, seconds in saved.items() if recipe.cache != "auto" or seconds > 0]
    if accelerator.num_processes == 1:
        return names
    return list(broadcast_object_list([names])[0])


@dataclass(frozen=True, slots=True)
class Caching:
    """Makes the sources of a run's phases.

    Args:
        model: The network, on its device.
        groups: Its layer groups.
        recipe: With automatic choices replaced.
        dataset: The images.
        loader: Training batches.
        choosing: Batches of the choosing images.
        accelerator: Device, precision, processes.
        options: By phase, where its plan says that it trains from kept activations.
        names: Backbone and data set, for people.
    """

    model: nn.Module
    groups: Sequence[Group]
    recipe: Recipe
    dataset: Dataset
    loader: TrainLoader
    choosing: EvaluationLoader
    accelerator: Accelerator
    options: dict[str, Option]
    names: tuple[str, str]

    def source(self, phase: PhasePlan, session: Session, check: Callable[[], None]) -> Source:
        """What a phase trains on.

        Args:
            phase: The phase.
            session: Where training stands; it remembers how a phase began, so that a resumed one goes on alike.
            check: Called between chunks of work; raises when the run was told to stop.
        """
        option = self.options.get(phase.name)
        at = session.position
        if option is None or at.kept == "not":
            return self._whole()
        assert phase.cache is not None
        first = at.epochs_seen - at.epoch + 1  # the phase's first epoch in the run
        epochs = [first + number if self.loader.random else 0 for number in range(phase.cache.views)]
        at.kept = at.kept or ("folded" if self._folds(option) else "plain")
        if at.kept == "plain" and option.cut.folds:
            session.emit(Note(f"{phase.name}: norms are not folded into convolutions, for predictions would differ"))
        work = _Work(self, option, phase, at.kept == "folded", session, check)
        kept: list[Kept] = []
        why = ""
        if not self.accelerator.is_main_process:
            self.accelerator.wait_for_everyone()  # the first process writes the files that the others open
        try:
            kept = [work.training(epoch, number) for number, epoch in enumerate(epochs)]
            scoring = work.choosing()
        except NoRoom as error:
            why = str(error)
        if self.accelerator.is_main_process:
            self.accelerator.wait_for_everyone()
        reasons = gather_object([why]) if self.accelerator.num_processes > 1 else [why]
        why = next(filter(None, reasons), "")
        if why:
            at.kept = "not"
            session.emit(Note(f"{phase.name}: no activations are kept: {why}"))
            return self._whole()

        def evaluate(candidate: nn.Module) -> Outputs:
            batches = (self._batch([scoring], keys, 0, self.dataset.choose.labels) for keys in self.choosing.keys)
            return collect(option.cut.suffix(candidate), batches, self.accelerator, mixed=True)

        def epoch(number: int, start: int) -> Iterator[Batch]:
            for keys in self.loader.keys(number, start):
                yield self._batch(kept, keys, first, self.dataset.fit.labels)

        return Source(option.cut.suffix(self.model), epoch, evaluate)

    def _whole(self) -> Source:
        def evaluate(candidate: nn.Module) -> Outputs:
            return collect(candidate, self.choosing, self.accelerator, mixed=True)

        return Source(self.model, self.loader.epoch, evaluate)

    def _batch(self, views: Sequence[Kept], keys: Sequence[Key], first: int, labels: Sequence[int]) -> Batch:
        places = [(views[(key.epoch - first + key.view) % len(views)], key.position) for key in keys]
        there = [(view, position) for view, position in places if view.present[position]]
        if not there:
            raise DataError("no image of a batch can be read", fix="repair or remove the unreadable images")
        images = there[0][0].layout.unpack(np.stack([view.rows[position] for view, position in there]))
        found = [position for _, position in there]
        return Batch(images, torch.tensor([labels[position] for position in found]), torch.tensor(found))

    def _folds(self, option: Option) -> bool:
        """Whether the prefix may be folded: tried on some of the training images."""
        if not option.cut.folds:
            return False
        suffix = option.cut.suffix(self.model)
        prefixes = option.cut.prefix(self.model, folded_parts(self.model, option.cut)), option.cut.prefix(self.model)
        said: list[list[torch.Tensor]] = [[], [], []]
        before = [(module, module.training) for module in self.model.modules()]
        suffix.eval()
        with torch.no_grad():
            for number, batch in enumerate(self.loader.every(0, CHUNK)):
                if number * CHUNK >= COMPARED:
                    break
                images = batch.images.to(self.accelerator.device)
                for prefix, logits in zip(prefixes, said, strict=False):
                    with self.accelerator.autocast():
                        logits.append(suffix(prefix(images)).float())
                said[2].append(suffix(prefixes[1](images)).float())
        for module, training in before:
            module.training = training
        return agrees(*said)


class _Work:
    """Finds or computes the activations of one phase."""

    def __init__(
        self,
        caching: Caching,
        option: Option,
        phase: PhasePlan,
        folded: bool,
        session: Session,
        check: Callable[[], None],
    ) -> None:
        assert phase.cache is not None
        self._caching, self._option, self._phase, self._folded = caching, option, phase, folded
        self._session, self._check = session, check
        self._views = phase.cache.views
        self._prefix: Prefix | None = None
        # Every process holds what is in memory; a mapped file they share.
        processes = caching.accelerator.num_processes
        self._in_memory = phase.cache.bytes * processes <= 1e9 * caching.recipe.cache_ram_gb
        self._facts = self._all_facts()
        self._paths: list[Path] = []

    def training(self, epoch: int, number: int) -> Kept:
        loader = self._caching.loader
        facts = (loader.look, epoch if loader.random else "every epoch")
        stage = f"computing activations before {self._option.cut.entry}"
        stage += f" (view {number + 1} of {self._views})" if self._views > 1 else ""
        view = f"training images of epoch {epoch + 1}" if loader.random else "training images"
        return self._kept("fit", facts, view, stage, partial(loader.every, epoch, CHUNK))

    def choosing(self) -> Kept:
        loader = self._caching.choosing
        stage = f"computing activations before {self._option.cut.entry} (choosing images)"
        return self._kept("choose", (loader.look,), "choosing images", stage, partial(loader.every, CHUNK))

    def _kept(
        self, role: str, facts: tuple[object, ...], view: str, stage: str, loader: Callable[[], EvaluationLoader]
    ) -> Kept:
        part = self._caching.dataset.fit if role == "fit" else self._caching.dataset.choose
        rows = hashlib.sha256("\0".join(part.id(place) for place in range(len(part))).encode("utf-8", "surrogatepass"))
        path = path_of(activations_folder(), *self._facts, role, rows.hexdigest(), *facts)
        self._paths.append(path)
        layout = self._option.layout
        found = open_kept(path, len(part), layout, in_memory=self._in_memory)
        if found is not None:
            return found
        recipe = self._caching.recipe
        backbone, dataset = self._caching.names
        return keep(
            self._computed(loader(), stage, len(part)),
            path,
            len(part),
            layout,
            in_memory=self._in_memory,
            limit=int(1e9 * recipe.cache_gb),
            others=self._paths,
            about={"backbone": backbone, "entry": self._option.cut.entry, "dataset": dataset, "view": view},
            note=lambda why: self._session.emit(Note(why)),
        )

    def _computed(
        self, loader: EvaluationLoader, stage: str, total: int
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        caching, option = self._caching, self._option
        if self._prefix is None:
            parts = folded_parts(caching.model, option.cut) if self._folded else {}
            self._prefix = option.cut.prefix(caching.model, parts)
        done = 0
        for batch in loader:
            self._session.emit(Progress(stage, done, total))
            images = batch.images.to(caching.accelerator.device, non_blocking=True)
            with caching.accelerator.autocast():
                activations = self._prefix(images)
            yield batch.indices.tolist(), activations
            done += len(batch)
            if caching.accelerator.num_processes == 1:  # several would have to stop at the same step
                self._check()
        loader.close()
        self._session.emit(Progress(stage, total, total))

    def _all_facts(self) -> tuple[object, ...]:
        """All that activations depend on, beside the images."""
        caching = self._caching
        frozen = self._phase.frozen
        tensors = {**dict(caching.model.named_parameters()), **dict(caching.model.named_buffers())}
        weights = hashlib.sha256()
        for group in caching.groups:
            for name in (*group.parameters, *group.buffers) if group.name in frozen else ():
                plain = tensors[name].detach().cpu().contiguous()
                weights.update(f"{name}{tuple(plain.shape)}{plain.dtype}".encode())
                weights.update(plain.flatten().view(torch.uint8).numpy().data)
        device = caching.accelerator.device.type
        return (
            *(zoo.__version__, torch.__version__, timm.__version__, caching.names[0]),
            *(type(caching.model).__name__, repr(caching.model), weights.hexdigest()),
            *(self._option.cut.entry, self._option.layout, self._folded, CHUNK),
            *(device, caching.accelerator.mixed_precision, torch.get_num_threads(), caching.dataset.fingerprint),
        )
