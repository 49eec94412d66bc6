"""Whole-process time of commands that only list, and the time until `adapt` takes its first training step.

Listing is held against importing timm and listing its models; the first step against importing timm and making the same
network. The commands take turns, so that a busy moment of the machine meets all of them; the first turn, which fills
the file cache, does not count. `adapt` finds zoo's own caches empty in every turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import pages

LISTING = "timm.list_models()"
MAKING = "timm.create_model()"
FIRST_STEP = "zoo adapt, to its first step"
# What is held against what.
BASELINES = {"zoo list": LISTING, "zoo --help": LISTING, FIRST_STEP: MAKING}

# As `zoo adapt resnet_nano --dataset digits` does, until an optimizer has taken a step; no exit handler is waited for.
# The steps that the estimate tries out come before the first phase starts.
_STOP = """
import os, sys
from zoo import Recipe, api
from zoo.events import PhaseStarted
from torch.optim.optimizer import register_optimizer_step_post_hook
def stop(event):
    if isinstance(event, PhaseStarted):
        register_optimizer_step_post_hook(lambda *_: os._exit(0))
api.adapt("resnet_nano", "digits", Recipe(), out=sys.argv[1], on_event=stop)
raise SystemExit("no step was taken")
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=10, help="counted turns (default: 10)")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    script = Path(sys.executable).with_name("zoo")
    zoo = [str(script)] if script.is_file() else [sys.executable, "-m", "zoo"]
    commands = {
        "zoo list": [*zoo, "list"],
        "zoo --help": [*zoo, "--help"],
        FIRST_STEP: [sys.executable, "-c", _STOP, "run"],
        LISTING: [sys.executable, "-c", "import timm; timm.list_models()"],
        MAKING: [sys.executable, "-c", "import timm; timm.create_model('test_resnet')"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(arguments.runs + 1):
        for name, command in commands.items():
            passed = _seconds(command)
            if turn:
                seconds[name].append(passed)
        sys.stderr.write(f"turn {turn} of {arguments.runs}\n")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "median": {name: round(value, 4) for name, value in medians.items()},
        # Of the baseline's time; the aim for `zoo list` is at most 0.1.
        "ratio": {name: round(medians[name] / medians[baseline], 4) for name, baseline in BASELINES.items()},
    }


def table(record: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`" if name != FIRST_STEP else name, f"{record['median'][name]:.2f}", f"`{baseline}`",
             f"{record['median'][baseline]:.2f}", f"{record['ratio'][name]:.2f}")
            for name, baseline in BASELINES.items()]  # fmt: skip
    head = ("command", "whole process, s", "held against", "s", "ratio")
    turns = len(record["seconds"][LISTING])
    return f"{pages.machine_line(record['machine'])} Medians of {turns} turns.\n\n{pages.table(head, rows)}"


def _seconds(command: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ZOO_CACHE": str(Path(folder) / "caches"), "PYTHONPATH": os.pathsep.join(sys.path)}
        started = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, env=environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        return time.perf_counter() - started
