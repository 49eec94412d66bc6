"""The order of `zoo rank`, made before any training, against what `zoo compare` measured afterwards.

For each comparison: the same backbones, weights, data and recipe are ranked, and every score's order is compared with
that of the accuracies by the weighted Kendall tau (Vigna 2015), in which the first places count most. It is 1 where
both say the same, 0 on average where one knows nothing of the other; over few backbones it says little.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy.stats import weightedtau

import zoo
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from zoo.studies.compare.comparison_folder import Comparison

FEW = 8  # backbones under which an order says little
SCORES = ("accuracy", "log_me", "h_score", "knn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("comparison", nargs="+", type=Path, help="folders of finished comparisons")
    parser.add_argument("--images", type=int, default=2000, help="that each backbone looks at")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for folder in arguments.comparison:
        record = Comparison(folder).record
        summary = record["summary"]
        for strategy in record["strategies"]:
            measured = {(row["backbone"], row["weights"]): row["accuracy"] for row in summary["rows"]
                        if row["strategy"] == strategy and strategy != "scratch"}  # fmt: skip
            if len(measured) < 2:
                sys.stderr.write(f"{folder}, {strategy}: fewer than two backbones to order\n")
                continue
            names = [backbone if weights == "default" else f"{backbone}={weights}" for backbone, weights in measured]
            recipe = zoo.Recipe.from_record({**record["recipe"], "strategy": strategy})
            ranking = zoo.rank(record["dataset"]["ref"], names, recipe, images=arguments.images).record()
            rows.append({"dataset": record["dataset"]["name"], "strategy": strategy,
                         **agreement(measured, ranking["ranking"]), "ranking": ranking})  # fmt: skip
    return {"rows": rows}


def agreement(measured: Mapping[tuple[str, str], float], ranking: list[dict[str, Any]]) -> dict[str, Any]:
    """How well each score orders the backbones that were measured."""
    truth = [measured[row["backbone"], row["weights"]] for row in ranking]
    best = max(truth)
    return {
        "backbones": len(truth),
        "tau": {score: float(weightedtau(truth, [row[score] for row in ranking]).statistic) for score in SCORES},
        "lost": best - truth[0],  # accuracy, by taking the one that ranks first
        "predicted": [[row["backbone"], row["accuracy"], reached] for row, reached in zip(ranking, truth, strict=True)],
        "seconds": ranking and sum(row["seconds"] for row in ranking),
    }


def table(record: Mapping[str, Any]) -> str:
    """A row for each data set and strategy."""
    head = ["data, strategy", "backbones", "linear probe", "LogME", "H-score", "kNN",
            "lost by taking the first, points", "ranking, s"]  # fmt: skip
    lines = []
    for row in record["rows"]:
        few = " (too few for an order to mean much)" if row["backbones"] < FEW else ""
        lines.append([f"{row['dataset']}, {row['strategy']}", f"{row['backbones']}{few}",
                      *(f"{row['tau'][score]:.2f}" for score in SCORES), f"{100 * row['lost']:.1f}",
                      f"{row['seconds']:.0f}"])  # fmt: skip
    about = "Weighted Kendall tau of each score's order with that of the accuracies."
    return f"{machine_line(record['machine'])} {about}\n\n{markdown(head, lines)}"
