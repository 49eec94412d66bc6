"""Whole-process time of commands that only list, against importing timm and listing its models.

The commands take turns, so that a busy moment of the machine meets all of them; the first turn, which fills the
file cache, does not count.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BASELINE = "timm.list_models()"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=10, help="counted turns (default: 10)")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    script = Path(sys.executable).with_name("zoo")
    zoo = [str(script)] if script.is_file() else [sys.executable, "-m", "zoo"]
    commands = {
        "zoo list": [*zoo, "list"],
        "zoo --help": [*zoo, "--help"],
        BASELINE: [sys.executable, "-c", "import timm; timm.list_models()"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(arguments.runs + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if turn:
                seconds[name].append(time.perf_counter() - started)
        sys.stderr.write(f"turn {turn} of {arguments.runs}\n")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "commands": commands,
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "median": {name: round(value, 4) for name, value in medians.items()},
        # Of the baseline's time; the aim for `zoo list` is at most 0.1.
        "ratio": {name: round(value / medians[BASELINE], 4) for name, value in medians.items() if name != BASELINE},
    }
