"""The house's rules: who may import whom, who may print, and what no file may say."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import zoo

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "zoo"

# Floors from the ground up; a module imports from its own floor and from those below it.
# fmt: off
FLOORS = [
    {"errors", "bounded", "spec", "choices", "manifest", "registry", "discovery", "importing", "plugins", "pip",
     "candidates", "installing", "removing", "scaffold", "run", "record", "interval", "strategies", "recipe",
     "recipe_file", "cache", "budget", "methods", "plans", "tasks"},  # the light half
    {"network", "matching", "groups", "claims", "tensors", "weights", "building", "models", "entrants", "heads"},
    {"planning", "data"},
    {"engine", "objectives"},
    {"hub", "report"},
    {"adaptation", "inference", "predictions", "testing", "ranking", "comparing", "stacking", "api"},
    {"cli", "__main__"},
]
# fmt: on
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
HEAVY = {"torch", "timm", "torchvision", "datasets", "accelerate", "numpy", "sklearn", "pandas", "matplotlib", "PIL",
         "safetensors", "huggingface_hub"}  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    part = module.split(".")[1]
    assert part in FLOOR, f"{module} has no floor: give {part!r} its place in DESIGN's list and in FLOORS"
    return FLOOR[part]


def imports(path: Path, *, at_import: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports; `at_import`: leave out what functions import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write absolute imports"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                # `from zoo.data import folder` imports a module, `from zoo.run import Run` a name of one.
                is_module = (ROOT / Path(*whole.split("."))).with_suffix(".py").is_file() or (
                    ROOT / Path(*whole.split("."))
                ).is_dir()
                yield node.lineno, whole if is_module else str(node.module)
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes.extend(node.orelse)
            continue
        nodes.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    own = floor_of(name_of(path))
    up = [
        f"line {line}: {module}"
        for line, module in imports(path)
        if module.startswith("zoo.") and floor_of(module) > own
    ]  # fmt: skip
    assert not up, f"{name_of(path)} imports from a floor above it: {', '.join(up)}"


def test_no_module_needs_itself_to_be_imported():
    graph = {
        name_of(path): {module for _, module in imports(path, at_import=True) if module.startswith("zoo.")}
        for path in FILES
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle of imports: {' -> '.join([*way[way.index(module) :], module])}"
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            # A package's own modules find it half-imported, which is in order while they take nothing from it.
            if not (other != module and module.startswith(f"{other}.")):
                visit(other, (*way, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("name", sorted(FLOORS[0]))
def test_the_light_half_imports_nothing_heavy(name):
    path = PACKAGE / f"{name}.py"
    loaded = {module.split(".")[0] for _, module in imports(path, at_import=True)}
    assert not loaded & HEAVY
    anywhere = {module.split(".")[0] for _, module in imports(path)}
    # A name that no manifest lists is timm's to know (plugins.get), and what a plugin registers with it is looked at.
    assert anywhere & HEAVY <= ({"timm"} if name in ("plugins", "importing") else set())


@pytest.mark.parametrize("path", [path for path in FILES if not name_of(path).startswith("zoo.cli")], ids=name_of)
def test_only_the_command_line_presents(path):
    presenters = {module.split(".")[0] for _, module in imports(path)} & {"rich", "typer", "click"}
    assert not presenters
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    prints = [call.lineno for call in calls if call.func.id == "print"]
    assert not prints, f"prints in lines {prints}"


def test_a_name_outlives_every_import():
    """Importing a submodule sets it on the package, over a function of the same name."""
    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in zoo.__all__:
        value = getattr(zoo, name)
        assert not isinstance(value, ModuleType), name
        assert callable(value) or name == "__version__", name
    assert not {path.stem for path in PACKAGE.iterdir()} & set(zoo.__all__)


def test_core_never_names_a_plugin():
    distributions = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    assert len(distributions) >= 4
    named = re.compile("|".join(sorted(distributions | {name.replace("-", "_") for name in distributions})))
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                assert not named.search(node.value), f"{path}:{node.lineno} names a plugin"
        assert not [module for _, module in imports(path) if named.match(module)]


def test_plugins_have_no_private_way_into_core():
    for path in (ROOT / "plugins").rglob("*.py"):
        assert not [module for _, module in imports(path) if module.split(".")[0] == "zoo"], path


def test_no_file_names_a_package_index():
    index = re.compile(r"py[p]i\.org|python[h]osted\.org|download\.py[t]orch\.org/whl|index-url")
    places = [*PACKAGE.rglob("*"), *(ROOT / "plugins").rglob("*"), *(ROOT / "benchmarks").rglob("*"),
              *(ROOT / "docs").rglob("*"), *(ROOT / ".ci").rglob("*"), *ROOT.glob("*")]  # fmt: skip
    texts = [path for path in places if path.suffix in {"", ".py", ".toml", ".yaml", ".yml", ".md", ".j2", ".html"}]
    read = 0
    for path in texts:
        if path.is_file():
            read += 1
            found = index.search(path.read_text(encoding="utf-8", errors="replace"))
            assert not found, f"{path.relative_to(ROOT)} names {found.group() if found else ''}"
    assert read > len(FILES)
