"""What a person can meet in two revisions, as text, and the difference: errors, options, exit codes, JSON, other texts.

Errors and texts are read from the code, wherever it stands: each as it is written, with {} for what is filled in, and |
between what a name may hold. Options and exit codes are asked of the program; keys and kinds of JSON are those of small
runs, and so are the refusals of commands that cannot be meant. The difference is on stderr.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import revisions
from benchmarks.revisions import Tree

Surface = dict[str, dict[str, str]]  # section -> entry -> what is known of it; "" where the entry says it all
Names = Mapping[str, list[ast.expr]]  # what a name may hold

ALIKE = 0.6  # of two texts at least, to be taken for one that was changed
DEPTH = 4  # names that hold names that hold names
PARTS = ("what", "why", "fix")
ALTERNATIVES = 12  # of a text that is put together

_DIGITS = "resnet_nano --dataset digits"
_SMALL = f"{_DIGITS} --limit 12 --epochs 1 --probe-epochs 1 --threads 1 --workers 0"
WORKING = (
    "list", "show resnet_nano", f"plan {_SMALL}", "datasets", f"adapt {_SMALL} --out runs/one", "eval runs/one",
    "predict runs/one image.png", "runs", "plugins list", "plugins show resnet", "plugins search", "cache list",
    f"rank {_DIGITS} --limit 40",
)  # fmt: skip
REFUSED = (
    "", "nonsense", "list nonsense", "show resnet_nan", "show timm/nonsense", "adapt", "plan", "adapt resnet_nano",
    "adapt resnet_nano --dataset nowhere", "adapt resnet_nano --dataset empty", "adapt resnet_nan --dataset digits",
    "adapt --lr x", f"adapt {_DIGITS} --strategy nonsense", f"adapt {_DIGITS} --epochs -1", "adapt --resume nowhere",
    f"adapt {_DIGITS} --mixup 2 --cutmix -1 --val-fraction 2", f"adapt {_DIGITS} --budget soon",
    f"adapt {_DIGITS} --align coral", f"adapt {_DIGITS} --semi fixmatch", "eval nowhere", "predict nowhere image.png",
    "predict runs/one nowhere.png", "push nowhere me/it", "reproduce nowhere", "compare", "stack nowhere",
    "soup nowhere", "rank --dataset nowhere", "runs nowhere", "plugins show nonsense", "plugins check nonsense",
    "cache clear --nonsense",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    revisions.add_arguments(parser)
    parser.add_argument("--static", action="store_true", help="read the code only; run nothing")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    before, after = (_surface(tree, arguments.static) for tree in revisions.trees(arguments, "tree"))
    found = difference(before, after)
    sys.stderr.write(readable(found))
    return {"difference": found, "before": before, "after": after}


def difference(before: Surface, after: Surface) -> dict[str, dict[str, list[Any]]]:
    """By section: what was removed, what was added, and pairs of what was changed into what."""
    found: dict[str, dict[str, list[Any]]] = {}
    for section in sorted(before.keys() | after.keys()):
        old, new = before.get(section, {}), after.get(section, {})
        changed = [
            (_line(key, old[key]), _line(key, new[key])) for key in sorted(old) if old[key] != new.get(key, old[key])
        ]
        removed = [_line(key, old[key]) for key in sorted(old.keys() - new.keys())]
        added = [_line(key, new[key]) for key in sorted(new.keys() - old.keys())]
        for gone in list(removed):
            for near in difflib.get_close_matches(gone, added, 1, ALIKE):
                changed.append((gone, near))
                removed.remove(gone)
                added.remove(near)
        found[section] = {"removed": removed, "added": added, "changed": changed}
    return found


def readable(found: Mapping[str, Mapping[str, list[Any]]]) -> str:
    """The difference for people."""
    lines = []
    for section, parts in found.items():
        lines.append(f"{section}: " + ", ".join(f"{len(entries)} {part}" for part, entries in parts.items()))
        lines += [f"  - {line}" for line in parts["removed"]] + [f"  + {line}" for line in parts["added"]]
        lines += [f"  < {old}\n  > {new}" for old, new in parts["changed"]]
    return "\n".join(lines) + "\n"


def _line(key: str, value: str) -> str:
    return f"{key}: {value}" if value else key


def _surface(tree: Tree, static: bool) -> Surface:
    surface = Code(tree.sources()).surface()
    templates = (line.strip() for file in sorted((tree.path / "zoo").rglob("*.jinja"))
                 for line in file.read_text(encoding="utf-8").splitlines())  # fmt: skip
    surface["templates"] = {line: "" for line in templates if line}
    return surface if static else surface | _asked(tree) | _ran(tree)


class Code:
    """The texts in the code."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.modules = [ast.parse(text) for text in sources.values()]
        children: dict[str, set[str]] = defaultdict(set)
        for node in (node for module in self.modules for node in ast.walk(module)):
            if isinstance(node, ast.ClassDef):
                for base in node.bases:
                    children[_name(base)].add(node.name)
        self.kinds = {"ZooError"}
        while more := {child for kind in self.kinds for child in children[kind]} - self.kinds:
            self.kinds |= more
        self.constants: dict[str, list[ast.expr]] = defaultdict(list)
        for module in self.modules:
            for name, value in _assigned(module.body):
                self.constants[name].append(value)

    def surface(self) -> Surface:
        errors, texts, codes, said = set[str](), set[str](), set[str](), set[str]()
        for module in self.modules:
            for call, names, kind in self._calls(module, {}, ""):
                given = {word.arg: word.value for word in call.keywords}
                if kind in self.kinds:
                    given |= {"what": call.args[0]} if call.args else {}
                    parts = {part: self.alternatives(given[part], names) for part in PARTS if part in given}
                    said |= {text for found in parts.values() for text in found}
                    errors.add("  ".join([kind, *(f"{part}: {' | '.join(sorted(parts[part]))}" for part in parts)]))
                if kind in ("Exit", "exit", "_exit", "SystemExit"):
                    codes.add(ast.unparse(call))
                codes |= {ast.unparse(given[word]) for word in given if word == "exit_code"}
            docstrings = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
            inner = {id(part) for node in ast.walk(module) if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in ast.walk(module):
                if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings | inner:
                    texts |= self.alternatives(node, {})
        texts = {text for text in texts - said if " " in text.strip() and any(letter.isalpha() for letter in text)}
        sections = {"errors": errors, "texts": texts, "exit codes in the code": codes}
        return {section: dict.fromkeys(sorted(entries), "") for section, entries in sections.items()}

    def alternatives(self, node: ast.AST | None, names: Names, depth: int = 0) -> set[str]:
        """What the text may be, with {} for what is not known before it runs."""
        parts: list[ast.AST] = []
        match node:
            case ast.Constant(value=str(value)):
                return {value}
            case ast.JoinedStr(values=values):
                return {"".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in values)}
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                both = [self.alternatives(part, names, depth) for part in (left, right)]
                return set(sorted(one + two for one in both[0] for two in both[1])[:ALTERNATIVES])
            case ast.IfExp(body=body, orelse=orelse):
                parts = [body, orelse]
            case ast.BoolOp(values=options):
                parts = [*options]
            case ast.Name(id=name) if depth < DEPTH:
                parts = [*(names.get(name) or self.constants.get(name) or [])]
                depth += 1
        return {text for part in parts for text in self.alternatives(part, names, depth)} or {"{}"}

    def _calls(self, node: ast.AST, names: Names, inside: str) -> Iterator[tuple[ast.Call, Names, str]]:
        """Every call, with what the names of its function may hold, and the name of what is called."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            local: dict[str, list[ast.expr]] = defaultdict(list)
            for name, value in _assigned(child for child in ast.walk(node) if isinstance(child, ast.stmt)):
                local[name].append(value)
            names = {**names, **local}
        if isinstance(node, ast.ClassDef):
            inside = node.name
        if isinstance(node, ast.Call):
            yield node, names, inside if ast.unparse(node.func) == "super().__init__" else _name(node.func)
        for child in ast.iter_child_nodes(node):
            yield from self._calls(child, names, inside)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _assigned(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in statements:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                yield name, value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                yield from zip(map(_name, targets), values, strict=False)
            case ast.Assign(targets=targets, value=value):
                yield from ((_name(target), value) for target in targets)


def _asked(tree: Tree) -> Surface:
    probe = Path(__file__).with_name("surface_probe.py").read_text(encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", probe], check=True, env=tree.environment(), stdout=subprocess.PIPE)
    found: Surface = json.loads(done.stdout)
    return found


def _ran(tree: Tree) -> Surface:
    """The keys of what commands print under --json, and of a run's files; the codes and messages of refusals."""
    from PIL import Image

    keys, refusals = dict[str, str](), dict[str, str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "empty").mkdir()
        Image.new("RGB", (32, 32)).save(folder / "image.png")
        home = {"HOME": name, "XDG_CACHE_HOME": f"{name}/.cache", "ZOO_CACHE": f"{name}/.zoo", "HF_HOME": f"{name}/.hf"}
        for line in (*WORKING, *REFUSED):
            sys.stderr.write(f"{tree.side}: zoo {line}\n")
            words = [sys.executable, "-m", "zoo", *line.split(), *(["--json"] if line else [])]
            done = subprocess.run(words, cwd=folder, env=tree.environment(**home), capture_output=True, text=True)
            if line in REFUSED:
                said = " ".join((done.stdout or done.stderr).replace(str(folder), "FOLDER").split())
                refusals[f"zoo {line}"] = f"{done.returncode} {said}"
            elif done.returncode:
                raise SystemExit(f"zoo {line} failed {tree.side}: {done.stdout}{done.stderr}")
            else:
                keys |= {f"zoo {line}: {key}": kind for key, kind in _keys(json.loads(done.stdout))}
        for file in sorted(path for path in (folder / "runs/one").rglob("*") if path.is_file()):
            where = file.relative_to(folder).as_posix()
            keys[where] = "file"
            if file.suffix in (".json", ".jsonl"):
                text = file.read_text(encoding="utf-8")
                for document in text.splitlines() if file.suffix == ".jsonl" else [text]:
                    keys |= {f"{where}: {key}": kind for key, kind in _keys(json.loads(document))}
    return {"JSON keys": keys, "refusals": refusals}


def _keys(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The paths of keys in a document, and the kinds of the values."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else (("[]", inner) for inner in value):
            yield from _keys(inner, f"{path}.{key}")
    else:
        yield path, type(value).__name__
