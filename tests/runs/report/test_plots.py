from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest

from zoo.runs.report import plots
from zoo.runs.report.tables import History, aggregate


def test_colours_come_from_the_page() -> None:
    history = History(
        steps=[(step, 2.0 / step) for step in range(1, 50)],
        rates={"stem": [(1, 1e-4), (2, 2e-4)], "head": [(1, 1e-3), (2, 2e-3)]},
        epochs=[{"phase": "p", "epoch": 1, "step": 49, "val_loss": 0.4, "val_accuracy": 1.0}],
        spans=[("p", 1, 49)],
    )
    drawn = [
        plots.loss_curve(history),
        plots.accuracy_curve(history, {"phase": "p", "epoch": 1}),
        plots.rate_curve(history, ["stem", "head"]),
        plots.reliability([{"lower": 0.5, "upper": 1, "n": 3, "confidence": 0.8, "accuracy": 0.6}]),
        plots.rate_test({"lr": [1e-4, 1e-3], "loss": [1.0, 0.5], "chosen": 1e-3}),
    ]
    for svg in drawn:
        assert "#0101" not in svg and "#0102" not in svg and "var(--grid)" in svg
        assert svg.startswith("<svg") and "xmlns" not in svg
    assert "color-mix(in oklab, var(--head) 0%, var(--early))" in drawn[2]
    assert "color-mix(in oklab, var(--head) 100%, var(--early))" in drawn[2]


def test_what_is_no_share_has_no_per_cent() -> None:
    epochs = [{"phase": "p", "epoch": number, "step": number, "values": {"score": 0.5 + 0.1 * number}}
              for number in (1, 2)]  # fmt: skip
    best = {"phase": "p", "epoch": 2}
    drawn = plots.accuracy_curve(History(epochs=epochs, spans=[("p", 1, 2)]), best)
    assert "kept: 0.700" in drawn and "%</text>" not in drawn and "mean score" in drawn
    shares = [{**each, "values": {"map": each["values"]["score"]}} for each in epochs]
    assert "kept: 70.0%" in plots.accuracy_curve(History(epochs=shares, spans=[("p", 1, 2)]), best)


def test_application_settings_and_pyplot_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    plots.confusion_map(np.eye(30, dtype=int))
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize("frozen", [1, 40])
def test_a_frozen_phase_is_a_gap_not_a_line(frozen: int) -> None:
    last = 20 + frozen
    spans = [("early", 1, 20), ("frozen", 21, last), ("late", last + 1, last + 20)]
    trained = History(
        rates={"g": [(step, 0.1) for _, first, end in spans[::2] for step in range(first, end + 1)]}, spans=spans
    )
    single = History(rates={"g": [(step, 0.1) for step in range(1, 80)]}, spans=[("a", 1, 79)])
    line = "color-mix(in oklab, var(--head) 0%, var(--early))"

    def strokes(history: History) -> int:
        svg = plots.rate_curve(history, ["g"])
        (path,) = [part for part in svg.split("<path")[1:] if line in part]
        return path.count("M ")

    assert strokes(single) == 1
    assert strokes(trained) == 2


def test_losses_of_two_phases_are_neither_joined_nor_averaged_together() -> None:
    spans = [("finetune", 1, 50), ("refit finetune", 51, 100)]
    svg = plots.loss_curve(History(steps=list(enumerate([1.0] * 50 + [3.0] * 50, 1)), spans=spans))
    (path,) = [part.split('"')[1] for part in svg.split("<path")[1:] if "stroke-width: 1.7" in part]
    strokes = [{point.split()[1] for point in stroke.split("L ")} for stroke in path.split("M ")[1:]]
    assert [len(heights) for heights in strokes] == [1, 1]  # flat, each at its own height
    assert strokes[0] != strokes[1]
    logged = History(parts={"sure": [(step, float(step > 50)) for step in range(1, 101)]}, spans=spans)
    plot = plots.parts_plot(logged, ["sure"], "share", "sure")
    (path,) = [part.split('"')[1] for part in plot.split("<path")[1:]
               if "stroke-width: 1.5" in part]  # fmt: skip
    assert [len({point.split()[1] for point in stroke.split("L ")}) for stroke in path.split("M ")[1:]] == [1, 1]


@pytest.mark.parametrize("cells", [1, 7, 60])
def test_aggregate_keeps_each_rows_share(cells: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (50, 50))
    shares = aggregate(matrix, cells)
    assert shares.shape == (min(cells, 50),) * 2
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_aggregate_by_hand() -> None:
    matrix = np.array([[4, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(aggregate(matrix, 2), [[7 / 8, 1 / 8], [0, 0]])
