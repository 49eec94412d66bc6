"""How well each member, each way of combining and a soup do on the same images, and which differences are noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoo.studies.statistics import LEVEL, crossed, difference_variance, holm, mcnemar
from zoo.tasks.outputs import Outputs
from zoo.tasks.single_label import measure


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender."""

    name: str
    kind: str  # "member", "mean" (plain), "way", "soup"
    logs: torch.Tensor  # (N, classes) on the images that report, logarithms up to a constant of each row


def contest(
    entries: Sequence[Entry], labels: torch.Tensor, classes: Sequence[str], *, against: Sequence[str], chosen: str
) -> dict[str, Any]:
    """The table.

    Args:
        entries: All that take part.
        labels: (N,).
        classes: Their names.
        against: The entries that each other one is compared with: the best single member, the plain mean.
        chosen: The entry that the stack is.

    Returns:
        `rows` (best first) with accuracy, its interval (Wilson), loss and calibration error; `differences` with the
        exact McNemar test on each pair, p values adjusted for all of them together (Holm).
    """
    ids = [str(number) for number in range(len(labels))]
    rows, right = [], {}
    for entry in entries:
        found = measure(Outputs(entry.logs.float(), labels), classes, ids)
        right[entry.name] = (entry.logs.argmax(1) == labels).numpy()
        facts = {name: found[name] for name in ("accuracy", "interval", "loss", "ece", "n")}
        rows.append({"name": entry.name, "kind": entry.kind, "chosen": entry.name == chosen, **facts})
    rows.sort(key=lambda row: (-row["accuracy"], row["loss"]))
    differences = []
    for second in against:
        for row in rows:
            first = row["name"]
            if first == second or (first in against and against.index(first) < against.index(second)):
                continue
            differences.append(_difference(first, second, right))
    for pair, adjusted in zip(differences, holm([pair["p"] for pair in differences]), strict=True):
        pair["p_adjusted"] = adjusted
        pair["within_noise"] = adjusted >= LEVEL
    return {"rows": rows, "differences": differences}


def _difference(first: str, second: str, right: Mapping[str, Any]) -> dict[str, Any]:
    one, other = right[first], right[second]
    mean = crossed((one.astype(np.float64) - other)[None], least=difference_variance(one, other))
    return {"first": first, "second": second, "difference": mean.value, "interval": list(mean.interval),
            "p": mcnemar(one, other)}  # fmt: skip
