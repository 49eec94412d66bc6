"""Summary of a comparison: a row for each member, and which differences are more than noise."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.studies import statistics as stats
from zoo.studies.compare import origin
from zoo.studies.statistics import Mean, crossed
from zoo.tasks.single_label import wilson

COSTS = ("train_seconds", "flops", "params", "memory_bytes")  # that accuracy is weighed against
_OVER = 1.25  # times the budget, from which a note says that training took longer

Row = dict[str, Any]
Record = Mapping[str, Any]


def summarise(record: Record) -> dict[str, Any]:
    """`rows` (best first), `differences` (all pairs of members that share a seed), `failed` and `notes` of a record."""
    trained = record["dataset"]["counts"]["fit"]
    done = [member for member in record["members"] if _done(member)]
    rows = [_row(member, trained) for member in done]
    for cost in COSTS:
        priced = [row for row in rows if row[cost] is not None]
        fronts = stats.pareto([(float(row[cost]), float(row["accuracy"])) for row in priced])
        for row, front in zip(priced, fronts, strict=True):
            row["pareto"] += [cost] if front else []
    rows.sort(key=lambda row: (-row["accuracy"], row["train_seconds"]))
    order = [row["member"] for row in rows]
    done.sort(key=lambda member: order.index(member["name"]))
    return {
        "rows": rows,
        "differences": _differences(done, trained),
        "failed": [_fault(member) for member in record["members"] if _error(member)],
        "notes": _notes(record, rows),
    }


def _row(member: Record, trained: int) -> Row:
    runs = _done(member)
    first = next(iter(runs.values()))
    plan = member["plan"] or {}
    start = plan.get("weights")
    accuracy = _accuracy(runs, trained)
    memory = [run["memory_bytes"] for run in runs.values() if run["memory_bytes"] is not None]
    low, high = accuracy.interval
    return {
        "member": member["name"],
        "backbone": member["backbone"],
        "weights": member["weights"],
        "starts_from": origin.words(start, member["weights"]),
        **{f"weights_{name}": start[name] if start else None for name in ("name", "source", "license", "origin")},
        "strategy": member["strategy"],
        "accuracy": accuracy.value,
        "interval": [max(0.0, low), min(1.0, high)],
        "covers": accuracy.covers,
        "accuracies": {seed: run["accuracy"] for seed, run in runs.items()},
        **{name: first[name] for name in ("n", "split", "selected_on")},
        **{name: plan.get(name) for name in ("params", "flops", "input", "epochs", "steps")},
        "planned_seconds": plan.get("seconds"),
        "train_seconds": statistics.median(run["seconds"]["train"] for run in runs.values()),
        "total_seconds": statistics.median(run["seconds"]["total"] for run in runs.values()),
        "memory_bytes": max(memory) if memory else None,
        "images_per_second": statistics.median(run["images_per_second"] for run in runs.values()),
        "pareto": [],
    }


def _accuracy(runs: Mapping[str, Record], trained: int) -> Mean:
    rights = [_right(run) for run in runs.values()]
    least = statistics.fmean(stats.share_variance(right) for right in rights)
    if len(rights) == 1:
        known = crossed(np.stack(rights).astype(np.float64), least=least)
        return replace(known, value=float(rights[0].mean()), interval=wilson(int(rights[0].sum()), len(rights[0])))
    if len({run["ids"] for run in runs.values()}) == 1:
        return crossed(np.stack(rights).astype(np.float64), least=least)
    return stats.nested([float(right.mean()) for right in rights], tested=len(rights[0]), trained=trained, least=least)


def _differences(members: Sequence[Record], trained: int) -> list[dict[str, Any]]:
    """Every pair, the one with the higher accuracy first; p values are adjusted for all pairs together."""
    pairs = [_difference(one, other, trained) for one, other in itertools.combinations(members, 2)]
    return stats.adjusted([pair for pair in pairs if pair is not None])


def _difference(one: Record, other: Record, trained: int) -> dict[str, Any] | None:
    ours, theirs = _done(one), _done(other)
    # Pairs are of the same seed on the same images: the cut of a data set may follow the seed.
    same = ("ids", "fingerprint")
    seeds = [seed for seed in ours if seed in theirs and all(ours[seed][k] == theirs[seed][k] for k in same)]
    if not seeds:
        return None
    pairs = [(_right(ours[seed]), _right(theirs[seed])) for seed in seeds]
    gains = [first.astype(np.float64) - second for first, second in pairs]
    least = statistics.fmean(stats.difference_variance(first, second) for first, second in pairs)
    if len(seeds) == 1:
        mean, p, test = crossed(np.stack(gains), least=least), stats.mcnemar(*pairs[0]), "exact McNemar test, one seed"
    elif len({ours[seed]["ids"] for seed in seeds}) == 1:
        mean = crossed(np.stack(gains), least=least)
        p, test = mean.p, f"paired t test over images and {len(seeds)} seeds, both random"
    else:
        means = [float(gain.mean()) for gain in gains]
        mean = stats.nested(means, tested=len(gains[0]), trained=trained, least=least)
        p, test = mean.p, f"corrected resampled t test over {len(seeds)} seeds, each with a cut of its own"
    return {"first": one["name"], "second": other["name"], "difference": mean.value, "interval": list(mean.interval),
            "p": p, "test": test, "seeds": seeds}  # fmt: skip


def _notes(record: Record, rows: Sequence[Row]) -> list[str]:
    """Caveats that belong to the table."""
    notes = []
    if rows and max(len(row["accuracies"]) for row in rows) == 1:
        notes.append("one seed: the intervals say which images were measured, and nothing about chance in training")
    seeds = {len(row["accuracies"]) for row in rows}
    if len(seeds) > 1:
        notes.append("not every member has all seeds; differences are over the seeds that both have")
    # Training from scratch is a strategy to compare; the other members should start from similar weights.
    starts = {row["weights_origin"] or row["starts_from"]: row["starts_from"]
              for row in rows if row["strategy"] != "scratch"}  # fmt: skip
    if len(starts) > 1:
        notes.append(
            "the weights come from different pretraining, or nothing records that it is the same: "
            f"{'; '.join(starts.values())}. Pretraining is part of every difference between members that do not "
            "share it"
        )
    if len({tuple(row["input"] or ()) for row in rows}) > 1:
        notes.append("the backbones take images of different sizes, which is part of accuracy and of every cost")
    seconds = record.get("budget_seconds")
    over = [row["member"] for row in rows if seconds and row["train_seconds"] > _OVER * seconds]
    if over:
        notes.append(f"training took longer than the budget, which the estimate did not foresee: {', '.join(over)}")
    return notes


def _done(member: Record) -> dict[str, Any]:
    """The runs that succeeded, by seed."""
    return {seed: run for seed, run in member["runs"].items() if run.get("accuracy") is not None}


def _error(member: Record) -> Record | None:
    errors = [run["error"] for run in member["runs"].values() if run.get("error")]
    return member["error"] or (errors[0] if errors else None)


def _fault(member: Record) -> dict[str, Any]:
    seed = next((seed for seed, run in member["runs"].items() if run.get("error")), None)
    return {"member": member["name"], "seed": seed, **dict(_error(member) or {})}


def _right(run: Record) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = np.frombuffer(run["right"].encode("ascii"), dtype=np.uint8) == ord("1")
    return flags
