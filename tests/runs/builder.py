"""A process that computes the activations of a phase: `python -m tests.runs.builder IMAGES`.

It says `ready` before the first chunk of images and waits for a line on stdin, before each one. At the end it prints a
hash of all rows, and whether any had to be computed.
"""

from __future__ import annotations

import hashlib
import sys

from tests.runs.photos import CHOICES
from zoo.events import ignore
from zoo.recipes.recipe import Recipe
from zoo.runs.prepare import prepare
from zoo.training.frozen_cache import compute
from zoo.training.frozen_cache.compute import FeatureCache

SMALL = 8  # images a chunk, so that there are several


def main() -> None:
    compute.chunk_size = lambda device: SMALL  # type: ignore[assignment]
    recipe = Recipe(**{**CHOICES, "cache": "on", "cache_ram_gb": 0})
    ready = prepare("resnet_nano", sys.argv[1], recipe, ignore, cost=(0.0, 0, 0.0))
    (option,) = ready.caches.values()
    keeper = FeatureCache(ready.loaded, ready.work, option.cut, option.layout, ready.plan.phases[0].frozen, range(1))
    computed = 0

    def wait() -> None:
        nonlocal computed
        computed += 1
        print("ready", flush=True)
        sys.stdin.readline()

    kept = keeper.load(keeper.folds(), ignore, wait)
    digest = hashlib.sha256(b"".join(piece.rows.tobytes() for piece in kept))
    print(digest.hexdigest(), "computed" if computed else "found", flush=True)


if __name__ == "__main__":
    main()
