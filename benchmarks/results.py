"""Results as they come: a line of JSON for each finished run, so that a stopped measurement goes on where it was."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import named

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, help="file of the finished runs (default: benchmarks/results/NAME.jsonl)"
    )
    parser.add_argument("--again", action="store_true", help="forget the runs that are finished there, and start anew")
    parser.add_argument("--only-table", action="store_true", help="run nothing: make the table of what is finished")


class Results:
    """The finished runs of one measurement: on one machine, if they are timed."""

    def __init__(self, name: str, machine: Mapping[str, Any], arguments: Namespace, *, timed: bool = True) -> None:
        """Read what is finished.

        Args:
            name: Of the measurement.
            machine: This one.
            arguments: What `add_arguments` has added, parsed.
            timed: Whether runs of another machine cannot stand beside those of this one.

        Raises:
            SystemExit: Timed runs are from another machine, or nothing is there to make a table of.
        """
        limit = getattr(arguments, "limit", None) if timed else None
        if limit:  # a try is not to stand among what is published
            name += f"-limit-{limit}"
        self.path: Path = arguments.results or Path(__file__).parent / "results" / f"{name}.jsonl"
        self._machine = dict(machine)
        self._closed: bool = arguments.only_table
        if arguments.again and not self._closed:
            self.path.unlink(missing_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]
        if self._closed and not self.rows:
            raise SystemExit(f"{self.path} has no finished run to make a table of")
        for row in self.rows if timed and not self._closed else []:
            before, now = named(row["machine"]), named(machine)
            if before != now:
                raise SystemExit(f"{self.path} is from another machine ({before}, this is {now}): "
                                 "name another file with --results, or start anew with --again")  # fmt: skip

    @property
    def machine(self) -> dict[str, Any]:
        """Where the runs were measured."""
        return self.rows[-1]["machine"] if self.rows else self._machine

    @property
    def machines(self) -> list[dict[str, Any]]:
        """Where the runs were done: of each machine what it was when the last of them began there."""
        return [*{named(row["machine"]): row["machine"] for row in self.rows}.values()]

    def get(self, key: Mapping[str, Any], run: Callable[[], Row]) -> None:
        """Run what is not finished yet; `key` says what it is."""
        if self._closed or any(row["key"] == key for row in self.rows):
            return
        began = time.monotonic()
        row = {"key": dict(key), "machine": self._machine, **run()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        accuracy = f"accuracy {row['accuracy']:.3f}, " if "accuracy" in row else ""
        sys.stderr.write(f"{' '.join(map(str, key.values()))}: {accuracy}{time.monotonic() - began:.0f} s\n")
