"""torch.compile: for which phases it pays off within the run, by measurement, and its use."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from zoo.models.freezing import hold
from zoo.recipes.plan import Plan
from zoo.recipes.planner import asked_phases
from zoo.recipes.recipe import Recipe
from zoo.training.autotune.cost import try_step
from zoo.training.loaded import Loaded
from zoo.training.norms.synchronised import synchronises

LONG = 600.0  # seconds; a shorter phase is not tried, because compiling takes about a minute
SAFETY = 2.0  # by default it must save this many times the time to compile
_STEPS = 3  # timed; the quickest counts


@dataclass(frozen=True, slots=True)
class CompileChoice:
    """The result of the measurements."""

    saved: dict[str, float]  # phase that is compiled -> seconds that it saves; may be below 0 on request
    notes: tuple[str, ...]


def choose(plan: Plan, seconds: Mapping[str, float], loaded: Loaded, recipe: Recipe) -> CompileChoice:
    """Which phases are compiled; the model is left unchanged, and all processes get the same result.

    On the CPU nothing is compiled unless the user asks for it: oneDNN's convolutions are most of a step there, and on
    every network that was measured the compiled step was no quicker (docs/speed.md). `seconds` is the estimated
    training time of each phase. Raises RecipeError if the recipe names an unknown phase.
    """
    auto, accelerator = recipe.compile == "auto", loaded.accelerator
    names = asked_phases(recipe.compile, plan.phases, "compile")
    if auto:
        names = [] if accelerator.device.type != "cuda" else [name for name in names if seconds[name] > LONG]
    phases, notes = [], []
    shared = synchronises(loaded.model, accelerator)  # processes wait for each other in such norms
    for phase in plan.phases:
        if phase.name not in names:
            continue
        if phase.cache:
            why = "it trains from cached features"
        elif phase.unlabelled:
            why = "its objective uses the network's features"
        elif shared and any(group.norm == "live" for group in phase.groups):
            why = "processes share the statistics of its norms"
        else:
            phases.append(phase)
            continue
        notes += [] if auto else [f"{phase.name} is not compiled, because {why}"]
    saved: dict[str, float] = {}
    for phase in phases:
        if why := unable(accelerator.device.type):
            notes.append(f"nothing is compiled: {why}")
            break
        trial = copy.deepcopy(loaded.model)
        hold(trial, loaded.groups, phase).train()
        try:
            takes, plain, quick = _compare(trial, recipe, accelerator, loaded.config.input_size)
        except Exception as error:  # training does not need it
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            notes.append(f"{phase.name} is not compiled: torch.compile failed: {reason}")
            continue
        gain = phase.steps * recipe.accumulate * (plain - quick)
        if not auto or gain > SAFETY * takes:
            saved[phase.name] = gain - takes
    if accelerator.num_processes == 1:
        return CompileChoice(saved, tuple(notes))
    # One process decides: others may have timed differently.
    return CompileChoice(*broadcast_object_list([saved, tuple(notes)]))


def unable(device: str) -> str:
    """Why torch.compile cannot work for a device on this machine; empty if it can."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    variable, names = ("CC", ("gcc", "clang", "cc")) if device == "cuda" else ("CXX", ("g++", "clang++", "c++"))
    chosen = os.environ.get(variable)
    candidates = (chosen.split()[0],) if chosen else names
    if not any(shutil.which(name) for name in candidates):
        return f"there is no C{'' if device == 'cuda' else '++'} compiler here (looked for {', '.join(candidates)})"
    return ""


def compiled(network: nn.Module) -> Any:
    """The network, compiled at its first call for each batch size; its parameters and their names are its own."""
    torch.compiler.reset()  # compilations of earlier phases would count against a function's limit
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns at length that there is no CUDA
    return torch.compile(network, dynamic=False)


def _compare(
    model: nn.Module, recipe: Recipe, accelerator: Accelerator, input_size: tuple[int, int, int]
) -> tuple[float, float, float]:
    """Seconds to compile, and seconds of one batch without and with it."""
    batch = max(1, recipe.batch // accelerator.num_processes)

    def quickest(network: Any) -> float:
        return min(try_step(network, batch, input_size, accelerator, torch.float32)[0] for _ in range(_STEPS))

    network = compiled(model)
    started = time.perf_counter()
    try_step(network, batch, input_size, accelerator, torch.float32)
    takes = time.perf_counter() - started
    quick = quickest(network)
    return takes, quickest(model), quick
