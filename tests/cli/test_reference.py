"""docs/cli.md is made from the commands, and is not older than they are."""

from __future__ import annotations

from pathlib import Path

from zoo.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python -m zoo.cli.reference > docs/cli.md"


def test_it_has_every_command_with_an_example():
    page = reference()
    for name in ("list", "show", "plan", "adapt", "eval", "predict", "push", "datasets", "plugins list", "runs"):
        section = page.split(f"\n## zoo {name}\n")[1].split("\n## ")[0]
        assert f"```bash\nzoo {name}" in section or f"| zoo {name}" in section
    assert "| `--strategy probe\\|partial\\|finetune\\|gradual\\|lp-ft\\|scratch` | How to transfer." in page
    assert "| `--lr NUMBER\\|auto` |" in page
