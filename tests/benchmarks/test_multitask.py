from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.multitask import ARCHIVES, JOINT, TASKS, _that_fit, table, unpack, write_table
from tests.data.pictures import encoded, picture
from tests.data.sources.test_archive import zipped


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Both archives as they come, unpacked: 20 dogs and 10 horses each."""
    for domain, name in ARCHIVES.items():
        for label, count in (("dog", 20), ("horse", 10)):
            folder = tmp_path / domain / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:03d}.png").write_bytes(encoded(picture(number)))
        zipped(tmp_path / domain, tmp_path / name)
    unpack(tmp_path, tmp_path / "images")
    return tmp_path / "images"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_seed_cuts_every_class_of_both_domains(images: Path) -> None:
    rows = rows_of(write_table(images, 0, None))
    assert len(rows) == 60 and all((images / row["path"]).is_file() for row in rows)
    assert all(row["path"].startswith(f"{row['domain']}/{row['class']}/") for row in rows)
    sizes = Counter((row["domain"], row["class"], row["split"]) for row in rows)
    for domain in ARCHIVES:
        assert [sizes[domain, "dog", split] for split in ("train", "val", "test")] == [14, 2, 4]
        assert [sizes[domain, "horse", split] for split in ("train", "val", "test")] == [7, 1, 2]
    again, other = rows_of(write_table(images, 0, None)), rows_of(write_table(images, 1, None))
    assert rows == again and rows != other
    assert Counter(row["class"] for row in rows_of(write_table(images, 0, 5))) == {"dog": 10, "horse": 10}


def test_the_epochs_fill_the_time_of_the_others(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = [f'{{"event": "{event}", "epoch": {epoch}, "seconds": {seconds}}}' for event, epoch, seconds in
             (("step", 1, 4.0), ("step", 1, 5.0), ("epoch", 1, 5.1), ("step", 2, 6.9), ("step", 2, 7.0),
              ("epoch", 2, 1.9))]  # fmt: skip
    metrics.write_text("\n".join(lines) + "\n")
    trial: Any = SimpleNamespace(metrics_path=metrics)
    assert _that_fit(trial, 20.5) == 10, "two seconds an epoch; the first one sets things up"
    assert _that_fit(trial, 0.1) == 1


def row(way: str, seed: int, tasks: dict[str, float], seconds: float) -> dict[str, Any]:
    key = {"way": way, "backbone": "resnet_nano", "epochs": 10, "limit": None, "seed": seed}
    return {"key": key, "tasks": tasks, "n": 1119, "epochs_trained": 10 if way in TASKS else 20, "params": 1000,
            "seconds": {"train": seconds}, "seconds_per_image": 0.002}  # fmt: skip


def test_the_table_sets_one_network_beside_two() -> None:
    rows = [row(way, seed, {way: accuracy}, 30.0) for seed in range(2)
            for way, accuracy in zip(TASKS, (0.5, 0.9), strict=True)]  # fmt: skip
    rows += [row(way, seed, {"class": 0.6, "domain": 0.9}, 60.0) for seed in range(2) for way in JOINT]
    for longer in [row(way, seed, {way: 0.7}, 60.0) for seed in range(2) for way in TASKS]:
        longer["key"]["epochs"] = longer["epochs_trained"] = 20
        rows.append(longer)
    machine = {"cpu": "a", "cores": 2, "packages": {"torch": "2"}, "when": "2026-01-01T00:00"}
    lines = table({"rows": rows, "machine": machine}).splitlines()
    assert "| one network each | 50.0 ± 0.0 | - | 90.0 ± 0.0 | - | 2,000 | 4.00 | 60 | 10 + 10 |" in lines
    assert "| `pcgrad` | 60.0 ± 0.0 | 10.0 ± 0.0 | 90.0 ± 0.0 | 0.0 ± 0.0 | 1,000 | 2.00 | 60 | 20 |" in lines
    assert "1,119 images to report on; means over 2 seed(s)" in lines[0]
    assert (
        "| one network each, twice as long | 70.0 ± 0.0 | 20.0 ± 0.0 | 70.0 ± 0.0 | -20.0 ± 0.0 "
        "| 2,000 | 4.00 | 120 | 20 + 20 |" in lines
    )
    told = "Against class alone for twice as long: `fixed` -10.0 ± 0.0, `uncertainty` -10.0 ± 0.0, `pcgrad` -10.0 ± 0.0"
    assert lines[-1] == f"{told} points."
    half = [each for each in rows if each["key"]["epochs"] == 10]
    assert "twice as long" not in table({"rows": half, "machine": machine})
