"""zoo: transfer learning for images, from a backbone's name to a measured classifier.

Importing this package is light; torch and timm load at the first call that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.api import adapt, compare, evaluate, load, plan, predict, push, rank, reproduce, soup, stack
    from zoo.errors import ZooError
    from zoo.models.lookup import backbones, get
    from zoo.recipes.recipe import Recipe
    from zoo.recipes.strategies import Phase
    from zoo.runs.run_folder import Run

_HOME = {
    "Phase": "zoo.recipes.strategies",
    "Recipe": "zoo.recipes.recipe",
    "Run": "zoo.runs.run_folder",
    "ZooError": "zoo.errors",
    "adapt": "zoo.api",
    "backbones": "zoo.models.lookup",
    "compare": "zoo.api",
    "evaluate": "zoo.api",
    "get": "zoo.models.lookup",
    "load": "zoo.api",
    "plan": "zoo.api",
    "predict": "zoo.api",
    "push": "zoo.api",
    "rank": "zoo.api",
    "reproduce": "zoo.api",
    "soup": "zoo.api",
    "stack": "zoo.api",
}

__all__ = [
    "Phase",
    "Recipe",
    "Run",
    "ZooError",
    "__version__",
    "adapt",
    "backbones",
    "compare",
    "evaluate",
    "get",
    "load",
    "plan",
    "predict",
    "push",
    "rank",
    "reproduce",
    "soup",
    "stack",
]


def __getattr__(name: str) -> Any:
    """Load a public name's module at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
