from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import adapt, pages
from benchmarks.__main__ import MEASUREMENTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = "before\n<!-- measured: a -->\nold\n<!-- end -->\nbetween\n<!-- measured: b -->\nkept\n<!-- end -->\nafter\n"


def test_a_section_is_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    pages.write_section(page, "a", "new\n\nlines\n")
    assert page.read_text() == PAGE.replace("old", "new\n\nlines")
    pages.write_section(page, "b", "other")
    assert page.read_text() == PAGE.replace("old", "new\n\nlines").replace("kept", "other")


@pytest.mark.parametrize("text", [PAGE, PAGE.replace("<!-- end -->\nbetween", "between"), ""])
def test_a_page_without_the_section_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(SystemExit, match=r"has no section <!-- measured: (a|missing) -->"):
        pages.write_section(page, "a" if text != PAGE else "missing", "new")
    assert page.read_text() == text


def test_a_table_escapes_what_would_end_a_cell():
    assert pages.table(("a", "b"), [(1, "x|y")]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"


def test_the_published_sections_have_a_measurement_that_writes_them():
    texts = [page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")]
    sections = [name for text in texts for name in re.findall(r"<!-- measured: (\S+) -->", text)]
    assert len(sections) == len(set(sections))
    published = {name for name, module in MEASUREMENTS.items() if hasattr(module, "table")} - {"adapt"}
    assert published | {f"adapt-{peer}" for peer in adapt.PEERS} <= set(sections)
