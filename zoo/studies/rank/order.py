"""Order of backbones by their probes, with its uncertainty by a bootstrap over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.tasks.single_label import wilson

DRAWS = 2000
_BLOCK = 100  # draws in memory at once
_SEED = 20210218


@dataclass(frozen=True, slots=True)
class Place:
    """One backbone's place in the order."""

    best: float  # probability of being the best one, 0 to 1
    ranks: tuple[int, int]  # 95 % interval of its rank, from 1
    interval: tuple[float, float]  # 95 % interval of its accuracy (Wilson)


def places(right: Sequence[npt.NDArray[np.bool_]]) -> list[Place]:
    """Each backbone's rank by a bootstrap over the images (Efron 1979), and its accuracy.

    `right` has for each backbone (N,) whether its probe is right on each image, in the same order. A draw takes the
    same images for all backbones, so that images that are hard for all do not blur it. Probes are not refitted.
    """
    hits = np.stack(right).astype(np.float64)
    count = hits.shape[1]
    generator = np.random.default_rng(_SEED)
    blocks = []
    for start in range(0, DRAWS, _BLOCK):
        size = min(_BLOCK, DRAWS - start)
        # How often each image is drawn.
        draws = generator.multinomial(count, np.full(count, 1 / count), size=size)  # (draws, N)
        blocks.append(hits @ draws.T / count)
    scores = np.concatenate(blocks, axis=1)  # (backbones, draws)
    shared = scores >= scores.max(0)
    best = (shared / shared.sum(0)).mean(1)  # backbones that share the first place share the draw
    ranks = 1 + (scores[:, None, :] < scores[None, :, :]).sum(1)
    least, most = np.percentile(ranks, [2.5, 97.5], axis=1, method="nearest").astype(int)
    return [
        Place(float(share), (int(low), int(high)), wilson(int(hit.sum()), count))
        for share, low, high, hit in zip(best, least, most, hits, strict=True)
    ]
