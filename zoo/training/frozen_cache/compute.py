"""The activations of one phase: known by everything that they depend on, found on the disk or computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
import torchvision

from zoo.base.cache import features_folder
from zoo.data import EvaluationLoader
from zoo.data.types import RECORDED, hash_of_ids
from zoo.events import Listener, Note, Progress
from zoo.models.layer_groups import fingerprint
from zoo.training.frozen_cache.feature_file import Kept, Layout, is_kept, keep, open_kept, path_of
from zoo.training.frozen_cache.fold_norms import faithful, folded_parts
from zoo.training.frozen_cache.parts import Cut
from zoo.training.loaded import Loaded, Work
from zoo.version import __version__

TRIED = 16  # images on which folding is tried


def chunk_size(device: torch.device) -> int:
    """Images that go through the prefix at once: always as many, so that the same bits come out again.

    Measured on one AVX-512 core: mobilenetv2_100 at 224 pixels is quickest with 16 to 32, test_resnet at 64 pixels
    hardly quicker with more than 32. An accelerator wants more to do.
    """
    return 32 if device.type == "cpu" else 128


@dataclass(frozen=True, slots=True)
class Piece:
    """The activations of one view of every image of a part: one file."""

    path: Path
    count: int  # images
    view: str  # which view of which images, for people
    stage: str  # what computing them is called
    batches: Callable[[], EvaluationLoader]


class Keeper:
    """Finds or computes the activations of one phase.

    Args:
        loaded: What they are made of. The weights are looked at here and now.
        work: The batches.
        cut: Where the network is split.
        layout: What one image's activations look like.
        frozen: Names of the layer groups that do not train.
        epochs: Of the run, one for each view of the training images.
    """

    def __init__(
        self, loaded: Loaded, work: Work, cut: Cut, layout: Layout, frozen: frozenset[str], epochs: Sequence[int]
    ) -> None:
        self._loaded, self._work, self._cut, self._layout, self._epochs = loaded, work, cut, layout, epochs
        self._chunk = chunk_size(loaded.accelerator.device)
        self._ways = (True, False) if cut.folds else (False,)  # folded or not
        self._weights = self._hash_of_weights(frozen)
        dataset = loaded.dataset
        self._rows = {"train": hash_of_ids(dataset.train.ids), "val": hash_of_ids(dataset.val.ids)}

    def missing(self) -> int:
        """Images that would have to go through the prefix, as far as the names and lengths of files tell."""
        return min(sum(piece.count for piece in self.pieces(folded) if not self._there(piece)) for folded in self._ways)

    def folds(self) -> bool:
        """Whether norms are folded into convolutions: as in what is on the disk already, or else tried.

        It depends on nothing but what the names of files depend on: a run ends alike whether it finds some or not.
        """
        found = [folded for folded in self._ways if any(map(self._there, self.pieces(folded)))]
        return found[0] if found else bool(self._cut.folds) and self._folding_is_faithful()

    def pieces(self, folded: bool) -> list[Piece]:
        """A piece for each view of the training images, and last the one of the validation images."""
        dataset, loader, choosing = self._loaded.dataset, self._work.loader, self._work.val_loader
        stage = f"computing activations before {self._cut.entry}"
        found = []
        for number, epoch in enumerate(self._epochs, start=1):
            found.append(
                Piece(
                    self._path(folded, "train", loader.look, epoch if loader.random else "every epoch"),
                    len(dataset.train),
                    f"training images of epoch {epoch + 1}" if loader.random else "training images",
                    f"{stage} (view {number} of {len(self._epochs)})" if len(self._epochs) > 1 else stage,
                    partial(loader.every, epoch, self._chunk),
                )
            )
        path = self._path(folded, "val", choosing.look)
        count = len(dataset.val)
        last = Piece(
            path, count, "validation images", f"{stage} (validation images)", partial(choosing.every, self._chunk)
        )
        return [*found, last]

    def make(self, folded: bool, emit: Listener, check: Callable[[], None]) -> list[Kept]:
        """Open what is on the disk and compute the rest.

        Args:
            folded: How.
            emit: Told how far it is, and what did not go as planned.
            check: Called before each chunk of images; it raises when the run was told to stop.

        Returns:
            In the order of `pieces`.

        Raises:
            NoRoom: They can be kept neither in memory nor on the disk.
        """
        loaded, recipe = self._loaded, self._work.settled
        pieces = self.pieces(folded)
        size = sum(piece.count for piece in pieces) * self._layout.row_bytes
        # Every process holds what is in memory; a mapped file they share.
        in_memory = size * loaded.accelerator.num_processes <= 1e9 * recipe.cache_ram_gb
        made: list[Kept] = []
        prefix = None
        for piece in pieces:
            kept = open_kept(piece.path, piece.count, self._layout, in_memory=in_memory)
            if kept is None:
                prefix = prefix or self._prefix(folded)
                kept = keep(
                    self._computed(prefix, piece, emit, check),
                    piece.path,
                    piece.count,
                    self._layout,
                    in_memory=in_memory,
                    limit=int(1e9 * recipe.cache_gb),
                    others=[other.path for other in pieces],
                    about={
                        "backbone": loaded.spec.full_name,
                        "entry": self._cut.entry,
                        "dataset": loaded.dataset.name,
                        "view": piece.view,
                    },
                    note=lambda why: emit(Note(why)),
                )
            made.append(kept)
        return made

    def _there(self, piece: Piece) -> bool:
        return is_kept(piece.path, piece.count, self._layout)

    def _prefix(self, folded: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        model, accelerator = self._loaded.model, self._loaded.accelerator
        prefix = self._cut.prefix(model, folded_parts(model, self._cut) if folded else None)

        def run(images: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), accelerator.autocast():
                return prefix(images)

        return run

    def _computed(
        self, prefix: Callable[[torch.Tensor], torch.Tensor], piece: Piece, emit: Listener, check: Callable[[], None]
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        done, loader = 0, piece.batches()
        for batch in loader:
            emit(Progress(piece.stage, done, piece.count))
            check()
            yield batch.indices.tolist(), prefix(batch.images.to(self._loaded.accelerator.device, non_blocking=True))
            done += len(batch)
        loader.close()
        emit(Progress(piece.stage, piece.count, piece.count))

    def _folding_is_faithful(self) -> bool:
        accelerator = self._loaded.accelerator
        images = next(iter(self._work.val_loader.every(TRIED))).images.to(accelerator.device)
        exact = self._cut.prefix(self._loaded.model)(images)
        plain = exact if accelerator.mixed_precision == "no" else self._prefix(False)(images)
        return faithful(self._prefix(True)(images), plain, exact)

    def _path(self, folded: bool, role: str, look: object, *more: object) -> Path:
        """Where a piece is, or would be: its name is a hash of all that it depends on."""
        loaded, accelerator = self._loaded, self._loaded.accelerator
        return path_of(
            features_folder(),
            *(__version__, torch.__version__, timm.__version__, torchvision.__version__, loaded.code),
            *(loaded.spec.full_name, type(loaded.model).__name__),
            *(self._weights, self._cut.entry, self._layout, folded, self._chunk),
            *(accelerator.device.type, accelerator.mixed_precision, torch.get_num_threads()),
            *(loaded.dataset.fingerprint, RECORDED[role], self._rows[role], look, *more),
        )

    def _hash_of_weights(self, frozen: frozenset[str]) -> str:
        """A hash of the frozen part: its modules as they describe themselves, and its tensors."""
        model = self._loaded.model
        modules = "".join(f"{path}: {model.get_submodule(path)!r}\n" for path in self._cut.placeholders)
        return fingerprint(model, [group for group in self._loaded.groups if group.name in frozen], modules)
