"""A kind of task is one file: a fifth one is read, trained, measured, used and written about without any other."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.cli import render
from zoo.errors import DataError
from zoo.runs.report.task_sections import task_rows
from zoo.tasks import kinds
from zoo.tasks.schema import FACTS

RECIPE = zoo.Recipe(
    strategy="finetune", epochs=3, lr=3e-3, batch_size=16, image_size=32, precision="fp32", threads=1, augment="none",
    cache="off", refit="off",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def fifth() -> Iterator[None]:
    """Imported, and gone again afterwards; nothing else says that there is such a kind."""
    importlib.import_module("tests.tasks.count_kind")
    yield
    del FACTS["count"], kinds.KINDS["count"], sys.modules["tests.tasks.count_kind"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with 0 to 4 bright bars, of which one in seven is not counted; the ground is dark or light."""
    root = tmp_path_factory.mktemp("counts")
    lines = ["path,bars,ground,split"]
    for number in range(112):
        bars, light = number % 5, number % 2
        pixels = np.random.default_rng(number).integers(60 * light, 60 * light + 30, (36, 36, 3), dtype=np.uint8)
        for bar in range(bars):
            pixels[:, 7 * bar + 2 : 7 * bar + 6] = 220
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
        split = ("train",) * 5 + ("val", "test")
        lines.append(f"{number:03d}.png,{bars if number % 7 else ''},{('dark', 'light')[light]},{split[number // 16]}")
    path = root / "t.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_it_is_trained_measured_and_used(table, tmp_path):
    run = zoo.adapt("resnet_nano", recipe=replace(RECIPE, tasks=(f"bars={table}:bars:count",)), out=tmp_path / "run")
    record, result = run.record, run.record["result"]
    assert record["dataset"]["tasks"] == [{"name": "bars", "kind": "count"}] and record["dataset"]["classes"] == [
        "log bars"
    ]
    assert result["problem"] == "count" and result["n"] == 14 and result["explained"] > 0.2
    assert record["resolved"]["select_by"] == "score"
    losses = [
        line["loss"] for line in map(json.loads, run.metrics_path.read_text().splitlines()) if line["event"] == "step"
    ]
    assert losses[-1] < losses[0]
    assert zoo.evaluate(run)["explained"] == pytest.approx(result["explained"])
    pictures = [table.parent / f"{number:03d}.png" for number in (100, 104)]  # of no bar, and of four
    none, four = zoo.predict(run, pictures)
    assert none.value < four.value and none.record() == {"path": str(pictures[0]), "value": none.value}
    card, page = (run.path / "README.md").read_text(), run.report.read_text()
    assert "to count (bars)" in card and "mine.exp().item()" in card and "name: Mean error" in card
    assert "explained deviance" in page and "always guessing the mean: 0" in page


def test_it_stands_beside_the_others(table, tmp_path, capsys):
    tasks = (f"bars={table}:bars:count", f"ground={table}:ground")
    run = zoo.adapt(
        "resnet_nano", recipe=replace(RECIPE, tasks=tasks, task_weighting="uncertainty"), out=tmp_path / "two"
    )
    result = run.record["result"]
    worth = [max(0.0, result["tasks"]["bars"]["explained"]), result["tasks"]["ground"]["accuracy"]]
    assert result["score"] == pytest.approx(np.mean(worth))
    render.evaluation(zoo.evaluate(run))
    assert "explained deviance" in (shown := capsys.readouterr().out) and "mean error" in shown and "dark" in shown
    assert [row["kind"] for row in task_rows(run.record)] == ["count", "single-label"]


def test_what_it_cannot_read_is_said_with_the_row(table, tmp_path):
    with pytest.raises(DataError) as caught:
        zoo.plan("resnet_nano", recipe=replace(RECIPE, tasks=(f"bars={table}:ground:count",)))
    assert caught.value.what == f"{table}: the column 'ground' cannot be used for the task bars"
    assert caught.value.why == "row 1 says 'dark', which counts nothing" and caught.value.fix == "write 0, 1, 2, …"
