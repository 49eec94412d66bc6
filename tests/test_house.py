"""The house's rules: who may import whom, who may print, and what no file may say."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import zoo
from zoo.tasks.schema import FACTS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "zoo"

# Rooms from the ground up; a module imports from its own room and from those below it.
ROOMS = ["errors", "version", "base", "tasks", "recipes", "events", "models", "data", "training", "runs", "studies",
         "api", "cli", "__main__"]  # fmt: skip
BESIDE = {"testing": "data"}  # as high as, and no part of it
# Never load torch and its like, wherever they stand.
LIGHT = {"errors", "version", "events", "base", "tasks.schema", "recipes", "models.lookup", "models.spec",
         "models.plugins", "runs.run_folder", "runs.record", "runs.recipe_file"}  # fmt: skip
HEAVY = {"torch", "timm", "torchvision", "datasets", "accelerate", "numpy", "sklearn", "pandas", "matplotlib", "PIL",
         "safetensors", "huggingface_hub"}  # fmt: skip
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    room = module.split(".")[1]
    assert room in ROOMS or room in BESIDE, f"{module} is in no room: give {room!r} its place in docs/architecture.md"
    return room


def height(module: str) -> int:
    room = room_of(module)
    return ROOMS.index(BESIDE.get(room, room))


def is_light(module: str) -> bool:
    return any(f"{module}.".startswith(f"zoo.{name}.") for name in LIGHT)


@cache
def parsed(path: Path) -> ast.Module:
    """A file's tree: many rules read each file, and none changes what it reads."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, at_import: bool = False) -> list[tuple[int, str]]:
    """Line and absolute name of everything that a file imports; `at_import`: leave out what functions import."""
    return list(imported(path, at_import=at_import))


def imported(path: Path, *, at_import: bool) -> Iterator[tuple[int, str]]:
    tree = parsed(path)
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write absolute imports"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                # `from zoo.data import folder` imports a module, `from zoo.runs.run_folder import Run` a name of one.
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


@pytest.mark.parametrize("path", [path for path in FILES if PACKAGE / "tasks" not in path.parents], ids=name_of)
def test_kinds_stay_home(path):
    """What differs between kinds of task is in the room `tasks`, and in the templates: nobody else names one."""
    strings = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant))
    named = [f"line {node.lineno}: {node.value}" for node in strings
             if isinstance(node.value, str) and node.value in FACTS]  # fmt: skip
    assert not named, f"{name_of(path)} names a kind of task: {', '.join(named)}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path):
    """Wherever they stand: an import within a function is one as well."""
    own = name_of(path)
    up = [
        f"line {line}: {module}"
        for line, module in imports(path)
        if module.startswith("zoo.")
        and (height(module) > height(own) or (height(module) == height(own) and room_of(module) != room_of(own)))
    ]  # fmt: skip
    assert not up, f"{own} imports from a room above it: {', '.join(up)}"


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other, each sorted (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in number:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == number[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


@pytest.mark.parametrize("room", ["", *(room for room in ROOMS if (PACKAGE / room).is_dir())])
def test_no_circle_between_the_parts_of_a_room(room):
    """Parts are modules and packages; of the whole house, they are the rooms."""
    inside = ".".join(["zoo", room]).rstrip(".") + "."
    depth = inside.count(".")
    edges: dict[str, set[str]] = {}
    for path in FILES:
        parts = name_of(path).split(".")
        if not name_of(path).startswith(inside):
            continue
        for _, module in imports(path):
            other = module.split(".")
            if module.startswith(inside) and other[depth] != parts[depth]:
                edges.setdefault(parts[depth], set()).add(other[depth])
    assert not circles(edges)


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_a_file_is_called_right_without_its_folder():
    """Two files of one name cannot be told apart in a traceback; a command's file is called as its command is."""
    stems: dict[str, list[str]] = {}
    for path in FILES:
        if path.stem != "__init__" and path.relative_to(PACKAGE).parts[0] != "cli":
            stems.setdefault(path.stem, []).append(name_of(path))
    assert not {stem: names for stem, names in stems.items() if len(names) > 1}


def test_no_two_classes_share_a_name():
    homes: dict[str, list[str]] = {}
    for path in FILES:
        if path.relative_to(PACKAGE).parts[0] != "cli":
            for node in parsed(path).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes.setdefault(node.name, []).append(name_of(path))
    assert not {name: places for name, places in homes.items() if len(places) > 1}


@pytest.mark.parametrize("room", sorted(PACKAGE.rglob("__init__.py")), ids=name_of)
def test_a_rooms_door_is_a_docstring(room):
    faces = {"zoo", "zoo.data", "zoo.runs.publish", "zoo.cli.plugins"}
    body = parsed(room).body
    assert ast.get_docstring(parsed(room))
    assert len(body) == 1 or name_of(room) in faces


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


@pytest.mark.parametrize("path", [path for path in FILES if is_light(name_of(path))], ids=name_of)
def test_the_light_half_imports_nothing_heavy(path):
    loaded = {module.split(".")[0] for _, module in imports(path, at_import=True)}
    assert not loaded & HEAVY
    assert not [
        module for _, module in imports(path, at_import=True) if module.startswith("zoo.") and not is_light(module)
    ]
    anywhere = {module.split(".")[0] for _, module in imports(path)}
    # A name that no manifest lists is timm's to know (lookup.get), and what a plugin registers with it is looked at.
    assert anywhere & HEAVY <= ({"timm"} if path.stem in ("lookup", "importing") else set())


@pytest.mark.parametrize("path", [path for path in FILES if not name_of(path).startswith("zoo.cli")], ids=name_of)
def test_only_the_command_line_presents(path):
    presenters = {module.split(".")[0] for _, module in imports(path)} & {"rich", "typer", "click"}
    assert not presenters
    tree = parsed(path)
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
        assert callable(value) or name in ("__version__", "Event"), name
    assert not {path.stem for path in PACKAGE.iterdir()} & set(zoo.__all__)


def test_core_never_names_a_plugin():
    distributions = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    assert len(distributions) >= 4
    named = re.compile("|".join(sorted(distributions | {name.replace("-", "_") for name in distributions})))
    for path in PACKAGE.rglob("*.py"):
        tree = parsed(path)
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


def test_few_functions_take_the_whole_prepared_run():
    """The others take what they use of it, which says what they depend on."""
    takers = [
        f"{name_of(path)}.{node.name}"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.annotation and re.search(r"\bPrepared\b", ast.unparse(argument.annotation))
    ]
    assert 0 < len(takers) <= 5, takers


def test_what_trains_is_said_in_one_place():
    """`requires_grad` is set by the freezer, and by the loop for what an objective has of its own."""
    setters = {
        f"{name_of(path)}: {ast.unparse(node.func.value)}"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "requires_grad_"
    }
    assigned = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr == "requires_grad" and isinstance(node.ctx, ast.Store)
    ]
    assert setters == {"zoo.models.freezing: parameter", "zoo.training.loop: job.objective"}
    assert not assigned
