"""Run a page's blocks in one process: `zoo` commands through its own entry, Python as it stands, the rest in bash."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from tests.docs.pages import Block, blocks, setups, zoo_arguments
from zoo import Recipe, Run, api
from zoo.cli import main
from zoo.runs.stacked import held_out
from zoo.training import machine
from zoo.training.autotune import use_cache

PER_CLASS = 4  # training images of a class while examples are tested


def run_page(page: Path, folder: Path, on_console: Callable[[Block, list[list[str]]], None]) -> None:
    """Run a page's blocks in order, in an empty folder.

    Training is cut to an epoch a phase and a few images; everything else is as the page has it.

    Args:
        page: The page.
        folder: Where to run.
        on_console: Told each console block and the lines that its commands printed.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    one_thread = mock.patch.object(machine, "_cores", lambda: 1)  # or tests that run side by side fight for the cores
    # A page shows the plan of a machine that nobody else uses: there it pays to keep activations.
    kept = mock.patch.object(use_cache, "_pays", lambda costs: True)
    few = mock.patch.object(held_out, "LEAST", PER_CLASS)  # which is all that there are
    with contextlib.chdir(folder), mock.patch.object(api, "adapt", _briefly(api.adapt)), one_thread, kept, few:
        for name in setups(page):
            SETUPS[name]()
        for block in blocks(page):
            if block.file:
                Path(block.file).parent.mkdir(parents=True, exist_ok=True)
                Path(block.file).write_text(block.text + "\n", encoding="utf-8")
            elif block.not_run or block.language not in ("bash", "console", "python"):
                continue
            elif block.language == "python":
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)
            else:
                commands = [command for command, _ in block.commands()]
                codes = [0] * (len(commands) - 1) + [block.exit_code]
                printed = [_shell(block, command, code) for command, code in zip(commands, codes, strict=True)]
                if block.language == "console":
                    on_console(block, printed)


def masked(lines: list[str]) -> list[str]:
    """Lines without what differs from machine to machine: measured shares, times and sizes."""
    found = []
    for line in lines:
        # Whether waiting is worth a word depends on the machine too.
        line = re.sub(r" \(\d+% of it waiting for images\)", "", line)
        if "about " in line or "%" in line:
            line = re.sub(r"\d[\d.,]*( (?:s|min|h|kB|MB|GB)\b)?", "#", line).replace("# #", "#")
        found.append(re.sub(r" +", " ", line).rstrip())
    return found


def _shell(block: Block, command: str, expected: int) -> list[str]:
    """Run one command and return the lines that it showed: its results, or what went wrong."""
    ours = zoo_arguments(command)
    if not ours:
        done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, timeout=60)
        assert done.returncode == expected, f"{block.place}: {command}\n{done.stderr}"
        return done.stdout.splitlines()
    ((environment, words),) = ours
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.run(words)
    assert code == expected, f"{block.place}: `{command}` ended with {code}\n{out.getvalue()}{err.getvalue()}"
    shown = err.getvalue()[err.getvalue().find("error: ") :] if code else out.getvalue()
    shown = shown.replace(f"{Path.cwd()}/", "")  # a page knows no machine's folders
    return [line.rstrip() for line in shown.rstrip("\n").splitlines()]


def _briefly(adapt: Callable[..., Run]) -> Callable[..., Run]:
    def short(
        backbone: str | None = None, dataset: str | None = None, recipe: Recipe | None = None, **others: Any
    ) -> Run:
        full = recipe or Recipe()
        brief: dict[str, Any] = {"train_per_class": min(full.train_per_class or PER_CLASS, PER_CLASS)}
        if full.label_separator is not None or full.tasks:  # none is of one class
            brief = {"limit": 4 * PER_CLASS}
        if full.phases:
            brief["phases"] = tuple(replace(phase, epochs=1) for phase in full.phases)
        else:
            brief |= {"epochs": 1, "probe_epochs": 1 if full.with_preset().probe_epochs else 0}
        return adapt(backbone, dataset, replace(full, **brief), **others)

    return short


def _photos() -> None:
    """`photos/` with two class folders, `labels.csv` that names the same images, and unlabelled ones in `new/`."""
    rows = ["path,label"]
    for name, tint in (("ants", 60), ("bees", 180)):
        for number in range(10):
            path = Path("photos", name, f"{number:03d}.jpg")
            _picture(path, tint, number)
            rows.append(f"{path},{name}")
    Path("labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number in range(2):
        _picture(Path("new", f"{number}.jpg"), 60 + 120 * number, 100 + number)


def _labels() -> None:
    """`labels.csv` with several labels for each of the images in `scenes/`, and unlabelled ones in `new/`."""
    rows = ["path,label"]
    for number in range(24):
        shown = [name for place, name in enumerate(("beach", "dog", "sunset")) if number >> place & 1]
        path = Path("scenes", f"{number:03d}.jpg")
        _picture(path, 20 + 50 * len(shown), number)
        rows.append(f"{path},{'+'.join(shown)}")
    Path("labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number in range(2):
        _picture(Path("new", f"{number}.jpg"), 60 + 120 * number, 100 + number)


def _tasks() -> None:
    """`pets.csv` with a kind, an age and a size of each of the images in `pets/`, some unknown; more in `new/`."""
    rows = ["path,kind,age,size"]
    for number in range(24):
        path = Path("pets", f"{number:03d}.jpg")
        _picture(path, 20 + 7 * number, number)
        kind = "" if number % 5 == 0 else "dog" if number % 2 else "cat"
        age = "" if number % 3 == 0 else f"{number / 4:.1f}"
        rows.append(f"{path},{kind},{age},{('small', 'middle', 'large')[number // 8]}")
    Path("pets.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number in range(2):
        _picture(Path("new", f"{number}.jpg"), 60 + 120 * number, 100 + number)


def _picture(path: Path, tint: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed + tint).integers(0, 70, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(tint)).save(path)


SETUPS: dict[str, Callable[[], None]] = {"labels": _labels, "photos": _photos, "tasks": _tasks}
