"""zoo: transfer learning for images, from a backbone's name to a measured classifier.

Importing this package is light; torch and timm load at the first call that needs them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.api import adapt, compare, evaluate, load, plan, predict, push, rank, reproduce, soup, stack
    from zoo.errors import (
        DataError,
        DiskError,
        HubError,
        ManifestError,
        PluginError,
        RecipeError,
        RunError,
        TrainingError,
        TrainingInterrupted,
        WeightsError,
        ZooError,
    )
    from zoo.events import (
        CheckpointSaved,
        EpochDone,
        Event,
        Listener,
        Note,
        PhaseStarted,
        PlanReady,
        Progress,
        ResultReady,
        RunFinished,
        RunStarted,
        StepDone,
        tee,
    )
    from zoo.models.lookup import backbones, get
    from zoo.models.spec import BackboneSpec, LayerGroup, Plugin, Weights
    from zoo.recipes.budget import Budget
    from zoo.recipes.plan import GroupPlan, PhasePlan, Plan
    from zoo.recipes.recipe import Recipe
    from zoo.recipes.strategies import Phase
    from zoo.runs.recipe_file import RecipeFile, read_recipe
    from zoo.runs.reproduce import Reproduction
    from zoo.runs.resume import Difference
    from zoo.runs.run_folder import Result, Run, list_runs
    from zoo.runs.use import Predictor
    from zoo.studies.compare.comparison_folder import Comparison
    from zoo.studies.rank.rank import Ranking
    from zoo.tasks.predictions import Prediction

# Public names by the module that defines them, which is loaded at a name's first use.
_PUBLIC = {
    "zoo.api": "adapt compare evaluate load plan predict push rank reproduce soup stack",
    "zoo.errors": "DataError DiskError HubError ManifestError PluginError RecipeError RunError TrainingError "
    "TrainingInterrupted WeightsError ZooError",
    "zoo.events": "CheckpointSaved EpochDone Event Listener Note PhaseStarted PlanReady Progress ResultReady "
    "RunFinished RunStarted StepDone tee",
    "zoo.models.lookup": "backbones get",
    "zoo.models.spec": "BackboneSpec LayerGroup Plugin Weights",
    "zoo.recipes.budget": "Budget",
    "zoo.recipes.plan": "GroupPlan PhasePlan Plan",
    "zoo.recipes.recipe": "Recipe",
    "zoo.recipes.strategies": "Phase",
    "zoo.runs.recipe_file": "RecipeFile read_recipe",
    "zoo.runs.reproduce": "Reproduction",
    "zoo.runs.resume": "Difference",
    "zoo.runs.run_folder": "Result Run list_runs",
    "zoo.runs.use": "Predictor",
    "zoo.studies.compare.comparison_folder": "Comparison",
    "zoo.studies.rank.rank": "Ranking",
    "zoo.tasks.predictions": "Prediction",
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names.split()}

# Modules that were once documented, and the names in them that `zoo` itself has now.
_MOVED = {
    "zoo.adaptation": "Difference, Reproduction",
    "zoo.budget": "Budget",
    "zoo.comparing": "Comparison",
    "zoo.engine": "Event, Listener, Note, Progress",
    "zoo.inference": "Prediction",
    "zoo.plans": "Plan, PhasePlan, GroupPlan",
    "zoo.plugins": "backbones, get",
    "zoo.ranking": "Ranking",
    "zoo.recipe": "Recipe",
    "zoo.recipe_file": "RecipeFile, read_recipe",
    "zoo.run": "Run, Result, list_runs",
    "zoo.spec": "BackboneSpec, LayerGroup, Plugin, Weights",
    "zoo.strategies": "Phase",
}

__all__ = ["__version__"]
__all__ += ["adapt", "compare", "evaluate", "load", "plan", "predict", "push", "rank", "reproduce", "soup", "stack"]
__all__ += ["DataError", "DiskError", "HubError", "ManifestError", "PluginError", "RecipeError", "RunError"]
__all__ += ["TrainingError", "TrainingInterrupted", "WeightsError", "ZooError"]
__all__ += ["CheckpointSaved", "EpochDone", "Event", "Listener", "Note", "PhaseStarted", "PlanReady", "Progress"]
__all__ += ["ResultReady", "RunFinished", "RunStarted", "StepDone", "tee"]
__all__ += ["BackboneSpec", "LayerGroup", "Plugin", "Weights", "backbones", "get"]
__all__ += ["Budget", "GroupPlan", "Phase", "PhasePlan", "Plan", "Recipe", "RecipeFile", "read_recipe"]
__all__ += ["Comparison", "Difference", "Prediction", "Predictor", "Ranking", "Reproduction", "Result", "Run"]
__all__ += ["list_runs"]


def __getattr__(name: str) -> Any:
    """Load a public name's module at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Moved:
    """Import hook that says where the names of a moved module are now."""

    @staticmethod
    def find_spec(module: str, _path: Any = None, _target: Any = None) -> None:
        if module in _MOVED:
            # Not ModuleNotFoundError, which `from zoo import run` would swallow.
            raise ImportError(
                f"no module named {module!r} any more; write: from zoo import {_MOVED[module]}", name=module
            )


sys.meta_path.append(_Moved)
