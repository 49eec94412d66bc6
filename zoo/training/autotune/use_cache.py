"""Which phases train from kept activations, and why; it is decided when the plan is made, and stays so."""

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
from zoo.training.frozen_cache.compute import Keeper
from zoo.training.frozen_cache.feature_file import Layout
from zoo.training.frozen_cache.phase_data import Option
from zoo.training.frozen_cache.split import Splitter
from zoo.training.loaded import Loaded, Work

VIEWS = 4  # kept where nobody chose, if images are augmented; see docs/benchmarks.md
LEAST = 1.0  # seconds that it has to save: for less nobody fills a disk
MARGIN = 0.1  # and the share of the phase's time: an estimate errs by that much


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """What was decided."""

    options: dict[str, Option]  # how the phases do it that train from kept activations, by name
    reasons: dict[str, str]  # why each phase does or does not
    setting: str  # the recipe's `cache` that says the same: on, off, or names of phases


def options(plan: Plan, loaded: Loaded, work: Work) -> tuple[dict[str, Option], dict[str, str]]:
    """The phases that could train from kept activations, by name, and why the others cannot.

    Args:
        plan: The plan.
        loaded: The network and the images.
        work: The recipe, the batches, and what is minimised, which may want more than activations.

    Raises:
        RecipeError: The recipe names a phase that there is not.
    """
    recipe = work.settled
    asked = asked_phases(recipe.cache, plan.phases, "keep activations for")
    splitter: Splitter | None = None
    found: dict[str, Option] = {}
    reasons: dict[str, str] = {}
    for number, phase in enumerate(plan.phases):
        if not phase.groups[0].frozen:
            reasons[phase.name] = "the first group trains"
        elif phase.name not in asked:
            reasons[phase.name] = f"--cache {recipe.cache}"
        elif why := work.objective.needs_images(phase):
            reasons[phase.name] = why
        elif recipe.ema and not _untouched(phase, plan.phases[:number]):
            # Epochs are compared with the average, whose own frozen part is not yet what the network's is.
            reasons[phase.name] = "the average of the weights (--ema) still follows what earlier phases trained"
        else:
            splitter = splitter or Splitter(loaded.model, loaded.groups, loaded.config.input_size)
            option = _option(plan, number, loaded, work, splitter)
            if isinstance(option, Option):
                found[phase.name] = option
            else:
                reasons[phase.name] = option
    return found, reasons


def choose(
    found: Mapping[str, Option],
    reasons: Mapping[str, str],
    costs: Mapping[str, Costs] | None,
    recipe: Recipe,
    accelerator: Accelerator,
) -> CacheChoice:
    """Decide which of the phases that could do train from kept activations.

    Args:
        found: How they could, by name.
        reasons: Why others cannot.
        costs: What each phase takes, either way; None: it was decided when the run started.
        recipe: Says whether that is a matter of time at all.
        accelerator: One process decides: another may have timed otherwise.
    """
    said = dict(reasons)
    for name, option in found.items():
        if costs is None:
            said[name] = "as when the run started"
        elif recipe.cache != "auto":
            said[name] = "asked for"
        else:
            said[name] = _gain(costs[name])
        said[name] += _remarks(option)
    names = [name for name in found if costs is None or recipe.cache != "auto" or _pays(costs[name])]
    if accelerator.num_processes > 1:
        names, said = broadcast_object_list([names, said])
    setting = "off" if not names else "on" if len(names) == len(found) else ",".join(names)
    return CacheChoice({name: found[name] for name in names}, said, setting)


def _option(plan: Plan, number: int, loaded: Loaded, work: Work, splitter: Splitter) -> Option | str:
    """How a phase could train from kept activations, or why it cannot."""
    phase, recipe, accelerator = plan.phases[number], work.settled, loaded.accelerator
    cut = splitter.split(phase.frozen, phase.fixed_norm)
    if cut is None:
        return "the network cannot be split where its frozen part ends"
    blank = torch.zeros(2, *loaded.config.input_size, device=accelerator.device).to(memory_format=torch.channels_last)
    with accelerator.autocast():
        layout = Layout.of(cut.prefix(loaded.model)(blank))
    most = (recipe.cache_views or VIEWS) if work.loader.random else 1  # where all look alike, one is enough
    count = min(most, phase.epochs)
    images = count * len(loaded.dataset.train) + len(loaded.dataset.val)
    size = images * layout.row_bytes
    if size > 1e9 * max(recipe.cache_gb, recipe.cache_ram_gb / accelerator.num_processes):
        return f"they would take {size / 1e9:.1f} GB; see --cache-gb"
    missing = images
    if _untouched(phase, plan.phases[:number]):
        first = sum(earlier.epochs for earlier in plan.phases[:number])
        missing = Keeper(loaded, work, cut, layout, phase.frozen, range(first, first + count)).missing()
    return Option(cut, layout, CachePlan(cut.group, cut.entry, count, size), missing, most)


def _untouched(phase: PhasePlan, earlier: tuple[PhasePlan, ...]) -> bool:
    """Whether what a phase freezes is at its beginning what it is now."""
    return all(phase.frozen <= before.frozen for before in earlier)


def _pays(costs: Costs) -> bool:
    assert costs.above is not None
    return costs.whole.seconds - costs.above.seconds > max(LEAST, MARGIN * costs.whole.seconds)


def _gain(costs: Costs) -> str:
    assert costs.above is not None
    saved = costs.whole.seconds - costs.above.seconds
    if _pays(costs):
        return f"saves about {_rough_time(max(0.0, saved))} of {_rough_time(costs.whole.seconds)}"
    return "to compute them first would take longer" if saved < 0 else "it would save too little"


def _remarks(option: Option) -> str:
    text = ""
    whole = option.plan.bytes // option.layout.row_bytes
    if option.missing < whole:
        text += ", all of it on the disk already" if not option.missing else ", some of it on the disk already"
    if option.cut.recomputed:
        text += f"; {', '.join(option.cut.recomputed)}: frozen too, but computed in every step"
    return text


def _rough_time(seconds: float) -> str:
    """A time as a sentence has it: 12 s, 3 min."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
