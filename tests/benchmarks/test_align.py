from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import align, deviation, semi

MACHINE: dict[str, Any] = {"when": "2026-01-01T00:00:00", "cpu": "a processor", "cores": 2, "memory_gb": 8,
                           "versions": {}, "load": 0.0}  # fmt: skip


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (align, semi):
        monkeypatch.setattr(module, "machine_line", lambda *machines: "On a machine.")


def run(seed: int, target: float, information: float) -> dict[str, Any]:
    said = {"information": information, "entropy": 1.0 - information, "density": 1.0, "source accuracy": 0.9,
            "DEV": information}  # fmt: skip
    return {
        "key": {"seed": seed},
        "source": 0.9,
        "target": target,
        "chosen": target,
        "oracle": target + 0.01,
        "validators": said,
        "steps": 100,
    }


def test_differences_are_taken_seed_by_seed_and_what_hurts_is_said() -> None:
    rows = [
        {"pair": "A to B", "method": "none", "runs": [run(0, 0.5, 0.2), run(1, 0.7, 0.2), run(2, 0.1, 0.2)]},
        {"pair": "A to B", "method": "dann", "runs": [run(0, 0.6, 0.3), run(1, 0.8, 0.1)]},
        {"pair": "A to B", "method": "mcc", "runs": [run(0, 0.4, 0.9), run(1, 0.5, 0.9)]},
    ]
    text = align.table({"machines": [MACHINE], "backbone": "x", "epochs": 1, "limit": None, "rows": rows})
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "| 70.0 ± 127.1 | 10.0 ± 0.0 |" in lines["`dann`"], "two seeds that differ, each with the same gain"
    assert "means over 2 to 3 seeds" in text, "one that only some have is told, and taken for no difference"
    gained = {name: line.split("|")[3] for name, line in lines.items()}
    assert "(within noise)" in gained["`mcc`"] and "(within noise)" not in gained["`dann`"], "two seeds may differ so"
    assert "| 70.0 ± 127.1 | 71.0 ± 127.1 | 1.0 ± 0.0 |" in lines["`dann`"], "what choosing costs, on the same images"
    assert "at most of those trained on" in text and "2,000" in text
    assert "`daan` against" not in text
    assert "of all, information `mcc` (45.0 ± 63.5 %)" in text and "The best is `dann`." in text
    assert "of those that `auto` tries, information `dann`, `none` (65.0 ± 63.5 %)" in text
    assert "DEV `none`, `dann` (65.0 ± 190.6 %)" in text, "the lower the better"
    rows.append({"pair": "A to B", "method": "daan", "runs": [run(0, 0.62, 0.3), run(1, 0.82, 0.1)]})
    rows.append({"pair": "A to B", "method": "adabn", "runs": [run(seed, 0.4, 0.3) for seed in (0, 1, 2)]})
    for row in rows:
        for one in row["runs"]:
            one["key"]["method"] = row["method"]
    text = align.table({"machines": [MACHINE], "backbone": "x", "epochs": 1, "limit": None, "rows": rows})
    assert "`daan` against `dann`, seed by seed: 2.0 ± 0.0 points." in text
    (line,) = (line for line in text.splitlines() if line.startswith("| `adabn`"))
    assert "| - | - | - | 90.0 ± 0.0 | 0.0 ± 0.0 (within noise) |" in line, "its epochs were those of another network"
    assert align.interval([0.5]) == align.told([0.5]) == "50.0"
    assert align.told([-0.10, -0.11, -0.12]) == "-11.0 ± 2.5 (hurts)"
    assert align.told([-0.10, 0.05, 0.01]).endswith("(within noise)") and align.told([]) == "-"


def test_few_labels_are_compared_at_the_same_number_of_them() -> None:
    def runs(*accuracies: float) -> list[dict[str, Any]]:
        return [{"key": {"seed": seed}, "accuracy": accuracy, "steps": 10} for seed, accuracy in enumerate(accuracies)]

    rows = [
        {"per_class": 4, "method": "supervised", "runs": runs(0.2, 0.3)},
        {"per_class": 4, "method": "fixmatch", "runs": runs(0.4, 0.5)},
        {"per_class": 25, "method": "supervised", "runs": runs(0.6, 0.6)},
        {"per_class": 25, "method": "pseudo", "runs": runs(0.5, 0.5)},
    ]
    about = {"backbone": "x", "epochs": 1, "batch_size": 8, "ratio": 7, "threshold": 0.95, "archive": "a.zip"}
    text = semi.table({"machines": [MACHINE], **about, "rows": rows})
    assert "| 4 | `fixmatch` | 45.0 ± 63.5 | 20.0 ± 0.0 | 10 |" in text
    assert "| 25 | `pseudo` | 50.0 ± 0.0 | -10.0 ± 0.0 (hurts) | 10 |" in text


def test_the_loss_on_the_target_is_estimated_from_source_images_that_are_like_it() -> None:
    drawn = np.random.default_rng(0)
    source, target = drawn.normal(0.0, 1.0, (2000, 1)), drawn.normal(1.0, 1.0, (2000, 1))
    held_out = drawn.normal(0.0, 1.0, (2000, 1))
    by = deviation.weights(source, target, held_out)
    likelier = np.exp(held_out[:, 0] - 0.5)  # of one Gaussian over the other
    assert np.corrcoef(np.log(by), np.log(likelier))[0, 1] > 0.99
    assert by.mean() == pytest.approx(1.0, abs=0.15)
    # A loss that grows with what sets the domains apart: 0 on average in the source, 1 in the target.
    assert deviation.estimate(held_out[:, 0], by) == pytest.approx(1.0, abs=0.15)
    assert deviation.estimate(held_out[:, 0], np.ones(2000)) == pytest.approx(held_out.mean())
