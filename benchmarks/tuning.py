"""Compare recipes by the images that choose, never by those that are reported on.

Each `--try` is a recipe's choices as `key=value,key=value`; `--try ""` is the default. The mean over works and seeds of
accuracy and loss on the validation images, which are cut from train by the seed, is what decides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.jobs import WORK, run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights files")
    parser.add_argument("--work", nargs="+", default=["hymenoptera", "flowers12", "cifar10-100"], choices=list(WORK))
    parser.add_argument("--try", dest="tries", action="append", default=[], help="choices, such as lr=0.001,norm=fixed")
    parser.add_argument("--seeds", type=int, default=1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for text in arguments.tries or [""]:
            choices = {
                key: yaml.safe_load(value)
                for key, _, value in (item.partition("=") for item in text.split(",") if item)
            }
            for name in arguments.work:
                runs = [
                    run(
                        WORK[name],
                        {**choices, "seed": seed},
                        data=arguments.data,
                        weights=arguments.weights,
                        scratch=Path(folder) / "run",
                    )
                    for seed in range(arguments.seeds)
                ]
                rows.append(
                    {
                        "choices": choices,
                        "work": name,
                        "choosing_accuracy": statistics.mean(row["choosing_accuracy"] for row in runs),
                        "choosing_loss": statistics.mean(row["choosing_loss"] for row in runs),
                        "train_seconds": statistics.mean(row["seconds"]["train"] for row in runs),
                        "runs": runs,
                    }
                )
    return {"rows": rows}
