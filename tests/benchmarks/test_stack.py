"""What the measurement of `zoo stack` says, on made-up results."""

from __future__ import annotations

from benchmarks import stack

MACHINE = {"cpu": "a cpu", "cores": 2, "packages": {"torch": "2.0"}, "when": "2026-01-02T03:04:05"}


def row(seed: int, of: str, way: str, accuracy: float, kept: float | None = None) -> dict:
    return {"seed": seed, "of": of, "way": way, "accuracy": accuracy, "loss": 1.25, "ece": 0.04, "kept": kept}


def test_differences_are_paired_by_seed():
    rows = [row(0, "stack", "best single member", 0.50), row(1, "stack", "best single member", 0.60),
            row(0, "stack", "mean", 0.52), row(1, "stack", "mean", 0.63),
            row(0, "nano", "plain", 0.5), row(0, "nano", "--soup", 0.5, 3), row(1, "nano", "plain", 0.4),
            row(1, "nano", "--soup", 0.39, 1)]  # fmt: skip
    text = stack.table({"machines": [MACHINE], "per_class": 100, "rows": rows})
    assert "100 labels per class, 2 seeds" in text
    lines = text.splitlines()
    # 2 and 3 points: mean 2.5, standard error 0.5, Student's t with one degree of freedom 12.7.
    assert "| mean | 57.5 | +2.5 ± 6.4 | 1.250 | 4.0 | - | 2 |" in lines
    assert "| best single member | 55.0 | - | 1.250 | 4.0 | - | 2 |" in lines
    assert "| --soup | 44.5 | -0.5 ± 6.4 | 1.250 | 4.0 | 3, 1 | 2 |" in lines
    assert lines.index("`nano`:") > lines.index("| mean | 57.5 | +2.5 ± 6.4 | 1.250 | 4.0 | - | 2 |")


def test_rows_are_named_alike_for_every_seed():
    facts = {"best_single": "resnet18_plain"}
    rows = (("resnet18_plain", False), ("resnet_nano_plain", False), ("gated", True), ("mean", False))
    names = [stack._names({"name": name, "chosen": chosen}, facts) for name, chosen in rows]
    assert names == [["best single member", "resnet18"], ["resnet_nano"], ["the way chosen", "gated"], ["mean"]]
