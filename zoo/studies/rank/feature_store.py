"""Cached features of images by a frozen backbone, computed in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import timm
import torch
import torchvision

from zoo import data
from zoo.base.cache import features_folder
from zoo.data import Part
from zoo.data.types import RECORDED, hash_of_ids
from zoo.events import Listener, Note, Progress
from zoo.models.features import extract, flat
from zoo.models.layer_groups import fingerprint
from zoo.training.frozen_cache.feature_file import Layout, NoSpace, open_cached, path_of, write_cached
from zoo.training.loaded import Loaded
from zoo.training.probe import Floats, Labels
from zoo.version import __version__

_CHUNK = 32  # images per batch; always the same, so that the features are bit-equal
_ENTRY = "the classifier"


def frozen_features(loaded: Loaded, parts: Sequence[Part], workers: int, emit: Listener) -> tuple[Floats, Labels]:
    """The classifier's inputs (N, D) by the untrained backbone, and labels (N,), unreadable images left out."""
    found = [_of_part(loaded, part, workers, emit) for part in parts]
    return np.concatenate([features for features, _ in found]), np.concatenate([labels for _, labels in found])


def _of_part(loaded: Loaded, part: Part, workers: int, emit: Listener) -> tuple[Floats, Labels]:
    dataset = loaded.dataset
    loader = data.eval_batches(part, config=loaded.config, batch_size=_CHUNK, workers=workers)
    model = loaded.model.eval()
    device, stage = loaded.accelerator.device, f"features of {loaded.spec.full_name} ({part.role} images)"

    @torch.no_grad()
    def computed() -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        done = 0
        for batch in loader:
            emit(Progress(stage, done, len(part)))
            images = batch.images.to(device, memory_format=torch.channels_last, non_blocking=True)
            with loaded.accelerator.autocast():
                features = extract(model, images)
            yield batch.indices.tolist(), features
            done += len(batch)
        loader.close()
        emit(Progress(stage, len(part), len(part)))

    with torch.no_grad(), loaded.accelerator.autocast():
        blank = torch.zeros(1, *loaded.config.input_size, device=device).to(memory_format=torch.channels_last)
        layout = Layout.of(extract(model, blank))
    facts = (*_facts(loaded, layout), dataset.fingerprint, RECORDED[part.role], hash_of_ids(part.ids), loader.look)
    path = path_of(features_folder(), "features", *facts)
    kept = open_cached(path, len(part), layout, in_memory=True)
    if kept is None:
        about = {"backbone": loaded.spec.full_name, "entry": _ENTRY, "dataset": dataset.name,
                 "view": f"{part.role} images"}  # fmt: skip
        try:
            kept = write_cached(
                computed(), path, len(part), layout, in_memory=True, limit=int(1e9 * loaded.recipe.cache_gb),
                others=[], about=about, note=lambda why: emit(Note(why)),
            )  # fmt: skip
        except NoSpace as error:  # pragma: no cover - rows in memory always have room
            raise AssertionError(str(error)) from error
    labels = np.asarray(part.labels)[kept.present]
    return flat(layout.unpack(kept.rows[kept.present])).numpy(), labels


def _facts(loaded: Loaded, layout: Layout) -> tuple[object, ...]:
    """Everything that the features depend on, except the images."""
    weights = fingerprint(loaded.model, loaded.groups[:-1])  # without the head, which is random
    return (
        *(__version__, torch.__version__, timm.__version__, torchvision.__version__, loaded.code),
        *(loaded.spec.full_name, weights, layout),
        *(loaded.accelerator.device.type, loaded.accelerator.mixed_precision, torch.get_num_threads(), _CHUNK),
    )
