"""Recipe files: YAML, and the records of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.untrusted import YAML_LIMIT, parse_yaml, read_bytes
from zoo.errors import RecipeError
from zoo.recipes.recipe import Recipe
from zoo.runs.run_folder import read_record

# Automatic choices that a repeated or resumed run takes from the first one.
RESOLVED = (
    "weights",
    "batch_size",
    "precision",
    "compile",
    "device",
    "threads",
    "workers",
    "norm",
    "recalibrate",
    "problem",
    "select_by",
    "refit",
    "augment",
    "label_smoothing",
    "cache",
    "cache_views",
    "epochs",
    "probe_epochs",
    "lr",
    "probe_lr",
    "lr_decay",
    "weight_decay",
    "unlabelled_ratio",
)


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe read from a file, with its backbone and data set if the file names them."""

    recipe: Recipe
    backbone: str | None = None
    dataset: str | None = None


def read_recipe(path: Path) -> RecipeFile:
    """Read a YAML recipe, or the recipe of a run from its `run.json`, automatic choices included.

    Raises:
        RecipeError: The file is missing or holds no recipe.
    """
    if path.is_dir() or path.name == "run.json":
        record = read_record(path if path.is_dir() else path.parent)
        refuse_several(record, path)
        return recipe_of_run(record)
    try:
        content = parse_yaml(read_bytes(path, YAML_LIMIT).decode())
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}", why=error.strerror or str(error)) from error
    except ValueError as error:  # UnicodeDecodeError is one too
        raise RecipeError(f"{path} is not valid YAML", why=str(error)) from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold a mapping", why=f"it holds {type(content).__name__}")
    if "schema" in content and "recipe" in content:  # a run.json under another name
        return recipe_of_run(content)
    values = dict(content)
    backbone, dataset = values.pop("backbone", None), values.pop("dataset", None)
    faults = [f"{key} must be a text" for key, value in (("backbone", backbone), ("dataset", dataset))
              if not isinstance(value, str | None)]  # fmt: skip
    if faults:
        raise RecipeError(f"{path} cannot be used", why="; ".join(faults))
    return RecipeFile(Recipe.from_record(values, source=str(path)), backbone, dataset)


def refuse_several(record: Mapping[str, Any], path: object) -> None:
    """Raises RecipeError for a soup of runs or a stack, which have no recipe."""
    if names := of_runs(record):
        raise RecipeError(
            f"{path} was made from {len(names)} runs, and has no recipe of its own",
            fix=f"name one of them: {', '.join(names)}",
        )


def of_runs(record: Mapping[str, Any]) -> list[str]:
    """The runs that a soup or stack was made from; none for a trained run."""
    rows = (record.get("soup") or {}).get("candidates") or (record.get("stack") or {}).get("members") or ()
    return [str(row["run"]) for row in rows if row.get("run")]


def recipe_of_run(record: Mapping[str, Any]) -> RecipeFile:
    """The recipe in a run's record, its automatic choices resolved; raises RecipeError if it has none."""
    try:
        values = {**record["recipe"], **{key: record["resolved"][key] for key in RESOLVED if key in record["resolved"]}}
        backbone, dataset = str(record["backbone"]["name"]), str(record["dataset"]["ref"])
    except (KeyError, TypeError) as error:
        raise RecipeError("the run's record holds no recipe", why=f"missing: {error}") from error
    return RecipeFile(Recipe.from_record(values, source="run.json"), backbone, dataset)
