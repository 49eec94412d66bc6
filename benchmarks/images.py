"""Images: preparing a data set the first and the second time, and processor time of a training view, ours and timm's.

Preparing happens in an empty cache: the first time decodes everything, the second has another recipe (it sets more
images aside for choosing). Views are made from decoded images, by zoo in batches and by timm's own transform one by
one, and timed by the processor's clock, so that a busy machine hardly changes the figures.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform

from zoo import data
from zoo.data.batches.draws import RATIO
from zoo.data.batches.views import _PRESETS, Augment
from zoo.models.preprocessing import DataConfig
from zoo.training.memory import keep_freed_memory

BATCH = 32
TURNS = 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="anything that `zoo adapt --dataset` takes")
    parser.add_argument("--size", type=int, default=224, help="side of the input, pixels (default: 224)")
    parser.add_argument("--limit", type=int, default=1000, help="training images at most (default: 1000)")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    keep_freed_memory()
    config = DataConfig((3, arguments.size, arguments.size), MEAN, STD, "bicubic", 0.875)
    options = {"image_size": data.store_side(config), "limit": arguments.limit}
    with tempfile.TemporaryDirectory() as cache:
        before, os.environ["ZOO_CACHE"] = os.environ.get("ZOO_CACHE"), cache
        try:
            first, opened = _prepared(arguments.data, data.DataOptions(**options))
            second, _ = _prepared(arguments.data, data.DataOptions(**options, val_fraction=0.3))
            torch.set_num_threads(1)
            views = {preset: _views(opened.train, config, preset) for preset in ("light", "standard", "strong")}
        finally:
            del os.environ["ZOO_CACHE"]
            if before is not None:
                os.environ["ZOO_CACHE"] = before
    return {
        "images": {"training": len(opened.train) + len(opened.val), "all": sum(map(len, _parts(opened)))},
        "preparation_seconds": {
            "first": round(first, 3),
            "second": round(second, 3),
            "ratio": round(second / first, 4),
        },
        "milliseconds_per_view": views,
    }


def _prepared(reference: str, options: data.DataOptions) -> tuple[float, data.Dataset]:
    started = time.perf_counter()
    opened = data.open_dataset(reference, options)
    return time.perf_counter() - started, opened


def _parts(opened: data.Dataset) -> tuple[data.Part, ...]:
    return opened.train, opened.val, opened.test


def _views(part: data.Part, config: DataConfig, preset: Augment) -> dict[str, float]:
    loader = data.train_loader(part, config=config, augment=preset, batch_size=BATCH, seed=0)
    ours = min(_seconds(sum, (len(batch) for batch in loader.epoch(turn))) for turn in range(TURNS))
    ours /= loader.steps_per_pass * min(BATCH, len(part))
    transform = create_transform(
        config.input_size, is_training=True, ratio=RATIO, interpolation=config.interpolation, mean=config.mean,
        std=config.std, re_prob=0.0, **_PRESETS[preset],
    )  # fmt: skip
    side = data.store_side(config)
    assert side is not None
    stored = [part.stored(index, side, config.interpolation) for index in range(min(len(part), 128))]
    images = [Image.fromarray(pixels) for pixels in stored if pixels is not None]
    theirs = min(_seconds(_stacked, transform, images) for _ in range(TURNS)) / len(images)
    return {"zoo": round(1000 * ours, 3), "timm": round(1000 * theirs, 3), "ratio": round(ours / theirs, 3)}


def _stacked(transform: Any, images: list[Image.Image]) -> None:
    for start in range(0, len(images), BATCH):
        batch = torch.stack([transform(image) for image in images[start : start + BATCH]])
        batch.contiguous(memory_format=torch.channels_last)


def _seconds(work: Any, *arguments: Any) -> float:
    started = time.process_time()
    work(*arguments)
    return time.process_time() - started
