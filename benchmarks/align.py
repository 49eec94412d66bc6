"""Adapting to a domain without labels: every method beside source-only, chosen without the target's labels.

Each run is `zoo adapt … --target … --align METHOD`; the accuracies are of the target's test images (all of them where
it has no splits). The oracle is the epoch that the target's labels would have chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

import zoo
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from zoo import methods
from zoo.recipe import Recipe

METHODS = (*methods.SOURCE_ONLY, *methods.ALIGNMENT)
# Source, target, and what is as in no other pair.
PAIRS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "MNIST to USPS": ("mnist_7k.zip", "usps.zip", {"image_size": 32, "augment": "none"}),
    "MNIST to MNIST-M": ("mnist_7k.zip", "mnist_m_7k.zip", {"image_size": 32, "augment": "none"}),
    "PACS photo to sketch": ("pacs_photo.zip", "pacs_sketch.zip", {"image_size": 64, "augment": "light"}),
}
SHARED = {"strategy": "finetune", "threads": 1, "precision": "fp32", "refit": "off"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--backbone", default="resnet_nano")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="at most so many source images; to try things out")
    parser.add_argument("--runs", type=Path, default=Path("runs/align"), help="finished runs here are not run again")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.data is None:
        raise SystemExit("--data must be named: the folder of the archives")
    rows = []
    for pair in arguments.pairs:
        source, target, choices = PAIRS[pair]
        for method in arguments.methods:
            runs = []
            for seed in range(arguments.seeds):
                recipe = Recipe(
                    **SHARED, **choices, target=str(arguments.data / target), align=method, epochs=arguments.epochs,
                    limit=arguments.limit, seed=seed,
                )  # fmt: skip
                place = arguments.runs / f"{source}-{target}-{method}-{seed}".replace(".zip", "")
                runs.append(_found(run_once(arguments.backbone, arguments.data / source, recipe, place)))
                sys.stderr.write(f"{pair}, {method}, seed {seed}: {runs[-1]}\n")
            rows.append({"pair": pair, "method": method, "runs": runs})
    return {"backbone": arguments.backbone, "epochs": arguments.epochs, "limit": arguments.limit, "rows": rows}


def run_once(backbone: str, dataset: Path, recipe: Recipe, place: Path) -> dict[str, Any]:
    """The record of a run, which is made unless a finished one of the same recipe is there."""
    if (place / "run.json").is_file():
        record: dict[str, Any] = json.loads((place / "run.json").read_text(encoding="utf-8"))
        absolute = Recipe.from_record(recipe.record() | {
            name: str(Path(named).resolve()) for name in ("target", "unlabelled") if (named := getattr(recipe, name))
        })  # fmt: skip
        if record["status"] == "finished" and record["recipe"] == absolute.record():
            return record
        raise SystemExit(f"{place} holds another run; remove it, or name another folder with --runs")
    return zoo.adapt(backbone, str(dataset), recipe, out=place).record


def _found(record: Mapping[str, Any]) -> dict[str, Any]:
    target = record["target"]
    return {
        "source": record["result"]["accuracy"],
        "target": target["result"]["accuracy"],
        "chosen": (target.get("chosen") or {}).get("accuracy"),
        "oracle": (target.get("oracle") or {}).get("accuracy"),
        "validators": target["validators"],
        "steps": record["plan"]["steps"],
    }


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of a few runs (Student's t), in percent or points."""
    scaled = 100 * np.asarray(values, dtype=float)
    if len(scaled) < 2:
        return f"{scaled.mean():.1f}"
    half = t.ppf(0.975, len(scaled) - 1) * scaled.std(ddof=1) / np.sqrt(len(scaled))
    return f"{scaled.mean():.1f} ± {half:.1f}"


def table(record: dict[str, Any]) -> str:
    head = ["method", "target accuracy, %", "against source-only, points", "oracle epoch, %", "source accuracy, %"]
    texts = []
    for pair in dict.fromkeys(row["pair"] for row in record["rows"]):
        rows = {row["method"]: row["runs"] for row in record["rows"] if row["pair"] == pair}
        base = rows.get("none")
        lines = [[f"`{method}`", *_cells(runs, base)] for method, runs in rows.items()]
        steps = next(iter(rows.values()))[0]["steps"]
        texts.append(f"**{pair}** ({steps:,} steps)\n\n{markdown(head, lines)}\n\n{_judged(rows)}")
    seeds = len(record["rows"][0]["runs"])
    limit = f", at most {record['limit']:,} source images" if record["limit"] else ""
    return (
        f"{machine_line(record['machine'])} `{record['backbone']}`, {record['epochs']} epochs{limit}; means over "
        f"{seeds} seeds with 95 % intervals (Student's t), differences seed by seed. The epoch is chosen without the "
        "target's labels.\n\n" + "\n\n".join(texts)
    )


def _cells(runs: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]] | None) -> Iterable[str]:
    yield interval([run["target"] for run in runs])
    if base is None or base is runs:
        yield "-"
    else:
        gains = [run["target"] - other["target"] for run, other in zip(runs, base, strict=True)]
        yield interval(gains) + (" (hurts)" if np.mean(gains) < 0 else "")
    oracles = [run["oracle"] for run in runs if run["oracle"] is not None]
    yield interval(oracles) if oracles else "-"
    yield interval([run["source"] for run in runs])


def _judged(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which method each validator would have taken, and what that is worth."""
    seeds = range(len(next(iter(rows.values()))))
    said = []
    for name, sign in (("information", 1), ("entropy", -1), ("density", 1)):
        taken = [max(rows, key=lambda method: sign * rows[method][seed]["validators"][name]) for seed in seeds]
        accuracies = [rows[method][seed]["target"] for method, seed in zip(taken, seeds, strict=True)]
        said.append(f"{name}: {', '.join(f'`{method}`' for method in dict.fromkeys(taken))} ({interval(accuracies)} %)")
    best = max(rows, key=lambda method: np.mean([run["target"] for run in rows[method]]))
    return f"The method that validators would take, without labels: {'; '.join(said)}. The best is `{best}`."
