"""The order of backbones by their probes, and how sure it is: the images are drawn again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.tasks.single_label import wilson

DRAWS = 2000
_BLOCK = 100  # draws that are in memory at once
_SEED = 20210218


@dataclass(frozen=True, slots=True)
class Place:
    """Where one backbone stands."""

    best: float  # probability of being the best one, 0 to 1
    ranks: tuple[int, int]  # 95 % interval of its rank, from 1
    interval: tuple[float, float]  # 95 % interval of its accuracy (Wilson)


def places(right: Sequence[npt.NDArray[np.bool_]]) -> list[Place]:
    """Where each backbone stands: its rank by a bootstrap over the images (Efron 1979), its accuracy by counting.

    All backbones are judged on the same images, and a draw takes the same ones for all: what makes an image hard for
    every backbone does not blur the order. What the probes would have been on other images is not in it.

    Args:
        right: For each backbone, (N,): whether its probe named each image rightly, the images in the same order.
    """
    hits = np.stack(right).astype(np.float64)
    count = hits.shape[1]
    generator = np.random.default_rng(_SEED)
    blocks = []
    for start in range(0, DRAWS, _BLOCK):
        size = min(_BLOCK, DRAWS - start)
        draws = generator.multinomial(count, np.full(count, 1 / count), size=size)  # how often each image is drawn
        blocks.append(hits @ draws.T / count)
    scores = np.concatenate(blocks, axis=1)  # (backbones, draws)
    top = scores.max(0)
    shared = scores >= top
    best = (shared / shared.sum(0)).mean(1)  # those that share the first place share what it counts
    ranks = 1 + (scores[:, None, :] < scores[None, :, :]).sum(1)
    least, most = np.percentile(ranks, [2.5, 97.5], axis=1, method="nearest").astype(int)
    return [
        Place(float(best[number]), (int(least[number]), int(most[number])), wilson(int(hits[number].sum()), count))
        for number in range(len(hits))
    ]
