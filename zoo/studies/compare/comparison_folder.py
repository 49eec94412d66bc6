"""The folder of a comparison: its record, its table, its page, and the runs inside it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.files import write_atomic
from zoo.errors import RunError

SCHEMA = 1
# Columns of comparison.csv: as in a row of the summary, lists apart.
COLUMNS = ("member", "backbone", "weights", "weights_name", "weights_source", "weights_license", "weights_origin",
           "strategy", "seeds", "accuracy", "low", "high", "params", "flops", "epochs", "steps", "train_seconds",
           "total_seconds", "memory_bytes", "images_per_second", "pareto")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison's folder; each member's runs are ordinary run folders in it."""

    path: Path

    @property
    def record_path(self) -> Path:
        """`comparison.json`: the choices, the result of each run, the summary."""
        return self.path / "comparison.json"

    @property
    def table(self) -> Path:
        """`comparison.csv`: a row for each member."""
        return self.path / "comparison.csv"

    @property
    def page(self) -> Path:
        """`comparison.html`: the page to look at."""
        return self.path / "comparison.html"

    @property
    def work(self) -> Path:
        """Files of a running comparison: the lock, and the cached features of one run at a time."""
        return self.path / ".work"

    @property
    def record(self) -> dict[str, Any]:
        """The content of `comparison.json`.

        Raises:
            RunError: There is none, or it is damaged.
        """
        try:
            record = json.loads(self.record_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            fix = "start one: zoo compare MODEL …"
            raise RunError(f"{self.path} is not a comparison", why="it has no comparison.json", fix=fix) from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{self.record_path} cannot be read", why=str(error)) from error
        if not isinstance(record, dict) or not isinstance(record.get("schema"), int) or "members" not in record:
            raise RunError(f"{self.record_path} is not a comparison's record")
        if record["schema"] > SCHEMA:
            what = f"{self.record_path} was written by a newer zoo ({record.get('zoo')})"
            raise RunError(what, fix="pip install --upgrade adaptzoo")
        return record

    @property
    def finished(self) -> bool:
        """Whether every run has ended, in success or failure."""
        return bool(self.record.get("status") == "finished")

    @property
    def summary(self) -> dict[str, Any]:
        """A row for each member, and the differences between them: see docs/compare.md."""
        found: dict[str, Any] = self.record.get("summary") or {"rows": [], "differences": [], "failed": [], "notes": []}
        return found

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace `comparison.json` as a whole."""
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(self.record_path, text.encode("utf-8", "backslashreplace"))

    def write_table(self) -> None:
        """Write `comparison.csv` from the summary."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in self.summary["rows"]:
            low, high = row["interval"] or (None, None)
            writer.writerow({**row, "low": low, "high": high, "seeds": len(row["accuracies"]),
                             "pareto": " ".join(row["pareto"])})  # fmt: skip
        write_atomic(self.table, text.getvalue())
