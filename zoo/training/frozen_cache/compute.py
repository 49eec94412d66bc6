"""Cached features of one phase: file names by everything they depend on, and computing what is missing."""

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
from zoo.training.frozen_cache.feature_file import CachedFeatures, Layout, is_cached, open_cached, path_of, write_cached
from zoo.training.frozen_cache.fold_norms import faithful, folded_parts
from zoo.training.frozen_cache.parts import Cut
from zoo.training.loaded import Loaded, Work
from zoo.version import __version__

Check = Callable[[], object]  # called between chunks of images; raises if the run was told to stop
TRIED = 16  # images to try folding on


def chunk_size(device: torch.device) -> int:
    """Images per forward pass of the prefix; always the same, so that the same bits result.

    Measured on one AVX-512 core: mobilenetv2_100 at 224 pixels is quickest with 16 to 32, test_resnet at 64 pixels
    hardly quicker with more than 32. An accelerator needs larger batches.
    """
    return 32 if device.type == "cpu" else 128


@dataclass(frozen=True, slots=True)
class ViewFile:
    """The features of one view of every image of a part: one file."""

    path: Path
    count: int  # images
    view: str  # which view of which images, for users
    stage: str  # name of the computation
    batches: Callable[[], EvaluationLoader]


class FeatureCache:
    """Finds or computes the cached features of one phase.

    Args:
        loaded: The weights are hashed when this is made.
        work: The batches.
        cut: Where the network is split.
        layout: The layout of one image's features.
        frozen: Names of the layer groups that do not train.
        epochs: Of the run, one for each view of the training images.
    """

    def __init__(
        self, loaded: Loaded, work: Work, cut: Cut, layout: Layout, frozen: frozenset[str], epochs: Sequence[int]
    ) -> None:
        self._loaded, self._work, self._cut, self._layout, self._epochs = loaded, work, cut, layout, epochs
        self._chunk = chunk_size(loaded.accelerator.device)
        self._foldings = (True, False) if cut.folds else (False,)
        self._weights = self._hash_of_weights(frozen)
        dataset = loaded.dataset
        self._rows = {"train": hash_of_ids(dataset.train.ids), "val": hash_of_ids(dataset.val.ids)}

    def missing(self) -> int:
        """Images that have to go through the prefix, by the names and lengths of files."""
        return min(
            sum(file.count for file in self.files(folded) if not self._exists(file)) for folded in self._foldings
        )

    def folds(self) -> bool:
        """Whether norms are folded into convolutions: as in the files that exist, else if a trial shows no difference.

        It depends only on what file names depend on: a run ends the same whether it finds files or not.
        """
        found = [folded for folded in self._foldings if any(map(self._exists, self.files(folded)))]
        return found[0] if found else bool(self._cut.folds) and self._folding_is_faithful()

    def files(self, folded: bool) -> list[ViewFile]:
        """A file for each view of the training images, then the one of the validation images."""
        dataset, loader, val_loader = self._loaded.dataset, self._work.loader, self._work.val_loader
        stage = f"computing activations before {self._cut.entry}"
        files = []
        for number, epoch in enumerate(self._epochs, start=1):
            path = self._path(folded, "train", loader.look, epoch if loader.random else "every epoch")
            view = f"training images of epoch {epoch + 1}" if loader.random else "training images"
            label = f"{stage} (view {number} of {len(self._epochs)})" if len(self._epochs) > 1 else stage
            batches = partial(loader.every, epoch, self._chunk)
            files.append(ViewFile(path, len(dataset.train), view, label, batches))
        path, label = self._path(folded, "val", val_loader.look), f"{stage} (validation images)"
        val_batches = partial(val_loader.every, self._chunk)
        return [*files, ViewFile(path, len(dataset.val), "validation images", label, val_batches)]

    def load(self, folded: bool, emit: Listener, check: Check) -> list[CachedFeatures]:
        """Open the files that exist and compute the others; `check` is called between chunks. Raises NoSpace."""
        loaded, recipe = self._loaded, self._work.settled
        files = self.files(folded)
        size = sum(file.count for file in files) * self._layout.row_bytes
        # Rows in memory are in every process; a mapped file is shared.
        in_memory = size * loaded.accelerator.num_processes <= 1e9 * recipe.cache_ram_gb
        about = {"backbone": loaded.spec.full_name, "entry": self._cut.entry, "dataset": loaded.dataset.name}
        cached: list[CachedFeatures] = []
        prefix = None
        for file in files:
            features = open_cached(file.path, file.count, self._layout, in_memory=in_memory)
            if features is None:
                prefix = prefix or self._prefix(folded)
                features = write_cached(
                    self._computed(prefix, file, emit, check),
                    file.path,
                    file.count,
                    self._layout,
                    in_memory=in_memory,
                    limit=int(1e9 * recipe.cache_gb),
                    others=[other.path for other in files],
                    about={**about, "view": file.view},
                    note=lambda why: emit(Note(why)),
                )
            cached.append(features)
        return cached

    def _exists(self, file: ViewFile) -> bool:
        return is_cached(file.path, file.count, self._layout)

    def _prefix(self, folded: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        model, accelerator = self._loaded.model, self._loaded.accelerator
        prefix = self._cut.prefix(model, folded_parts(model, self._cut) if folded else None)

        def run(images: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), accelerator.autocast():
                return prefix(images)

        return run

    def _computed(
        self, prefix: Callable[[torch.Tensor], torch.Tensor], file: ViewFile, emit: Listener, check: Check
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        done, loader = 0, file.batches()
        for batch in loader:
            emit(Progress(file.stage, done, file.count))
            check()
            yield batch.indices.tolist(), prefix(batch.images.to(self._loaded.accelerator.device, non_blocking=True))
            done += len(batch)
        loader.close()
        emit(Progress(file.stage, file.count, file.count))

    def _folding_is_faithful(self) -> bool:
        accelerator = self._loaded.accelerator
        images = next(iter(self._work.val_loader.every(TRIED))).images.to(accelerator.device)
        exact = self._cut.prefix(self._loaded.model)(images)
        plain = exact if accelerator.mixed_precision == "no" else self._prefix(False)(images)
        return faithful(self._prefix(True)(images), plain, exact)

    def _path(self, folded: bool, role: str, look: object, *more: object) -> Path:
        """The file of a view: its name is a hash of everything that it depends on."""
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
        """A hash of the frozen part: its modules' descriptions and its tensors."""
        model = self._loaded.model
        modules = "".join(f"{path}: {model.get_submodule(path)!r}\n" for path in self._cut.placeholders)
        return fingerprint(model, [group for group in self._loaded.groups if group.name in frozen], modules)
