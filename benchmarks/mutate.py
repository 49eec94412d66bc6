"""Breaking one line of code, and finding the same line in another revision."""

from __future__ import annotations

import ast
import copy
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

NEAR = 4  # lines of code on each side that a line is recognised by
LEAST = 3  # of these twice as many, as many must be there

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Lt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_QUOTE = re.compile("^([a-zA-Z]*(?:\"\"\"|'''|\"|'))")
_Node = ast.expr | ast.stmt


@dataclass(frozen=True)
class Place:
    path: str
    number: int  # of the line, from 1


@dataclass(frozen=True)
class Mutant:
    """One line, broken in the same way in both revisions."""

    before: Place
    after: Place
    old: str  # both without the indentation
    new: str


def pick(before: Mapping[str, str], after: Mapping[str, str], n: int, seed: int) -> list[Mutant]:
    """Draw lines of the older sources that the newer ones still have, and how to break them.

    Args:
        before: The text of each file, by path.
        after: The same of the newer revision.
        n: How many; fewer come back where there are fewer.
        seed: Of the draw. What becomes of a line does not depend on the other lines.
    """
    ways = {path: mutations(text) for path, text in before.items()}
    places = [Place(path, number) for path in sorted(ways) for number in sorted(ways[path])]
    random.Random(seed).shuffle(places)
    finder, picked = Finder(after), list[Mutant]()
    for place in places:
        if len(picked) == n:
            break
        there = finder.find(before[place.path], place)
        if there is None:
            continue
        options = ways[place.path][place.number]
        random.Random(f"{seed} {place.path} {place.number}").shuffle(options)
        old = before[place.path].splitlines()[place.number - 1].strip()
        for new in options:
            if broken(before[place.path], place.number, new) and broken(after[there.path], there.number, new):
                picked.append(Mutant(place, there, old, new))
                break
    return picked


def broken(source: str, number: int, new: str) -> str | None:
    """The source with another line in a line's place; None if it is no Python, or means the same."""
    lines = source.splitlines(keepends=True)
    line = lines[number - 1]
    lines[number - 1] = line[: len(line) - len(line.lstrip())] + new + "\n"
    text = "".join(lines)
    try:
        return text if ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)) else None
    except SyntaxError:
        return None


def mutations(source: str) -> dict[int, list[str]]:
    """All the ways to break each line, as whole lines without the indentation.

    Only what begins and ends on a line is changed, so that the same change fits wherever the line stands. Imports,
    annotations and docstrings stay as they are.
    """
    lines = [line.encode() for line in source.splitlines()]
    found: dict[int, list[str]] = defaultdict(list)
    for node, new in _edits(ast.parse(source), lines):
        if node.lineno == node.end_lineno and "\n" not in new:
            line = lines[node.lineno - 1]
            changed = (line[: node.col_offset] + new.encode() + line[node.end_col_offset :]).decode().strip()
            if changed not in (line.decode().strip(), *found.get(node.lineno, ())):
                found[node.lineno].append(changed)
    return found


class Finder:
    """Recognises a line of another revision by its text and its neighbours, whichever file it is in."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.code = {path: _code(text) for path, text in sources.items()}
        self.texts = {path: {text for _, text in code} for path, code in self.code.items()}
        self.places: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for path, code in self.code.items():
            for index, (_, text) in enumerate(code):
                self.places[text].append((path, index))

    def find(self, source: str, place: Place) -> Place | None:
        """Where the line is; None if it is not there any more, or could be one of several."""
        code = _code(source)
        index = next(index for index, (number, _) in enumerate(code) if number == place.number)
        own, whole = _neighbours(code, index), {text for _, text in code}
        scored = sorted(
            ((sum(len(a & b) for a, b in zip(own, _neighbours(self.code[path], other), strict=True)),
              len(whole & self.texts[path]), path, other) for path, other in self.places[code[index][1]]),
            reverse=True,
        )  # fmt: skip
        if not scored or scored[0][0] < min(LEAST, len(code) - 1):
            return None
        if len(scored) > 1 and scored[0][:2] == scored[1][:2]:
            return None
        _, _, path, other = scored[0]
        return Place(path, self.code[path][other][0])


def _code(source: str) -> list[tuple[int, str]]:
    """Number and text of the lines that are neither empty, nor comments, nor imports."""
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    left_out = {number for node in imports for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines = ((number, line.strip()) for number, line in enumerate(source.splitlines(), 1) if number not in left_out)
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _neighbours(code: list[tuple[int, str]], index: int) -> tuple[set[str], set[str]]:
    before, after = code[max(0, index - NEAR) : index], code[index + 1 : index + 1 + NEAR]
    return {text for _, text in before}, {text for _, text in after}


def _edits(node: ast.AST, lines: Sequence[bytes]) -> Iterator[tuple[_Node, str]]:
    """Nodes with what to write in their place; what is not on one line is for the caller to leave out."""

    def text(part: _Node) -> str:
        return lines[part.lineno - 1][part.col_offset : part.end_col_offset].decode()

    def other(part: ast.expr, **changes: object) -> tuple[_Node, str]:
        changed = copy.copy(part)
        for name, value in changes.items():
            setattr(changed, name, value)
        return part, f"({ast.unparse(changed)})"

    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return
        case ast.JoinedStr() | ast.Constant(value=str()):
            yield node, _QUOTE.sub(r"\1XX", text(node))
            return  # what is within is not where Python 3.11 says
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value)):
            yield node, str(value + 1)
        case ast.Constant(value=float(value)):
            yield node, str(value * 2 or 1.0)
        case ast.Return(value=ast.expr()):
            yield node, "return None"
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Delete() | ast.Continue() | ast.Break() | ast.Assert():
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "pass"
        case ast.Compare(ops=[first, *rest]):
            yield other(node, ops=[_SWAPPED[type(first)](), *rest])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in _SWAPPED:
            yield other(node, op=_SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, f"({text(operand)})"
    for condition in (getattr(node, "test", None), *getattr(node, "ifs", ())):
        if condition is not None:
            yield condition, f"(not ({text(condition)}))"
    for child in ast.iter_child_nodes(node):
        if child not in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            yield from _edits(child, lines)
