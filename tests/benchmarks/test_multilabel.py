from __future__ import annotations

import zipfile
from pathlib import Path

from benchmarks.multilabel import make_mosaics, table
from tests.data.pictures import encoded, picture


def test_mosaics_have_the_labels_of_their_tiles(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for part in ("train", "test"):
            for number in range(30):
                file.writestr(f"{part}/{'xyz'[number % 3]}/{number}.png", encoded(picture(number)))
    lines = make_mosaics(tmp_path / "a.zip", tmp_path, 0, 8, 4).read_text().splitlines()
    assert len(lines) == 13 and sum(line.endswith(",test") for line in lines) == 4
    for line in lines[1:]:
        path, labels, _ = line.split(",")
        assert (tmp_path / path).is_file() and 1 <= len(labels.split(";")) <= 3


def test_the_table_says_what_was_run() -> None:
    scores = {"map": 0.5, "micro_f1": 0.4, "macro_f1": 0.3}
    rows = [{"key": {"loss": loss, "seed": seed, "images": 3000, "epochs": 10}, **scores, "n": 1500, "baseline": 0.19,
             "half": scores} for loss in ("bce", "asymmetric") for seed in range(2)]  # fmt: skip
    machine = {"cpu": "a", "cores": 2, "packages": {"torch": "2"}, "when": "2026-01-01T00:00"}
    text = table({"rows": rows, "machines": [machine]})
    assert "| `bce` | 50.0 ± 0.0 | 40.0 ± 0.0" in text and "over 2 seed(s)" in text and "19.0 %" in text
