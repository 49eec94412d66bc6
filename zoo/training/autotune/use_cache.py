"""Cache choice: which phases train from cached features, and why; settled with the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from zoo.recipes.plan import CachePlan, PhasePlan, Plan
from zoo.recipes.planner import asked_phases
from zoo.recipes.recipe import Recipe
from zoo.training.autotune.cost import Costs
from zoo.training.frozen_cache.compute import FeatureCache
from zoo.training.frozen_cache.feature_file import Layout
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.frozen_cache.split import Splitter
from zoo.training.loaded import Loaded, Work

VIEWS = 4  # cached by default if images are augmented; see docs/benchmarks.md
LEAST = 1.0  # seconds to save, at least: less is not worth the disk space
MARGIN = 0.1  # and share of the phase's time: the error of an estimate


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """The result of the choice."""

    options: dict[str, Option]  # of the phases that train from cached features, by name
    reasons: dict[str, str]  # why each phase does or does not
    setting: str  # the same as a recipe's `cache`: on, off, or names of phases


def options(plan: Plan, loaded: Loaded, work: Work) -> tuple[dict[str, Option], dict[str, str]]:
    """By name, the phases that could use cached features, and why others cannot; RecipeError for an unknown phase."""
    recipe = work.settled
    names = asked_phases(recipe.cache, plan.phases, "cache features for")
    splitter: Splitter | None = None
    options: dict[str, Option] = {}
    reasons: dict[str, str] = {}
    for number, phase in enumerate(plan.phases):
        if not phase.groups[0].frozen:
            reasons[phase.name] = "the first group trains"
        elif phase.name not in names:
            reasons[phase.name] = f"--cache {recipe.cache}"
        elif why := work.objective.needs_images(phase):
            reasons[phase.name] = why
        elif recipe.ema and not _untouched(phase, plan.phases[:number]):
            # Epochs are compared by the average, whose frozen part differs from the network's.
            reasons[phase.name] = "the average of the weights (--ema) still follows what earlier phases trained"
        else:
            splitter = splitter or Splitter(loaded.model, loaded.groups, loaded.config.input_size)
            match _option(plan, number, loaded, work, splitter):
                case Option() as option:
                    options[phase.name] = option
                case str() as reason:
                    reasons[phase.name] = reason
    return options, reasons


def choose(
    options: Mapping[str, Option],
    reasons: Mapping[str, str],
    costs: Mapping[str, Costs] | None,
    recipe: Recipe,
    accelerator: Accelerator,
) -> CacheChoice:
    """Decide which phases use cached features, in one process; `costs` None: as decided when the run started."""
    every = dict(reasons)
    for name, option in options.items():
        if costs is None:
            why = "as when the run started"
        else:
            why = "asked for" if recipe.cache != "auto" else _gain(costs[name])
        every[name] = why + _remarks(option)
    names = [name for name in options if costs is None or recipe.cache != "auto" or _pays(costs[name])]
    if accelerator.num_processes > 1:
        names, every = broadcast_object_list([names, every])
    setting = "off" if not names else "on" if len(names) == len(options) else ",".join(names)
    return CacheChoice({name: options[name] for name in names}, every, setting)


def _option(plan: Plan, number: int, loaded: Loaded, work: Work, splitter: Splitter) -> Option | str:
    """How a phase could train from cached features, or why it cannot."""
    phase, recipe, accelerator = plan.phases[number], work.settled, loaded.accelerator
    cut = splitter.split(phase.frozen, phase.fixed_norm)
    if cut is None:
        return "the network cannot be split where its frozen part ends"
    blank = torch.zeros(2, *loaded.config.input_size, device=accelerator.device).to(memory_format=torch.channels_last)
    with accelerator.autocast():
        layout = Layout.of(cut.prefix(loaded.model)(blank))
    most = (recipe.cache_views or VIEWS) if work.loader.random else 1  # without augmentation one is enough
    count = min(most, phase.epochs)
    images = count * len(loaded.dataset.train) + len(loaded.dataset.val)
    size = images * layout.row_bytes
    if size > 1e9 * max(recipe.cache_gb, recipe.cache_ram_gb / accelerator.num_processes):
        return f"they would take {size / 1e9:.1f} GB; see --cache-gb"
    missing = images
    if _untouched(phase, plan.phases[:number]):
        first = sum(earlier.epochs for earlier in plan.phases[:number])
        missing = FeatureCache(loaded, work, cut, layout, phase.frozen, range(first, first + count)).missing()
    return Option(cut, layout, CachePlan(cut.group, cut.entry, count, size), missing, most)


def _untouched(phase: PhasePlan, earlier: tuple[PhasePlan, ...]) -> bool:
    """Whether the groups that a phase freezes are unchanged until it begins."""
    return all(phase.frozen <= before.frozen for before in earlier)


def _saved(costs: Costs) -> float:
    assert costs.cached is not None
    return costs.whole.seconds - costs.cached.seconds


def _pays(costs: Costs) -> bool:
    return _saved(costs) > max(LEAST, MARGIN * costs.whole.seconds)


def _gain(costs: Costs) -> str:
    saved = _saved(costs)
    if _pays(costs):
        return f"saves about {_rough_time(max(0.0, saved))} of {_rough_time(costs.whole.seconds)}"
    return "to compute them first would take longer" if saved < 0 else "it would save too little"


def _remarks(option: Option) -> str:
    text = ""
    if option.missing < option.plan.bytes // option.layout.row_bytes:
        text += f", {'some' if option.missing else 'all'} of it on the disk already"
    if option.cut.recomputed:
        text += f"; {', '.join(option.cut.recomputed)}: frozen too, but computed in every step"
    return text


def _rough_time(seconds: float) -> str:
    """A time as in a sentence: 12 s, 3 min."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
