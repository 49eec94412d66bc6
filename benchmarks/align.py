"""Adapting to a domain without labels: every method beside source-only, chosen without the target's labels.

Each run is `zoo adapt … --target … --align METHOD`; the target accuracy is of the target's test images (all of them
where it has no splits). The chosen epoch and the oracle, the one that the target's labels would have chosen, are both
measured on the target images that epochs are compared on: what lies between them is what choosing costs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

import zoo
from benchmarks.deviation import deviation
from benchmarks.machine import describe_machine
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from benchmarks.results import Results, Row
from benchmarks.results import add_arguments as add_results
from zoo.data.unlabelled import VAL_LIMIT
from zoo.recipes import methods
from zoo.recipes.methods import TRIED
from zoo.recipes.recipe import Recipe

METHODS = (*methods.SOURCE_ONLY, *methods.ALIGNMENT)
# Source, target, and what is as in no other pair.
PAIRS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "MNIST to USPS": ("mnist_7k.zip", "usps.zip", {"image_size": 32, "augment": "none"}),
    "MNIST to MNIST-M": ("mnist_7k.zip", "mnist_m_7k.zip", {"image_size": 32, "augment": "none"}),
    "PACS photo to sketch": ("pacs_photo.zip", "pacs_sketch.zip", {"image_size": 64, "augment": "light"}),
}
# What methods can be chosen by without labels, and whether more of it is better or worse.
BETTER = {"information": 1, "entropy": -1, "density": 1, "source accuracy": 1, "DEV": -1}
SHARED = {"strategy": "finetune", "threads": 1, "precision": "fp32", "refit": "off"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--backbone", default="resnet_nano")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--limit", type=int, help="at most so many images of each domain; to try things out")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    kept = Results("align", describe_machine(), arguments, timed=False)
    asked = {"backbone": arguments.backbone, "epochs": arguments.epochs, "limit": arguments.limit}
    if not arguments.only_table:
        if arguments.data is None:
            raise SystemExit("--data must be named: the folder of the archives")
        for seed, pair, method in product(range(arguments.seeds), arguments.pairs, arguments.methods):
            key = {"pair": pair, "method": method, "seed": seed, **asked}
            kept.get(key, partial(_once, arguments, pair, method, seed))
    found = [row for row in kept.rows if asked.items() <= row["key"].items()]
    rows = [{"pair": pair, "method": method, "runs": in_order(found, pair=pair, method=method)}
            for pair, method in product(PAIRS, METHODS)]  # fmt: skip
    return {**asked, "machines": kept.machines, "rows": [row for row in rows if row["runs"]]}


def _once(arguments: argparse.Namespace, pair: str, method: str, seed: int) -> Row:
    source, target, choices = PAIRS[pair]
    recipe = Recipe.from_record(SHARED | choices | {
        "target": str(arguments.data / target), "align": method, "epochs": arguments.epochs, "limit": arguments.limit,
        "seed": seed,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = zoo.adapt(arguments.backbone, str(arguments.data / source), recipe, out=Path(folder) / "run")
        found = _found(run.record)
        found["validators"]["DEV"] = deviation(run, arguments.backbone, arguments.data / source, recipe)
    return found


def in_order(rows: Sequence[Row], **key: object) -> list[Row]:
    """The finished runs of which that is true, by seed."""
    return sorted((row for row in rows if key.items() <= row["key"].items()), key=lambda row: row["key"]["seed"])


def _found(record: Mapping[str, Any]) -> Row:
    target = record["target"]
    return {
        "source": record["result"]["accuracy"],
        "target": target["result"]["accuracy"],
        "chosen": (target.get("chosen") or {}).get("accuracy"),
        "oracle": (target.get("oracle") or {}).get("accuracy"),
        "validators": target["validators"] | {"source accuracy": record["best"]["accuracy"]},
        "steps": record["plan"]["steps"],
    }


def gains(runs: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """How far runs are from others, for each seed that both have."""
    others = {row["key"]["seed"]: row[name] for row in base}
    return [row[name] - others[row["key"]["seed"]] for row in runs if row["key"]["seed"] in others]


def bounds(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of a few runs and half of its 95 % interval (Student's t), in percent or points; None for one run."""
    scaled = 100 * np.asarray(values, dtype=float)
    if len(scaled) < 2:
        return float(scaled.mean()), None
    return float(scaled.mean()), float(t.ppf(0.975, len(scaled) - 1) * scaled.std(ddof=1) / np.sqrt(len(scaled)))


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of a few runs, in percent or points."""
    mean, half = bounds(values)
    return f"{mean:z.1f}" if half is None else f"{mean:z.1f} ± {half:.1f}"


def told(gained: Sequence[float]) -> str:
    """A difference with its interval, and whether it is one for the worse, or may be none."""
    if not gained:
        return "-"
    mean, half = bounds(gained)
    if half is None:  # one run says nothing of what others would
        return interval(gained)
    return interval(gained) + (" (hurts)" if mean < -half else " (within noise)" if abs(mean) <= half else "")


def table(record: dict[str, Any]) -> str:
    head = ["method", "target accuracy, %", "against source-only, points", "chosen epoch, %", "oracle epoch, %",
            "choosing costs, points", "source accuracy, %", "against source-only, points"]  # fmt: skip
    texts = []
    for pair in dict.fromkeys(row["pair"] for row in record["rows"]):
        rows = {row["method"]: row["runs"] for row in record["rows"] if row["pair"] == pair}
        base = rows.get("none")
        lines = [[f"`{method}`", *_cells(runs, base)] for method, runs in rows.items()]
        steps = next(iter(rows.values()))[0]["steps"]
        said = "\n\n".join(filter(None, [_dynamic(rows), _judged(rows)]))
        texts.append(f"**{pair}** ({steps:,} steps)\n\n{markdown(head, lines)}\n\n{said}")
    seeds = " to ".join(map(str, sorted({len(row["runs"]) for row in record["rows"]})))
    limit = f", at most {record['limit']:,} images of each domain" if record["limit"] else ""
    return (
        f"{machine_line(*record['machines'])} `{record['backbone']}` with its own weights, `finetune` at 32 pixels "
        f"(PACS: 64), {record['epochs']} epochs{limit}; means over "
        f"{seeds} seeds with 95 % intervals (Student's t), differences seed by seed. The epoch is chosen without the "
        "target's labels. Target accuracy is on the target's test images (all of them where it has no splits); the "
        "chosen and the oracle epoch are both measured on the target images that epochs are compared on, "
        f"{VAL_LIMIT:,} at most of those trained on, so that what lies between them is what choosing costs. AdaBN has "
        "neither: it changes the network when epochs have been compared.\n\n" + "\n\n".join(texts)
    )


def _cells(runs: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]] | None) -> Iterable[str]:
    yield interval([run["target"] for run in runs])
    if base is None or base is runs:
        yield "-"
    else:
        yield told(gains(runs, base, "target"))
    both = [(run["chosen"], run["oracle"]) for run in runs if None not in (run["chosen"], run["oracle"])]
    if both and runs[0]["key"].get("method") != "adabn":
        yield from (interval([pair[place] for pair in both]) for place in (0, 1))
        yield interval([oracle - chosen for chosen, oracle in both])
    else:
        yield from ("-", "-", "-")
    yield interval([run["source"] for run in runs])
    yield "-" if base is None or base is runs else told(gains(runs, base, "source"))


def _dynamic(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """DAAN beside DANN, which it extends, seed by seed."""
    gained = gains(rows.get("daan", ()), rows.get("dann", ()), "target")
    return f"`daan` against `dann`, seed by seed: {told(gained)} points." if gained else ""


def _judged(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which method each validator would have taken, of all and of those that `auto` tries, and what that is worth."""
    best = max(rows, key=lambda method: np.mean([run["target"] for run in rows[method]]))
    taken = {whose: _taken({method: rows[method] for method in of if method in rows})
             for whose, of in (("of all", rows), ("of those that `auto` tries", TRIED))}  # fmt: skip
    said = "; ".join(f"{whose}, {what}" for whose, what in taken.items() if what)
    return said and f"The method that validators would take, without labels: {said}. The best is `{best}`."


def _taken(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    by_seed = {method: {row["key"]["seed"]: row for row in runs} for method, runs in rows.items()}
    seeds = sorted(set.intersection(*map(set, by_seed.values()))) if by_seed else []
    if not seeds:
        return ""
    said = []
    for name, sign in BETTER.items():
        taken = [max(rows, key=lambda method: sign * by_seed[method][seed]["validators"][name]) for seed in seeds]
        accuracies = [by_seed[method][seed]["target"] for method, seed in zip(taken, seeds, strict=True)]
        said.append(f"{name} {', '.join(f'`{method}`' for method in dict.fromkeys(taken))} ({interval(accuracies)} %)")
    return ", ".join(said)
