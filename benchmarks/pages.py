"""What a measurement says on a page: a section between its markers, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import named

END = "<!-- end -->"


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text between `<!-- measured: NAME -->` and the next `<!-- end -->`; the rest of the page stays."""
    start = f"<!-- measured: {name} -->"
    before, opened, rest = page.read_text(encoding="utf-8").partition(f"{start}\n")
    inside, closed, after = rest.partition(END)
    if not opened or not closed or "<!-- measured:" in inside:
        raise SystemExit(f"{page} has no section {start} … {END} to write into")
    page.write_text(f"{before}{start}\n{text.rstrip()}\n{END}{after}", encoding="utf-8")


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def machine_line(*machines: Mapping[str, Any]) -> str:
    """The machine in one sentence, without which a figure says nothing; several where nothing is timed."""
    return "; ".join(f"{named(machine)}, {machine['when'][:10]}" for machine in machines) + "."
