"""Command-line options: a recipe's fields, with names, help, choices and defaults of the dataclass, and shared ones."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption

from zoo.cli import complete
from zoo.cli.output import Answer, WrongUsage, say
from zoo.errors import RecipeError
from zoo.recipes import recipe, rules
from zoo.recipes.budget import Budget
from zoo.recipes.recipe import Recipe
from zoo.recipes.strategies import PRESETS
from zoo.runs import run_folder
from zoo.runs.recipe_file import RecipeFile, read_recipe

_HIDDEN = ("phases",)  # too much for a command line: recipe files have it
_MAPPINGS = {"group_lr": "layer4=1e-4", "task_weights": "age=0.5"}  # fields of names and numbers, with an example
_SINGULAR = {"tasks": "task", "task_weights": "task_weight"}  # typed once for each
_BY_STRATEGY = {entry.name for preset in PRESETS.values() for entry in fields(preset)}
_PANELS = {
    "Data": ("image_size", "train_per_class", "limit", "val_fraction", "on_bad_image", "path_column", "label_column",
             "problem", "label_separator", "dataset_config", "data_seed", "fold", "augment", "mixup", "cutmix",
             "balance"),
    "Tasks": ("tasks", "task_weights", "task_weighting", "task_temperature"),
    "Unlabelled images": ("target", "align", "align_weight", "unlabelled", "semi", "semi_weight", "unlabelled_ratio",
                          "threshold"),
    "Machine": ("seed", "precision", "compile", "device", "threads", "workers", "cache", "cache_views", "cache_ram_gb",
                "cache_gb", "store_gb", "checkpoint_every", "checkpoint_keep"),
}  # fmt: skip
_NUMBERS_OR_WORDS: tuple[tuple[str, Callable[[str], float], str, str], ...] = (
    ("lr", float, "auto", "1e-3"),
    ("batch_size", int, "auto", "64"),
    ("wise", float, "sweep", "0.5"),
)
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}
# The options of a recipe command that `--help` shows; `--help-all` shows the others too.
_SHOWN = {"help", "help_all", "as_json", "dataset", "recipe", "out", "resume", "budget", "strategies", "seeds",
          "images", "strategy", "epochs", "lr", "batch_size", "augment", "device"}  # fmt: skip
_EVERYTHING = "zoo.cli.options.everything"  # in a context: help is to show every option


def option(*names: str, help: str, **settings: Any) -> Any:
    """A typer option that shows no default: its help says what happens if it is left out."""
    return typer.Option(*names, help=help, show_default=False, **settings)


def argument(metavar: str, help: str, autocompletion: Callable[[str], list[str]] | None = None) -> Any:
    """A typer argument that shows no default."""
    return typer.Argument(metavar=metavar, help=help, autocompletion=autocompletion, show_default=False)


_DATASET = (
    "A name from `zoo datasets`, hf:ORG/NAME, a folder of class folders, a table (CSV, Parquet, JSONL), or an archive "
    "of a folder."
)
_TRAINED = (
    "A run (its folder, or its name under runs/), a model on the Hub (hf-hub:ORG/NAME), or a backbone's name: its "
    "pretrained head and labels."
)
_BUDGET = (
    "Limit on training: a time (90s, 10m, 2h) by the plan's estimate, or 500steps. It decides the epochs, in the "
    "recipe's proportion."
)
_RECIPE = "Start from a YAML recipe, a run.json or a run folder; the options here go on top."
Dataset = Annotated[str | None, option("--dataset", "-d", help=_DATASET, autocompletion=complete.dataset)]
Backbone = Annotated[
    str | None, argument("MODEL", "A backbone from `zoo list`, or timm/ARCHITECTURE.", complete.backbone)
]
TrainedModel = Annotated[str, argument("MODEL", _TRAINED, complete.trained_model)]
RecipeSource = Annotated[str | None, option("--recipe", metavar="FILE", help=_RECIPE)]
BudgetText = Annotated[str | None, option("--budget", metavar="TIME|STEPS", help=_BUDGET)]
Out = Annotated[
    str | None, option("--out", "-o", metavar="FOLDER", help="Folder to write; a new one under runs/ if left out.")
]


class RecipeCommand(TyperCommand):
    """A command with far more options than most people need: its help shows a dozen, and its usage none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the usage if nothing was typed and something has to be."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            examples = inspect.cleandoc(self.help or "").partition("For example:")[2]
            say(f"{ctx.get_usage()}\n\nFor example:{examples}\n")
            say(f"Options: {ctx.command_path} --help; all of them: --help-all")
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help with the options that most people need, or with all of them."""
        others = [entry for entry in self.params if isinstance(entry, TyperOption) and entry.name not in _SHOWN]
        for entry in others:
            entry.hidden = _EVERYTHING not in ctx.meta
        super().format_help(ctx, formatter)
        for entry in others:
            entry.hidden = False


def _help_all(ctx: typer.Context, requested: bool) -> None:
    if requested:
        ctx.meta[_EVERYTHING] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool, typer.Option("--help-all", help="Show all options and exit.", callback=_help_all, is_eager=True)
]


def field_option(name: str) -> Any:
    """One recipe field as a typer option, for commands that have a few of them."""
    return _option(next(entry for entry in fields(Recipe) if entry.name == name))


def with_recipe(command: Callable[..., Answer], *, but: tuple[str, ...] = ()) -> Callable[..., Answer]:
    """Give a command every recipe field as an option, except those in `but`, which it takes in another way.

    Its parameter `choices` gets the fields that were typed, by name, as a recipe takes them.
    """
    own = [entry for name, entry in inspect.signature(command, eval_str=True).parameters.items() if name != "choices"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    kinds = get_type_hints(Recipe)
    generated = [
        inspect.Parameter(entry.name, keyword, annotation=_annotation(entry, kinds[entry.name]), default=None)
        for entry in fields(Recipe)
        if entry.name not in (*_HIDDEN, *but)
    ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> Answer:
        del values["help_all"]  # it has done its work
        typed = {entry.name: values.pop(entry.name) for entry in generated}
        return command(
            **values, choices=_read({name: value for name, value in typed.items() if value not in (None, [])})
        )

    del wrapper.__wrapped__  # or its signature would be taken for this one's
    everything = inspect.Parameter("help_all", keyword, annotation=HelpAll, default=False)
    parameters = [entry.replace(kind=keyword) for entry in own] + generated + [everything]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    return wrapper


def settle(model: str | None, dataset: str | None, source: str | None, choices: Mapping[str, Any]) -> RecipeFile:
    """Returns a recipe file with model and choices on top; its data set stands in if none was typed.

    Raises WrongUsage if no backbone or data set is named or the choices do not fit, RecipeError for a bad file.
    """
    base = _recipe_file(source)
    settled = _on_top(base.recipe, choices)
    specs = settled.task_specs
    if dataset is not None and choices.get("tasks"):
        raise WrongUsage(
            "each task names its data set, so --dataset has no effect",
            fix=f"leave it out, or write --task {specs[0].name}={dataset}:COLUMN",
        )
    with _as_wrong_usage():
        rules.refuse_other_data(settled, dataset)
    backbone = model or base.backbone
    if backbone is None:
        raise WrongUsage("which backbone? none was named", fix="name one: zoo adapt MODEL --dataset …; see `zoo list`")
    if not specs:
        _named(dataset or base.dataset, f"zoo adapt {backbone}")
    return RecipeFile(settled, backbone, specs[0].dataset if specs else base.dataset)


def refuse_with_resume(command: str, folder: str, given: Mapping[str, Any]) -> None:
    """Raises WrongUsage if options besides `--resume` were typed, as `given` has them by name."""
    if typed := [name for name, value in given.items() if value]:
        raise WrongUsage(
            f"--resume goes on with the recorded choices and takes no others, but got {', '.join(typed)}",
            fix=f"to go on: zoo {command} --resume {folder}",
        )


def on_top_of(source: str, choices: Mapping[str, Any]) -> Recipe:
    """The recipe of a file or a run, with what was typed on top; raises like `settle`."""
    return _on_top(_recipe_file(source).recipe, choices)


def settle_shared(
    dataset: str | None, source: str | None, choices: Mapping[str, Any], command: str
) -> tuple[str, Recipe]:
    """The data set and the recipe of a command that takes many backbones; raises like `settle`."""
    base = _recipe_file(source)
    if choices.get("tasks") or base.recipe.tasks:
        raise WrongUsage(
            f"{' '.join(command.split()[:2])} takes images of one class each, and tasks ask more of them",
            fix="adapt one backbone after another: zoo adapt MODEL --task …",
        )
    data = _named(dataset or base.dataset, command)
    return data, _on_top(recipe.with_choices(base.recipe, {"weights": "default"}), choices)


def read_budget(text: str | None) -> Budget | None:
    """The value of `--budget`; raises WrongUsage if it is none."""
    with _as_wrong_usage():
        budget = None if text is None else Budget.parse(text)
    return budget


def _named(dataset: str | None, command: str) -> str:
    if dataset is None:
        fix = f"name one: {command} --dataset …; see `zoo datasets`"
        raise WrongUsage("which images? no data set was named", fix=fix)
    return dataset


def _on_top(base: Recipe, choices: Mapping[str, Any]) -> Recipe:
    mappings = {name: {**getattr(base, name), **choices[name]} for name in _MAPPINGS if name in choices}
    with _as_wrong_usage():
        settled = recipe.with_choices(base, {**choices, **mappings})
    return settled


@contextlib.contextmanager
def _as_wrong_usage() -> Iterator[None]:
    """What a recipe refuses in the block was typed."""
    try:
        yield
    except RecipeError as error:
        raise WrongUsage(error.what, why=error.why, fix=error.fix) from error


def flag(name: str) -> str:
    """How a field is typed: `train_per_class` as `--train-per-class`; one that is repeated, in the singular."""
    return f"--{_SINGULAR.get(name, name).replace('_', '-')}"


def _recipe_file(source: str | None) -> RecipeFile:
    if source is None:
        return RecipeFile(Recipe())
    path = Path(source)
    run = run_folder.find(source) if not path.exists() else None  # a run's bare name
    return read_recipe(run.path if run else path)


def _annotation(entry: Field[Any], kind: Any) -> Any:
    accepted: Any
    if entry.metadata["choices"] and not entry.metadata["several"]:
        accepted = Literal[entry.metadata["choices"]]
    elif entry.name in (*_MAPPINGS, "tasks"):
        accepted = list[str]
    else:
        parts = [part for part in get_args(kind) or (kind,) if part is not type(None)]
        accepted = parts[0] if len(parts) == 1 else str  # `lr` is a number or a word
    return Annotated[accepted | None, _option(entry)]


def _option(entry: Field[Any]) -> Any:
    name = flag(entry.name)
    spelling = f"{name}/--no-{name.removeprefix('--')}" if isinstance(entry.default, bool) else name
    panel = _PANEL_OF.get(entry.name, "Recipe")
    # The default is None, "not typed"; the help says what that means.
    return option(spelling, help=_help(entry), metavar=_metavar(entry), rich_help_panel=panel)


def _metavar(entry: Field[Any]) -> str | None:
    if entry.metadata["several"]:
        return f"{'|'.join(entry.metadata['choices'])}|A,B"
    words = entry.metadata["words"]
    return "|".join(["NUMBER", *words]) if words else entry.metadata["metavar"] or None


def _help(entry: Field[Any]) -> str:
    text: str = entry.metadata["help"]
    if entry.name in (*_MAPPINGS, "tasks"):
        return f"{text} Repeat it for more."
    if isinstance(entry.default, bool):
        return f"{text} (default: {'on' if entry.default else 'off'})"
    if entry.default is not None and entry.default is not MISSING:
        return f"{text} (default: {entry.default})"
    if entry.name in _BY_STRATEGY and "default" not in text:
        return f"{text} (default: by strategy)"
    return text


def _read(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are typed as text, as a recipe takes them."""
    read = dict(choices)
    for name, number, word, example in _NUMBERS_OR_WORDS:
        if name in read and read[name] != word:
            try:
                read[name] = number(read[name])
            except ValueError:
                raise _malformed(name, f"a number or {word}", read[name], example) from None
    for name, example in _MAPPINGS.items():
        if name in read:
            read[name] = dict(_named_number(text, name, example) for text in read[name])
    return read


def _named_number(text: str, field: str, example: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        if not name.strip():
            raise ValueError
        return name.strip(), float(number)
    except ValueError:
        form = "GROUP=RATE" if field == "group_lr" else "TASK=WEIGHT"
        raise _malformed(field, form, text, example) from None


def _malformed(field: str, form: str, text: str, example: str) -> WrongUsage:
    return WrongUsage(f"{flag(field)} takes {form}, not {text!r}", fix=f"for example: {flag(field)} {example}")
