"""Several labels an image: both losses, and what thresholds of its own bring each label.

The images are mosaics of two by two tiles, of which one to three show an image of an archive; the rest is black. A
mosaic's labels are the classes of what it shows. No image is in two mosaics.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

import zoo
from benchmarks.align import interval
from benchmarks.pages import machine_line
from benchmarks.pages import table as markdown
from benchmarks.results import Results
from benchmarks.results import add_arguments as add_results
from zoo.events import ignore
from zoo.runs.use import own_outputs
from zoo.tasks.multilabel import measure_labels

SIDE = 32  # pixels of a tile
LOSSES = ("bce", "asymmetric")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_results(parser)
    parser.add_argument("--data", type=Path, help="folder of the archives")
    parser.add_argument("--archive", default="cifar10.zip", help="with train/ and test/, a folder per class in each")
    parser.add_argument("--images", type=int, default=3000, help="mosaics to train and choose on")
    parser.add_argument("--test", type=int, default=1500, help="mosaics to report on, the same for every seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning; the head alone has as many before")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.machine import describe_machine

    results = Results("multilabel", describe_machine(), arguments, timed=False)
    for seed in range(arguments.seeds) if not arguments.only_table else ():
        with tempfile.TemporaryDirectory() as folder:
            table = make_mosaics(
                arguments.data / arguments.archive, Path(folder), seed, arguments.images, arguments.test
            )
            for loss in LOSSES:
                key = {"loss": loss, "seed": seed, "images": arguments.images, "epochs": arguments.epochs}
                results.get(key, lambda: _run(table, loss, seed, arguments.epochs))  # noqa: B023  # called at once
    return {"rows": results.rows, "machines": results.machines}


def _run(table: Path, loss: str, seed: int, epochs: int) -> dict[str, Any]:
    recipe = zoo.Recipe.from_record({"label_separator": ";", "label_loss": loss, "seed": seed, "image_size": 2 * SIDE,
                                     "epochs": epochs, "probe_epochs": epochs, "precision": "fp32"})  # fmt: skip
    run = zoo.adapt("resnet_nano", str(table), recipe, out=table.parent / loss)
    outputs, ids, classifier = own_outputs(run, ignore)
    half = measure_labels(outputs.logits, outputs.labels, classifier.classes, [0.5] * len(classifier.classes), ids)
    result = run.record["result"]
    kept = ("map", "micro_f1", "macro_f1", "accuracy", "baseline", "n")
    return {**{name: result[name] for name in kept}, "half": {name: half[name] for name in kept},
            "seconds": run.record["seconds"]}  # fmt: skip


def make_mosaics(archive: Path, into: Path, seed: int, images: int, test: int) -> Path:
    """Write the mosaics and their table.

    Args:
        archive: A zip of `PART/CLASS/IMAGE`, with the parts train and test.
        into: Where to.
        seed: Draws the mosaics to train on; those to report on are the same for all seeds.
        images: To train on; a fifth of them is cut off to choose by.
        test: To report on.
    """
    lines = ["path,label,split"]
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if not name.endswith("/"))
        for part, count, drawn in (("train", images, random.Random(seed)), ("test", test, random.Random("test"))):
            left = [name for name in names if name.startswith(f"{part}/")]
            drawn.shuffle(left)
            for number in range(count):
                shown = [left.pop() for _ in range(drawn.randint(1, 3))]
                canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE))
                for name, place in zip(shown, drawn.sample(range(4), len(shown)), strict=True):
                    tile = Image.open(io.BytesIO(file.read(name))).convert("RGB").resize((SIDE, SIDE))
                    canvas.paste(tile, (place % 2 * SIDE, place // 2 * SIDE))
                path = into / f"{part}-{number:05d}.png"
                canvas.save(path)
                labels = sorted({name.split("/")[1] for name in shown})
                lines.append(f"{path.name},{';'.join(labels)},{part}")
    table = into / "mosaics.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def table(record: dict[str, Any]) -> str:
    """A row for each loss: means over seeds with their intervals."""
    rows = []
    for loss in LOSSES:
        found = [row for row in record["rows"] if row["key"]["loss"] == loss]
        if found:
            cells = [interval([row[name] for row in found]) for name in ("map", "micro_f1", "macro_f1")]
            cells += [interval([row["half"][name] for row in found]) for name in ("micro_f1", "macro_f1")]
            rows.append([f"`{loss}`", *cells])
    first = record["rows"][0]
    seeds = len({row["key"]["seed"] for row in record["rows"]})
    head = ["loss", "mAP, %", "micro-F1, %", "macro-F1, %", "micro-F1 at 0.5, %", "macro-F1 at 0.5, %"]
    return (
        f"{machine_line(*record['machines'])} `resnet_nano`, {first['key']['images']:,} mosaics to train and choose "
        f"on, {first['n']:,} to report on, {first['key']['epochs']} epochs for the head and as many for all layers; "
        f"means over {seeds} seed(s) with 95 % intervals (Student's t). By chance mAP is "
        f"{100 * first['baseline']:.1f} %.\n\n{markdown(head, rows)}"
    )
