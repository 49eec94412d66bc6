"""docs/cli.md is made from the commands, and is not older than they are."""

from __future__ import annotations

import runpy
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
reference = runpy.run_path(str(PAGE.with_name("make_cli_reference.py")))["reference"]


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python docs/make_cli_reference.py > docs/cli.md"


def test_it_has_every_command_with_an_example():
    page = reference()
    for name in ("list", "show", "plan", "adapt", "eval", "predict", "push", "datasets", "plugins list", "runs"):
        section = page.split(f"\n## zoo {name}\n")[1].split("\n## ")[0]
        assert f"```bash\nzoo {name}" in section or f"| zoo {name}" in section
    assert "| `--strategy probe\\|partial\\|finetune\\|gradual\\|lp-ft\\|scratch` | How to transfer." in page
    assert "| `--lr NUMBER\\|auto` |" in page
