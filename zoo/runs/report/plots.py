"""Plots as inline SVG in the page's colours, light or dark.

Matplotlib draws with stand-in colours, which then become CSS variables. Only `Figure` objects are used: the global
state of pyplot may belong to an application.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from zoo.base.text import rate
from zoo.base.untrusted import is_finite
from zoo.runs.report.tables import History, aggregate, epoch_score
from zoo.tasks.schema import is_share

# Stand-in colour -> CSS value; the page defines the variables for light, dark and print.
_COLOURS = {
    "#010101": "var(--ink)",
    "#010102": "var(--muted)",
    "#010103": "var(--grid)",
    "#010104": "var(--accent)",
    "#010105": "var(--warm)",
    "#010106": "var(--good)",
}
INK, MUTED, GRID, ACCENT, WARM, GOOD = _COLOURS
COLOURS = (ACCENT, WARM, GOOD, INK)  # distinct ones, for lines
_HEATMAP = (0.22, 0.47, 0.90)  # drawn with transparency over the page's own background
_MAX_POINTS = 500  # per line; more are not visible at this size

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8,
}


def shades(count: int) -> list[str]:
    """Stand-in colours for `task_sections.shades`."""
    return [f"#0102{round(100 * place / max(1, count - 1)):02x}" for place in range(count)]


def loss_curve(history: History) -> str:
    """Training loss per step, smoothed and raw, and validation loss per epoch (nats)."""
    with canvas("loss", "Training and validation loss over the steps", (5.4, 2.9)) as (figure, finish):
        axes = figure.add_subplot()
        top = 0.0
        if history.steps:
            steps, losses = np.asarray(history.steps, dtype=float).T
            smooth = smoothed(steps, losses, history)
            axes.plot(*line(steps, losses, history), color=ACCENT, alpha=0.22, linewidth=0.8)
            axes.plot(*line(steps, smooth, history), color=ACCENT, linewidth=1.7)
            top = max(float(np.max(smooth)), float(np.percentile(losses, 98)))
        points = [(int(event["step"]), float(event["val_loss"])) for event in history.epochs
                  if is_finite(event.get("val_loss"))]  # fmt: skip
        if points:
            axes.plot(*zip(*points, strict=True), color=WARM, linewidth=1.5, marker="o", markersize=3.2)
            top = max(top, *(value for _, value in points))
        if top > 0:
            axes.set_ylim(0, top * 1.12)
        steps_axis(axes, history)
        axes.set_ylabel("loss (nats)")
        return finish()


def accuracy_curve(history: History, best: Mapping[str, Any]) -> str:
    """The main measure (usually accuracy) on the validation images per epoch, with the best epoch ringed."""
    measured = [(event, *epoch_score(event)) for event in history.epochs]
    what = measured[0][1] if measured else "accuracy"
    with canvas("accuracy", f"Validation {what} after each epoch", (5.4, 2.9)) as (figure, finish):
        axes = figure.add_subplot()
        share = is_share(what)
        unit = 100 if share else 1
        points = [(int(event["step"]), unit * value) for event, _, value in measured if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=GOOD, linewidth=1.7, marker="o", markersize=3.2)
            low, high = min(value for _, value in points), max(value for _, value in points)
            room = max(0.01 * unit, 0.15 * (high - low))
            axes.set_ylim(max(0.0, low - room), min(1.01 * unit, high + 2 * room))
        for event, _, score in measured:
            is_best = (event.get("phase"), event.get("epoch")) == (best.get("phase"), best.get("epoch"))
            if is_best and score is not None:
                value = unit * score
                axes.plot([event["step"]], [value], marker="o", markersize=9, color=INK, fillstyle="none", linewidth=0)
                text = f"kept: {value:.1f}%" if share else f"kept: {value:.3f}"
                axes.annotate(text, (event["step"], value), xytext=(-7, 8), ha="right",
                              textcoords="offset points", color=INK, fontsize=8.5)  # fmt: skip
        steps_axis(axes, history)
        if share:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.set_ylabel(what)
        return finish()


def rate_curve(history: History, groups: Sequence[str]) -> str:
    """The learning rate of each layer group over the steps, with gaps while it is frozen."""
    with canvas("rates", "Learning rate of each layer group over the steps", (11.2, 2.7)) as (figure, finish):
        axes = figure.add_subplot()
        for group, shade in zip(groups, shades(len(groups)), strict=True):
            points = [(step, value) for step, value in history.rates.get(group, ()) if value > 0]
            if points:
                steps, values = np.asarray(points, dtype=float).T
                axes.plot(*line(steps, values, history), color=shade, linewidth=1.8)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
        axes.tick_params(axis="y", which="minor", left=False, labelleft=False)
        steps_axis(axes, history)
        axes.set_ylabel("learning rate")
        return finish()


def rate_test(finder: Mapping[str, Any]) -> str:
    """The learning-rate range test: loss against rate, with the chosen rate."""
    with canvas("finder", "Learning-rate range test", (5.4, 2.7)) as (figure, finish):
        axes = figure.add_subplot()
        pairs = [(x, y) for x, y in zip(finder.get("lr") or (), finder.get("loss") or (), strict=False)
                 if is_finite(x) and is_finite(y) and x > 0]  # fmt: skip
        if pairs:
            rates, losses = np.asarray(pairs, dtype=float).T
            smooth = _averaged(losses)
            axes.plot(rates, smooth, color=ACCENT, linewidth=1.8)
            axes.set_ylim(float(smooth.min()) * 0.9, max(2 * float(smooth[0]) - float(smooth.min()), float(smooth[0])))
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
        if is_finite(finder.get("chosen")):
            chosen = float(finder["chosen"])
            axes.axvline(chosen, color=WARM, linewidth=1.4)
            axes.annotate(f" chosen: {rate(chosen)}", (chosen, 0.96), xycoords=("data", "axes fraction"), color=INK,
                          va="top", fontsize=8.5)  # fmt: skip
        axes.set_xlabel("learning rate of the head")
        axes.set_ylabel("loss (nats)")
        return finish()


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Reliability diagram: accuracy against confidence, and the number of images in each bin."""
    with canvas("calibration", "Reliability diagram: accuracy against confidence", (5.4, 4.2)) as (figure, finish):
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, 1], "hspace": 0.12})
        filled = [entry for entry in bins if entry.get("n")]
        lefts = [100 * entry["lower"] for entry in filled]
        widths = [100 * (entry["upper"] - entry["lower"]) * 0.9 for entry in filled]
        right = [100 * entry["accuracy"] for entry in filled]
        sure = [100 * entry["confidence"] for entry in filled]
        upper.bar(lefts, np.minimum(right, sure), widths, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
        gaps = np.subtract(sure, right)
        tops = [WARM if gap > 0 else GOOD for gap in gaps]
        upper.bar(lefts, abs(gaps), widths, bottom=np.minimum(right, sure), align="edge", color=tops, alpha=0.5,
                  linewidth=0)  # fmt: skip
        upper.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        upper.set(xlim=(0, 100), ylim=(0, 100), ylabel="share that is right")
        lower.bar(lefts, [entry["n"] for entry in filled], widths, align="edge", color=MUTED, alpha=0.6, linewidth=0)
        lower.set(xlabel="confidence", ylabel="images")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        as_percent = FuncFormatter(lambda value, _: f"{value:g}%")
        upper.yaxis.set_major_formatter(as_percent)
        lower.xaxis.set_major_formatter(as_percent)
        figure.align_ylabels()
        return finish()


def confusion_map(matrix: np.ndarray[Any, Any]) -> str:
    """A confusion matrix of many classes, with neighbouring classes merged into at most 60 blocks."""
    with canvas("confusion", "Confusion matrix, neighbouring classes merged", (5.2, 5.0)) as (figure, finish):
        axes = figure.add_subplot()
        shares = aggregate(matrix, 60)
        picture = np.empty((*shares.shape, 4))
        picture[..., :3] = _HEATMAP
        # The square root makes rare errors visible next to a strong diagonal.
        picture[..., 3] = np.sqrt(shares)
        classes = len(matrix)
        axes.grid(False)
        axes.imshow(picture, extent=(0, classes, classes, 0), interpolation="nearest", aspect="equal")
        axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        return finish()


def member_weights(names: Sequence[str], weights: Sequence[float]) -> str:
    """The weight of each member of a stack, as bars."""
    with canvas("weights", "How much each member counts", (5.4, 0.7 + 0.32 * len(names))) as (figure, finish):
        axes = figure.add_subplot()
        places = range(len(names))
        axes.barh(places, weights, color=ACCENT, alpha=0.8, height=0.6, linewidth=0)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlim(min(0.0, *weights), max(*weights) * 1.18)
        for place, value in zip(places, weights, strict=True):
            axes.annotate(f"{value:.2f}", (max(value, 0.0), place), xytext=(4, 0), textcoords="offset points",
                          va="center", color=INK, fontsize=8.5)  # fmt: skip
        return finish()


def domain_plot(points: Mapping[str, Any], name: str) -> str:
    """The features of source and target images in their first two principal components."""
    with canvas(name, f"Features of both domains {name} training", (5.4, 3.6)) as (figure, finish):
        axes = figure.add_subplot()
        for domain, colour in (("source", ACCENT), ("target", WARM)):
            where = np.asarray([row for row in points.get(domain) or () if len(row) == 2], dtype=float).reshape(-1, 2)
            axes.plot(where[:, 0], where[:, 1], color=colour, marker="o", markersize=2.6, alpha=0.55, linewidth=0)
        axes.tick_params(labelbottom=False, labelleft=False)
        return finish()


def parts_plot(history: History, names: Sequence[str], label: str, name: str, colours: Sequence[str] = COLOURS) -> str:
    """Logged values of the objective over the steps, smoothed within each phase."""
    with canvas(name, f"{label} over the steps", (5.4, 2.9)) as (figure, finish):
        axes = figure.add_subplot()
        for part, colour in zip(names, colours, strict=False):
            steps, values = np.asarray(history.parts[part], dtype=float).T
            axes.plot(*line(steps, smoothed(steps, values, history), history), color=colour, linewidth=1.5)
        steps_axis(axes, history)
        axes.set_ylabel(label)
        return finish()


@contextmanager
def canvas(name: str, label: str, inches: tuple[float, float]) -> Iterator[tuple[Figure, Callable[[], str]]]:
    """A figure in the page's style, and a function that returns it as inline SVG."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about missing glyphs: the browser uses its own fonts
        figure = Figure(figsize=inches, layout="constrained")
        yield figure, lambda: _inline(figure, name, label)


def _inline(figure: Figure, name: str, label: str) -> str:
    """The figure as an `<svg>` element without namespaces, metadata or fixed size, its ids prefixed with `name`."""
    buffer = io.BytesIO()
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_facecolor("none")
    # Not `savefig`, which draws everything twice.
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        if "id" in attributes:
            attributes["id"] = f"{name}-{attributes['id']}"
        for key, value in attributes.items():
            if key == "href" and value.startswith("#"):
                attributes[key] = f"#{name}-{value[1:]}"
            elif "url(#" in value:
                attributes[key] = value.replace("url(#", f"url(#{name}-")
            elif key in ("style", "fill", "stroke"):
                attributes[key] = re.sub(r"#[0-9a-f]{6}\b", _css_colour, value)
        element.attrib.clear()
        element.attrib.update(attributes)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.attrib.update({"class": "plot", "role": "img", "aria-label": label})
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _css_colour(match: re.Match[str]) -> str:
    colour = match.group()
    if colour.startswith("#0102"):
        return f"color-mix(in oklab, var(--head) {int(colour[5:], 16)}%, var(--early))"
    return _COLOURS.get(colour, colour)


def steps_axis(axes: Axes, history: History) -> None:
    """Mark the phases on the axis of steps, and label it."""
    last = max((end for _, _, end in history.spans), default=1)
    axes.set_xlim(0, last * 1.01)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    for number, (phase, first, end) in enumerate(history.spans):
        if number % 2:
            axes.axvspan(first - 1, end, color=INK, alpha=0.045, linewidth=0)
        if number:
            axes.axvline(first - 1, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(phase, ((first - 1 + end) / 2, 1.015), xycoords=("data", "axes fraction"), ha="center",
                      color=MUTED, fontsize=8.5, annotation_clip=False)  # fmt: skip


def line(
    steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any], history: History
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """At most `_MAX_POINTS` of the points, evenly spaced, with a gap at the start of each phase."""
    if len(steps) > _MAX_POINTS:
        places = np.linspace(0, len(steps) - 1, _MAX_POINTS).astype(int)
        steps, values = steps[places], values[places]
    starts = _starts(steps, history)
    return np.insert(steps, starts, np.nan), np.insert(values, starts, np.nan)


def _starts(steps: np.ndarray[Any, Any], history: History) -> np.ndarray[Any, Any]:
    """The indices in ascending steps at which phases begin."""
    starts = np.unique(np.searchsorted(steps, [first for _, first, _ in history.spans]))
    return starts[starts < len(steps)]


def smoothed(steps: np.ndarray[Any, Any], values: np.ndarray[Any, Any], history: History) -> np.ndarray[Any, Any]:
    """The moving average within each phase."""
    return np.concatenate([_averaged(each) for each in np.split(values, _starts(steps, history)[1:])])


def _averaged(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Moving average over a window of 1/25 of the values, shorter at the ends."""
    reach = max(1, len(values) // 50)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(0, places - reach), np.minimum(len(values), places + reach + 1)
    averages: np.ndarray[Any, Any] = (sums[high] - sums[low]) / (high - low)
    return averages
