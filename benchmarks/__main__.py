"""`python -m benchmarks NAME`: JSON on stdout, progress on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import compare_backbones, rank, recipes, startup, tuning
from benchmarks.machine import describe_machine

# Each module has add_arguments(parser) and measure(arguments) -> a record of plain values.
MEASUREMENTS = {
    "startup": startup,
    "tuning": tuning,
    "recipes": recipes,
    "compare-backbones": compare_backbones,
    "rank": rank,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, module in MEASUREMENTS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0], description=module.__doc__)
        command.add_argument("--out", type=Path, help="write the JSON here as well")
        module.add_arguments(command)
    arguments = parser.parse_args()
    machine = describe_machine()  # first: its load is the one that the measurement met
    record = {"benchmark": arguments.name, "machine": machine, **MEASUREMENTS[arguments.name].measure(arguments)}
    text = json.dumps(record, indent=2)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if getattr(arguments, "docs", None) is not None:
        recipes.write_docs(arguments.docs, record)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
