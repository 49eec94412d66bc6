from __future__ import annotations

from typing import Any

from benchmarks import few


def test_smaller_batches_are_compared_seed_by_seed(monkeypatch) -> None:
    monkeypatch.setattr(few, "machine_line", lambda *machines: "On a machine.")
    key = dict(zip(few.KEY, few.CASES[0], strict=True))
    found = {(32, 0): 0.2, (32, 1): 0.4, (8, 0): 0.3, (8, 1): 0.5, (16, 0): 0.9}
    rows: list[dict[str, Any]] = [{"key": {**key, "seed": seed, "batch": size}, "accuracy": accuracy}
                                  for (size, seed), accuracy in found.items()]  # fmt: skip
    text = few.table({"rows": rows, "machines": [{}], "sizes": [32, 16, 8]})
    assert "batches of 32, %" in text and "of 8: difference, points" in text
    assert "| 5 | 30.0 | 70.0 | 10.0 ± 0.0 |" in text, "of one seed no interval is known"
    assert len(text.splitlines()) == 5, "a case that was not run has no row"
