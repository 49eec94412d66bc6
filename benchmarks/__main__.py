"""`python -m benchmarks NAME`: JSON on stdout, progress and tables on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import (
    adapt,
    align,
    cache,
    compare_backbones,
    coverage,
    few,
    golden,
    images,
    multilabel,
    multitask,
    mutants,
    norms,
    partial,
    rank,
    recipes,
    scaling,
    second_run,
    semi,
    stack,
    startup,
    step,
    surface,
    tuning,
    wait,
)
from benchmarks.machine import describe_machine
from benchmarks.pages import write_section

# Each module has add_arguments(parser) and measure(arguments) -> a record of plain values; one whose figures are
# published has table(record) -> Markdown as well, and perhaps draw_plots(record, folder of the page). A record in which
# `failed` is true makes the exit code 1.
MEASUREMENTS = {
    "adapt": adapt,
    "partial": partial,
    "second-run": second_run,
    "scaling": scaling,
    "wait": wait,
    "startup": startup,
    "tuning": tuning,
    "recipes": recipes,
    "cache": cache,
    "images": images,
    "step": step,
    "compare-backbones": compare_backbones,
    "rank": rank,
    "stack": stack,
    "norms": norms,
    "align": align,
    "multilabel": multilabel,
    "multitask": multitask,
    "semi": semi,
    "few": few,
    "golden": golden,
    "surface": surface,
    "coverage": coverage,
    "mutants": mutants,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, module in MEASUREMENTS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0], description=module.__doc__)
        command.add_argument("--out", type=Path, help="write the JSON here as well")
        if hasattr(module, "table"):
            command.add_argument("--docs", type=Path, help="write the table into its section of this page")
        module.add_arguments(command)
    arguments = parser.parse_args()
    machine = describe_machine()  # first: its load is the one that the measurement met
    module = MEASUREMENTS[arguments.name]
    record = {"benchmark": arguments.name, "machine": machine, **module.measure(arguments)}
    text = json.dumps(record, indent=2)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if hasattr(module, "table"):
        table = module.table(record)
        sys.stderr.write(f"\n{table}\n")
        if arguments.docs is not None:
            write_section(arguments.docs, record["benchmark"], table)
            if hasattr(module, "draw_plots"):
                module.draw_plots(record, arguments.docs.parent)
    sys.stdout.write(text + "\n")
    if record.get("failed"):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
