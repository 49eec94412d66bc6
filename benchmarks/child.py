"""The measured process: `python -m benchmarks.child SIDE JOB.json RESULT.json`, or SIDE alone to import and leave."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch


def main() -> None:
    name, *files = sys.argv[1:]
    if not files:
        importlib.import_module(f"benchmarks.sides.{name}")
        return
    job = json.loads(Path(files[0]).read_text(encoding="utf-8"))
    watch = Stopwatch(job["started"])
    values = importlib.import_module(f"benchmarks.sides.{name}").run(job, watch)
    said = {**values, "marks": watch.marks, "points": watch.points, "off_the_clock": watch.off}
    Path(files[1]).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
