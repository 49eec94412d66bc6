"""Parts of the pages that are made from the code: `python -m tests.docs.generated` writes them anew.

Tables stand between `<!-- generated: NAME -->` and `<!-- end -->`. What a console block shows below its commands is
made as well, by running them.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path

from tests.docs.pages import ROOT, RUN, Block
from zoo.base import registry
from zoo.cli.options import flag
from zoo.data.batches import draws, views
from zoo.recipes.recipe import Recipe
from zoo.recipes.strategies import PRESETS, Preset

_MARKED = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def current(text: str) -> str:
    """A page's text with its tables as the code has them now."""
    return _MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def recipe_fields() -> str:
    """Every field of a recipe."""
    rows = [(f"`{entry.name}`", _option(entry), _values(entry), _default(entry), entry.metadata["help"])
            for entry in fields(Recipe)]  # fmt: skip
    return _table(("field", "option", "values", "default", "meaning"), rows)


def strategies() -> str:
    """What each strategy does where the person chose nothing."""
    names = [entry.name for entry in fields(Preset)]
    rows = []
    for strategy, preset in PRESETS.items():
        phases = ", then ".join(
            f"{phase.name} (from {phase.train_from})" for phase in Recipe(strategy=strategy).expand()
        )
        values = {name: getattr(preset, name) for name in names}
        cells = [_number(values[name]) if values[name] or name not in ("probe_epochs", "probe_lr") else "-"
                 for name in names]  # fmt: skip
        rows.append((f"`{strategy}`", phases, *cells))
    return _table(("strategy", "phases", *(f"`{name}`" for name in names)), rows)


def augmentation() -> str:
    """What each augmentation preset does to a training image."""
    rows = [("`none`", "centre crop, as in evaluation", "never", "as it is", "")]
    for name, preset in views._PRESETS.items():
        low, high = preset["scale"]
        jitter = preset["color_jitter"]
        colour = f"brightness, contrast and saturation by up to {jitter[0]:.0%}" if jitter else "as it is"
        also = []
        if preset.get("auto_augment"):
            colour = "by RandAugment"
            also.append(f"RandAugment `{preset['auto_augment']}`")
        if name == "strong":
            also.append(f"a rectangle of {draws.ERASED:.0%} of the images erased")
        rows.append((f"`{name}`", f"{low:.0%} to {high:.0%} of the area", "half", colour, "; ".join(also)))
    return _table(("preset", "crop", "mirrored", "colour", "also"), rows)


def datasets() -> str:
    """The data sets that have a name."""
    rows = [
        (f"`{entry.name}`", entry.classes or "-", ", ".join(entry.splits) or "built in",
         f"[{entry.hub}]({entry.page})" if entry.hub else "scikit-learn", entry.license or "-",
         "terms must be accepted" if entry.gated else "")
        for entry in registry._read(registry._shipped_path()).datasets.values()
    ]  # fmt: skip
    return _table(("name", "classes", "splits", "source", "licence", ""), rows)


TABLES: dict[str, Callable[[], str]] = {
    "recipe-fields": recipe_fields,
    "strategies": strategies,
    "augmentation": augmentation,
    "datasets": datasets,
}


def _option(entry: Field[object]) -> str:
    return "-" if entry.name == "phases" else f"`{flag(entry.name)}`"


def _values(entry: Field[object]) -> str:
    limits = entry.metadata
    if limits["choices"]:
        return ", ".join(f"`{value}`" for value in limits["choices"])
    kind = str(entry.type)
    if entry.name == "phases":
        return "list of phases"
    if "Mapping" in kind:
        return limits["metavar"].lower().replace("=", ": ")
    if kind.startswith("tuple"):
        return f"list of `{limits['metavar']}`"
    if kind == "bool":
        return "on or off"
    if kind.startswith("str"):
        return "text"
    low, high = limits["low"], limits["high"]
    word = "whole number" if "int" in kind else "number"
    text = (
        f"{word} above {_number(limits['more_than'])}" if limits["more_than"] > low else f"{word} from {_number(low)}"
    )
    text += f" to {_number(high)}" if high < float("inf") else ""
    return text + "".join(f" or `{word}`" for word in entry.metadata["words"])


def _default(entry: Field[object]) -> str:
    by_strategy = {item.name for item in fields(Preset)}
    if entry.default is MISSING:
        return "none"
    if entry.default is None:
        return "by strategy" if entry.name in by_strategy or entry.name == "train_from" else "-"
    if isinstance(entry.default, bool):
        return "on" if entry.default else "off"
    return f"`{_number(entry.default)}`"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _write(page: Path) -> None:
    """Bring one page up to date: its tables, then what its console blocks show."""
    from tests.docs.running import run_page

    page.write_text(current(page.read_text(encoding="utf-8")), encoding="utf-8")
    shown: dict[int, str] = {}

    def note(block: Block, printed: list[list[str]]) -> None:
        commands = [command for command, _ in block.commands()]
        shown[block.line] = "\n".join(
            line for command, lines in zip(commands, printed, strict=True) for line in (f"$ {command}", *lines)
        )

    with tempfile.TemporaryDirectory() as folder:
        run_page(page, Path(folder), note)
    lines = page.read_text(encoding="utf-8").splitlines()
    for start in sorted(shown, reverse=True):
        end = lines.index("```", start)
        lines[start:end] = shown[start].splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in sys.argv[1:] or [str(page.relative_to(ROOT)) for page in RUN]:
        with tempfile.TemporaryDirectory() as cache:  # one for each page, as in the tests: plans say what is in it
            os.environ["ZOO_CACHE"] = cache
            _write(ROOT / name)
