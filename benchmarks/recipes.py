"""The default recipes on real images: what docs/recipes.md publishes.

Nothing is chosen on the reported images: epochs are chosen on a cut from train, and so is scratch's rate.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pages
from benchmarks.jobs import WORK, run

SCRATCH_RATES = (1e-3, 3e-3, 1e-2)
BUDGETS = (10, 50)  # epochs in all, the probe's included


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=list(PARTS))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:

        def once(work: str, **choices: Any) -> dict[str, Any]:
            return run(
                WORK[work], choices, data=arguments.data, weights=arguments.weights, scratch=Path(folder) / "run"
            )

        rows = [row for part in arguments.part for row in PARTS[part](once, range(arguments.seeds))]
    return {"rows": rows}


def default(once: Any, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The default recipe as it stands."""
    return [
        _row(f"{name}: default recipe", [once(name, seed=seed) for seed in seeds])
        for name in ("hymenoptera", "flowers12", "cifar10-100")
    ]


def strategies(once: Any, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every strategy as it stands, on the quickest work."""
    names = ("probe", "partial", "finetune", "gradual", "lp-ft", "scratch")
    return [_row(f"cifar10-100: {name}", [once("cifar10-100", strategy=name, seed=s) for s in seeds]) for name in names]


def against_scratch(once: Any, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The default recipe against scratch at its own best rate, at equal epochs."""
    rows = []
    for epochs in BUDGETS:
        probe = max(1, epochs // 4)
        adapted = [once("cifar10-100", probe_epochs=probe, epochs=epochs - probe, seed=seed) for seed in seeds]
        rows.append(_row(f"cifar10-100: lp-ft, {probe} + {epochs - probe} epochs", adapted))
        trials = {
            rate: once("cifar10-100", strategy="scratch", lr=rate, epochs=epochs, seed=0) for rate in SCRATCH_RATES
        }
        best = max(trials, key=lambda rate: (trials[rate]["choosing_accuracy"], -trials[rate]["choosing_loss"]))
        runs = [
            trials[best] if seed == 0 else once("cifar10-100", strategy="scratch", lr=best, epochs=epochs, seed=seed)
            for seed in seeds
        ]
        tried = ", ".join(f"{rate:g}: {trial['choosing_accuracy']:.3f}" for rate, trial in trials.items())
        rows.append(_row(f"cifar10-100: scratch, {epochs} epochs, rate {best:g} (chosen among {tried})", runs))
    return rows


PARTS = {"default": default, "strategies": strategies, "against_scratch": against_scratch}


def _row(what: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "what": what,
        "accuracy": [run["accuracy"] for run in runs],
        "median": statistics.median(run["accuracy"] for run in runs),
        "n": runs[0]["n"],
        "split": runs[0]["split"],
        "selected_on": runs[0]["selected_on"],
        "train_seconds": statistics.median(run["seconds"]["train"] for run in runs),
        "total_seconds": statistics.median(run["seconds"]["total"] for run in runs),
        "runs": runs,
    }


def table(record: Mapping[str, Any]) -> str:
    """The rows as a Markdown table, the machine named."""
    rows = []
    for row in record["rows"]:
        seeds = ", ".join(f"{100 * value:.1f}" for value in row["accuracy"])
        rows.append((row["what"], f"{row['n']}, {row['split']}", seeds, f"{100 * row['median']:.1f}"))
    head = ("work", "n, split", "each seed", "median")
    about = "Accuracy in % on the images reported on, each seed."
    return f"{pages.machine_line(record['machine'])} {about}\n\n{pages.table(head, rows)}"
