"""Which backbone to take: all trained from scratch the same way on one data set, then adapted to others.

Each part goes on where it was stopped: the same command again repeats nothing that is finished. `--price` says what
each part is estimated to take on this machine, and runs nothing.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from zoo.recipes.budget import Budget
from zoo.runs.run_folder import Run
from zoo.studies.compare.comparison_folder import Comparison

SOURCE = "tiny_imagenet_100.zip"
TARGETS = ("cifar10.zip", "flowers12.zip")
# The four that are asked about, and enough small ones for an order to be compared with an order.
BACKBONES = ("resnet18", "vgg11_bn", "alexnet", "googlenet", "resnet_nano", "resnet10t", "resnet14t",
             "timm/mobilenetv2_050")  # fmt: skip
SIDE = 64  # pixels: of the source, and of the targets too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and comparisons; goes on there")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--epochs", type=int, default=4, help="of training from scratch")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step, of all training")
    parser.add_argument("--strategies", nargs="+", default=["lp-ft"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="1m", help="of each adaptation")
    parser.add_argument("--source-limit", type=int, default=10_000, help="images of the source to train on, at most")
    parser.add_argument("--limit", type=int, default=600, help="images of a target to train on, at most")
    parser.add_argument("--report", type=int, default=2000, help="images of a target to report on, at most")
    parser.add_argument("--threads", type=int, help="of each adaptation; so many cores to itself")
    parser.add_argument("--part", nargs="+", default=["scratch", *TARGETS], choices=["scratch", *TARGETS])
    parser.add_argument("--price", action="store_true", help="estimate what each part takes, and run nothing")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    scratch = zoo.Recipe(
        strategy="scratch", epochs=arguments.epochs, image_size=SIDE, limit=arguments.source_limit,
        batch_size=arguments.batch_size,
    )  # fmt: skip
    if arguments.price:
        return {"estimate": _price(arguments, scratch)}
    asked = ("epochs", "source_limit", "batch_size", "budget", "limit", "report", "threads")
    record: dict[str, Any] = {"scratch": [], "comparisons": {}, **{name: getattr(arguments, name) for name in asked}}
    trained = {name: Run(arguments.work / "scratch" / name.rpartition("/")[2]) for name in arguments.backbones}
    if "scratch" in arguments.part:
        for name, run in trained.items():
            _train(name, run, arguments.data / SOURCE, scratch)
    missing = [name for name, run in trained.items() if not (run.record_path.is_file() and run.finished)]
    if missing:
        raise SystemExit(f"not trained from scratch yet: {', '.join(missing)}; run the part scratch first")
    for name, run in trained.items():
        found = run.record
        record["scratch"].append({
            "backbone": name, "accuracy": found["result"]["accuracy"], "n": found["result"]["n"],
            "rate": found["resolved"]["lr"], "params": found["backbone"]["params"],
        })  # fmt: skip
    for target in (target for target in TARGETS if target in arguments.part):
        comparison = _compare(arguments, target, trained)
        record["comparisons"][target] = {"folder": str(comparison.path), **comparison.summary}
    return record


def table(record: Mapping[str, Any]) -> str:
    """A table for each target, and what training from scratch reached; an estimate has one of its own."""
    if "estimate" in record:
        lines = ["| part | estimated, min |", "| --- | --- |"]
        return "\n".join(lines + [f"| {part} | {seconds / 60:.0f} |" for part, seconds in record["estimate"].items()])
    images = f"at most {record['source_limit']:,}" if record["source_limit"] else "all"
    threads = f", {record['threads']} thread(s) each" if record["threads"] else ""
    text = (
        f"{machine_line(record['machine'])} **All weights are ours, none are ImageNet's**: each network was trained "
        f"from scratch on {images} images of {SOURCE} at {SIDE} px, {record['epochs']} epochs, batches of "
        f"{record['batch_size']}. Then {record['budget']} of training for each run, on at most {record['limit']:,} "
        f"images{threads}; accuracies are of at most {record['report']:,} test images."
    )
    head = ["from scratch", "parameters", "rate", f"accuracy of {record['scratch'][0]['n']:,}, %"]
    rows = [[f"`{row['backbone']}`", f"{row['params']:,}", f"{row['rate']:g}", f"{100 * row['accuracy']:.1f}"]
            for row in record["scratch"]]  # fmt: skip
    parts = [text, "", markdown(head, rows)]
    for target, summary in record["comparisons"].items():
        parts += ["", f"| {target} | accuracy, % | 95 % interval | seeds | MFLOPs | training, s | "
                  "memory, MB | images/s | front |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for row in summary["rows"]:
            low, high = row["interval"]
            memory = f"{row['memory_bytes'] / 1e6:.0f}" if row["memory_bytes"] else "-"
            front = ", ".join(row["pareto"]) or "-"
            parts.append(f"| {row['member']} | {100 * row['accuracy']:.1f} | {100 * low:.1f} to {100 * high:.1f} | "
                         f"{len(row['accuracies'])} | {row['flops'] / 1e6:.0f} | {row['train_seconds']:.0f} | "
                         f"{memory} | {row['images_per_second']:.0f} | {front} |")  # fmt: skip
        noise = [f"{pair['first']} and {pair['second']}" for pair in summary["differences"] if pair["within_noise"]]
        parts += ["", f"Within noise: {'; '.join(noise) or 'none'}."]
        parts += [f"Failed: {one['member']}: {one['what']}." for one in summary["failed"]]
    return "\n".join(parts)


def _train(name: str, run: Run, data: Path, recipe: zoo.Recipe) -> None:
    """Train one backbone from scratch, or go on with that."""
    if run.record_path.is_file():
        if not run.finished:
            zoo.adapt(resume=run.path)
    else:
        zoo.adapt(name, str(data), recipe, out=run.path)
    record = run.record
    sys.stderr.write(f"{name} from scratch: {record['result']['accuracy']:.3f}, {record['seconds']['train']:.0f} s\n")


def _compare(arguments: argparse.Namespace, target: str, trained: Mapping[str, Run]) -> Comparison:
    folder = arguments.work / Path(target).stem

    def tell(event: Any) -> None:
        if hasattr(event, "text"):
            sys.stderr.write(f"{target}: {event.text}\n")

    if (folder / "comparison.json").is_file():
        _require_same(Comparison(folder).record, arguments, trained)
        return zoo.compare(resume=folder, on_event=tell)
    names = [f"{name}={run.path.resolve()}" for name, run in trained.items()]
    recipe = zoo.Recipe(
        image_size=SIDE, limit=arguments.limit, batch_size=arguments.batch_size, threads=arguments.threads
    )
    data = reduced(arguments.data / target, arguments.work / "data" / target, arguments.report)
    return zoo.compare(
        names, str(data), recipe,
        strategies=arguments.strategies, seeds=arguments.seeds, budget=arguments.budget, out=folder, on_event=tell,
    )  # fmt: skip


def reduced(archive: Path, into: Path, count: int) -> Path:
    """Copy an archive of class folders with at most so many test images, of each class alike, the first by name.

    Only what a comparison's figures rest on is left out: nothing that is trained on or chosen by.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(into, "w") as fewer:
        names = sorted(name for name in whole.namelist() if not name.endswith("/"))
        tests: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if name.startswith("test/"):
                tests[name.rpartition("/")[0]].append(name)
        left = {name for found in tests.values() for name in found[count // len(tests) :]}
        for name in names:
            if name not in left:
                fewer.writestr(whole.getinfo(name), whole.read(name))
    return into


def _require_same(record: Mapping[str, Any], arguments: argparse.Namespace, trained: Mapping[str, Run]) -> None:
    """Stop where a comparison that is there is not the one that is asked for."""
    asked = {
        "--backbones": sorted(str(run.path.resolve()) for run in trained.values()),
        "--strategies": sorted(arguments.strategies),
        "--seeds": arguments.seeds,
        "--budget": str(Budget.parse(arguments.budget)),
        "--limit": arguments.limit,
        "--batch-size": arguments.batch_size,
        "--threads": arguments.threads,
    }
    there = {
        "--backbones": sorted({member["weights"] for member in record["members"] if member["weights"] != "none"}),
        "--strategies": sorted(record["strategies"]),
        "--seeds": len(record["seeds"]),
        "--budget": record["budget"],
        "--limit": record["recipe"]["limit"],
        "--batch-size": record["recipe"]["batch_size"],
        "--threads": record["recipe"]["threads"],
    }
    other = [f"{name} {there[name]}, now {asked[name]}" for name in asked if there[name] != asked[name]]
    if other:
        raise SystemExit(f"the comparison {record['name']} was made with {'; '.join(other)}: choose another --work")


def _price(arguments: argparse.Namespace, scratch: zoo.Recipe) -> dict[str, float]:
    """Seconds of each part: from the plans, and from the budgets."""
    price: dict[str, float] = {}
    for name in arguments.backbones if "scratch" in arguments.part else ():
        price[f"{name} from scratch"] = zoo.plan(name, str(arguments.data / SOURCE), scratch).seconds or 0.0
    runs = len(arguments.backbones) * len(arguments.strategies) * arguments.seeds
    seconds = Budget.parse(arguments.budget).seconds
    for target in (target for target in TARGETS if target in arguments.part and seconds):
        price[f"{target}, {runs} runs"] = runs * (seconds or 0.0)
    return price
