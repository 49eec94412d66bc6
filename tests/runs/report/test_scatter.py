from __future__ import annotations

import re

from zoo.runs.report.scatter import Point, cost_plot


def anchors(costs: dict[str, tuple[float, float]]) -> dict[str, str]:
    """On which side of its point each name of a plot stands: it starts there, or ends there."""
    points = [Point(name, cost, accuracy, (accuracy - 0.03, accuracy + 0.03), front=False)
              for name, (cost, accuracy) in costs.items()]  # fmt: skip
    drawn = cost_plot(points, "training time", "{:g} s".format, "training")
    return {name: side for side, name in re.findall(r"text-anchor: (start|end)[^>]*>(\w+)</text>", drawn)}


def test_names_stand_away_from_points_as_high() -> None:
    sides = anchors({"best": (58, 0.60), "left": (50, 0.401), "right": (60, 0.40), "alone": (54, 0.2)})
    assert sides == {"best": "start", "left": "end", "right": "start", "alone": "start"}


def test_names_at_the_ends_stand_inside() -> None:
    sides = anchors({"cheap": (1, 0.401), "middle": (10, 0.8), "dear": (100, 0.4)})
    assert sides["cheap"] == "start" and sides["dear"] == "end"
