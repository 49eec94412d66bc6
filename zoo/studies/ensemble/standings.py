"""Standings of members, ways of combining and a soup on the same images, and which differences are noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoo.studies.statistics import adjusted, crossed, difference_variance, mcnemar
from zoo.tasks.outputs import Outputs
from zoo.tasks.single_label import measure


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender."""

    name: str
    kind: str  # "member", "mean" (plain), "way", "soup"
    logs: torch.Tensor  # (N, classes) on the test images, log-probabilities up to a constant of each row


def contest(
    entries: Sequence[Entry], labels: torch.Tensor, classes: Sequence[str], *, against: Sequence[str], chosen: str
) -> dict[str, Any]:
    """The standings, by labels (N,); each other entry is compared with those in `against`.

    Returns `rows` (best first) with accuracy, its interval (Wilson), loss and calibration error; and `differences` with
    the exact McNemar test on each pair, p values adjusted for all of them together (Holm).
    """
    ids = [str(number) for number in range(len(labels))]
    rows, right = [], {}
    for entry in entries:
        result = measure(Outputs(entry.logs.float(), labels), classes, ids)
        right[entry.name] = (entry.logs.argmax(1) == labels).numpy()
        facts = {name: result[name] for name in ("accuracy", "interval", "loss", "ece", "n")}
        rows.append({"name": entry.name, "kind": entry.kind, "chosen": entry.name == chosen, **facts})
    rows.sort(key=lambda row: (-row["accuracy"], row["loss"]))
    differences = [
        _difference(row["name"], second, right)
        for number, second in enumerate(against)
        for row in rows
        if row["name"] not in against[: number + 1]
    ]
    return {"rows": rows, "differences": adjusted(differences)}


def _difference(first: str, second: str, right: Mapping[str, Any]) -> dict[str, Any]:
    one, other = right[first], right[second]
    mean = crossed((one.astype(np.float64) - other)[None], least=difference_variance(one, other))
    return {"first": first, "second": second, "difference": mean.value, "interval": list(mean.interval),
            "p": mcnemar(one, other)}  # fmt: skip
