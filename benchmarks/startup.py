"""Whole-process time of commands that only list, and the time until `adapt` works: its first batch, step and result.

Listing is held against importing timm and listing its models; the first batch of images in the network against
importing torch and timm; the first step against importing timm and making the same network; with `--before`, the
result that is told against the same at an older revision. The commands take turns, so that a busy moment of the machine
meets all of them; the first turn, which fills the file cache and zoo's own caches, does not count. Only on the way to
its first step does `adapt` find zoo's own caches empty in every turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import golden_runs, pages

LISTING = "timm.list_models()"
IMPORTING = "import torch, timm"
MAKING = "timm.create_model()"
FIRST_BATCH = "zoo adapt, to its first batch"
FIRST_STEP = "zoo adapt, to its first step"
RESULT = "zoo adapt, to its result"
BATCH_BEFORE, RESULT_BEFORE = f"{FIRST_BATCH}, before", f"{RESULT}, before"
# What is held against what.
BASELINES = {"zoo list": LISTING, "zoo --help": LISTING, FIRST_BATCH: IMPORTING, BATCH_BEFORE: IMPORTING,
             FIRST_STEP: MAKING, RESULT: RESULT_BEFORE}  # fmt: skip
CHOICES = "--strategy probe --epochs 1"  # a short run: training takes as long as before
TOLD = "accuracy"  # what the line of a result begins with

# `zoo …` until images come to a network; no exit handler is waited for. Sizes and costs are found with empty tensors.
_BATCH = """
import os, sys
def hook(module, inputs):
    images = inputs[0] if inputs else None
    if getattr(images, "ndim", 0) == 4 and images.device.type != "meta" and float(images.std()) > 0:
        os._exit(0)
from torch.nn.modules.module import register_module_forward_pre_hook
register_module_forward_pre_hook(hook)
from zoo.cli.main import run
run(sys.argv[1:])
raise SystemExit("no image came to a network")
"""

# As `zoo adapt resnet_nano --dataset digits` does, until an optimizer has taken a step; no exit handler is waited for.
# The steps that the estimate tries out come before the first phase starts.
_STEP = """
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


@dataclass(frozen=True)
class Timed:
    """A command, the tree whose zoo it runs, and where it ends."""

    words: list[str]
    tree: Path = golden_runs.ROOT
    caches: Path | None = None  # None: empty ones
    until: str = ""  # what a line of its output begins with; nothing: to its end

    def seconds(self) -> float:
        """From its start to where it ends.

        Raises:
            SystemExit: It fails, or says nothing of the kind.
        """
        with tempfile.TemporaryDirectory() as folder:
            caches = self.caches or Path(folder) / "caches"
            places = [self.tree, *(path.parent for path in sorted(self.tree.glob("plugins/*/pyproject.toml")))]
            environment = {**os.environ, "ZOO_CACHE": str(caches), "PYTHONPATH": os.pathsep.join(map(str, places))}
            environment.pop("OMP_NUM_THREADS", None)  # older revisions do not take it for --threads
            started = time.perf_counter()
            with subprocess.Popen(self.words, cwd=folder, env=environment, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True) as process:  # fmt: skip
                assert process.stdout is not None
                told = next((time.perf_counter() for line in process.stdout if line.startswith(self.until)), None) \
                    if self.until else None  # fmt: skip
                process.stdout.read()
            ended = time.perf_counter()
            if process.returncode or (self.until and told is None):
                raise SystemExit(f"this failed, or did not say {self.until!r}: {' '.join(self.words)}")
            return (told or ended) - started


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=11, help="counted turns (default: 11)")
    parser.add_argument("--before", metavar="REVISION", help="an older revision, or a checkout's folder")
    parser.add_argument("--choices", default=CHOICES, metavar="OPTIONS",
                        help=f"of the run whose result is waited for (default: {CHOICES})")  # fmt: skip


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    script = Path(sys.executable).with_name("zoo")
    zoo = [str(script)] if script.is_file() else [sys.executable, "-m", "zoo"]
    adapt = ["adapt", "resnet_nano", "--dataset", "digits", "--limit", "1000", "--out", "run"]
    result = [sys.executable, "-m", "zoo", *adapt, *arguments.choices.split()]
    work = Path(tempfile.mkdtemp(prefix="zoo-startup-"))
    try:
        now, then = work / "caches", work / "caches-before"
        commands = {
            "zoo list": Timed([*zoo, "list"]),
            "zoo --help": Timed([*zoo, "--help"]),
            LISTING: Timed([sys.executable, "-c", "import timm; timm.list_models()"]),
            FIRST_BATCH: Timed([sys.executable, "-c", _BATCH, *adapt], caches=now),
            IMPORTING: Timed([sys.executable, "-c", "import torch, timm"]),
            FIRST_STEP: Timed([sys.executable, "-c", _STEP, "run"]),
            MAKING: Timed([sys.executable, "-c", "import timm; timm.create_model('test_resnet')"]),
            RESULT: Timed(result, caches=now, until=TOLD),
        }
        if arguments.before:
            older = golden_runs.tree(arguments.before, work / "trees").path
            commands[BATCH_BEFORE] = Timed([sys.executable, "-c", _BATCH, *adapt], older, then)
            commands[RESULT_BEFORE] = Timed(result, older, then, TOLD)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(arguments.runs + 1):
            for name, command in commands.items():
                passed = command.seconds()
                if turn:
                    seconds[name].append(passed)
            sys.stderr.write(f"turn {turn} of {arguments.runs}\n")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "choices": arguments.choices,
        "before": arguments.before,
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "median": {name: round(value, 4) for name, value in medians.items()},
        # Of the baseline's time. The aims: `zoo list` at most 0.08, the first batch 1.3, the result two thirds.
        "ratio": {
            name: round(medians[name] / medians[baseline], 4)
            for name, baseline in BASELINES.items()
            if name in medians and baseline in medians
        },
    }


def table(record: Mapping[str, Any]) -> str:
    rows = [(name if "," in name else f"`{name}`", f"{record['median'][name]:.2f}",
             RESULT_BEFORE if name == RESULT else f"`{BASELINES[name]}`",
             f"{record['median'][BASELINES[name]]:.2f}", f"{ratio:.2f}")
            for name, ratio in record["ratio"].items()]  # fmt: skip
    head = ("command", "whole process, s", "held against", "s", "ratio")
    turns = len(record["seconds"][LISTING])
    return f"{pages.machine_line(record['machine'])} Medians of {turns} turns.\n\n{pages.table(head, rows)}"
