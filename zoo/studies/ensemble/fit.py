"""Fitting of the combiners by cross-validation, on images that no member was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from zoo.runs.stacked.combine import KINDS, Combiner, MemberOutputs, Tensors, calibrated, raw_logs
from zoo.training.seeds import derive

FOLDS = 5
# Strengths of the penalty on fitted parameters, in images' worth of loss for a squared norm of 1, descending.
STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
COMPONENTS = 64  # at most, of the members' features that a gate uses
_ITERATIONS = 200
Fold = tuple[torch.Tensor, torch.Tensor]  # rows to fit on, rows to validate on
Shapes = dict[str, tuple[int, ...]]
_COLDEST, _HOTTEST = math.log(0.05), math.log(20.0)


@dataclass(frozen=True, slots=True)
class Fitted:
    """One way of combining, with its cross-validation results."""

    combiner: Combiner  # fitted on all images, with its temperature
    strength: float | None  # of the penalty; None: only the temperature is fitted
    losses: torch.Tensor  # (N,): of each image, by a combiner that was not fitted on it, at the temperature
    accuracy: float  # of the same, 0 to 1

    @property
    def loss(self) -> float:
        """Mean cross-entropy in cross-validation, nats."""
        return float(self.losses.mean())

    def record(self) -> dict[str, Any]:
        """Plain values."""
        own = {"accuracy": self.accuracy, "loss": self.loss, "strength": self.strength}
        return {"kind": self.combiner.kind, **own, "temperature": self.combiner.temperature}


def fitted(
    predictions: MemberOutputs, kinds: Sequence[str], seed: int, check: Callable[[str], None] = lambda kind: None
) -> list[Fitted]:
    """Fit the ways of combining in `kinds` to predictions on held-out images; `check` gets each way first.

    Members are calibrated (temperature scaling, Guo et al. 2017). The strength of a way's penalty is that of the least
    loss in cross-validation, and its own temperature is fitted to the out-of-fold predictions.
    """
    from sklearn.model_selection import StratifiedKFold  # takes seconds to import

    best = [best_temperature(logs, predictions.labels) for logs in predictions.logs]
    temperatures = torch.tensor(best, dtype=torch.float64)
    own = replace(predictions, logs=calibrated(predictions.logs, temperatures))
    smallest = int(torch.bincount(predictions.labels).clamp(min=1).min())
    splitter = StratifiedKFold(max(2, min(FOLDS, smallest)), shuffle=True, random_state=derive(seed, "stack") % 2**32)
    folds = [
        (torch.as_tensor(fit_on), torch.as_tensor(held_out))
        for fit_on, held_out in splitter.split(np.zeros(len(own.labels)), own.labels.numpy())
    ]
    ways = []
    for kind in kinds:
        check(kind)
        fixed, shapes = _parameters(kind, own)
        strength, logs = _cross_validated(kind, own, folds, fixed, shapes)
        temperature = best_temperature(logs, own.labels)
        held = (logs / temperature).log_softmax(1)  # out of fold, (N, classes)
        free = _fit(kind, own, strength, fixed, shapes) if shapes else {}
        combiner = Combiner(kind, {"members": temperatures, **fixed, **free}, temperature)
        losses = functional.cross_entropy(held, own.labels, reduction="none")
        ways.append(Fitted(combiner, strength, losses, float((held.argmax(1) == own.labels).double().mean())))
    return ways


def chosen_of(found: Sequence[Fitted]) -> Fitted:
    """The simplest way whose cross-validation loss no other beats by more than a standard error of the difference.

    (Rule of Breiman et al. 1984.) There always is one: that with the lowest loss.
    """
    order = sorted(found, key=lambda each: KINDS.index(each.combiner.kind))
    return next(each for each in order if not any(_beats(other, each) for other in order))


def _beats(one: Fitted, other: Fitted) -> bool:
    gain = other.losses - one.losses
    return float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain))


def best_temperature(logs: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature of the least loss (Guo et al. 2017), within 0.05 and 20."""
    from scipy import optimize  # slow to import, and adapting does not need it

    def loss(value: float) -> float:
        return float(functional.cross_entropy(logs / math.exp(value), labels))

    return math.exp(optimize.minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded").x)


def _cross_validated(
    kind: str, predictions: MemberOutputs, folds: Sequence[Fold], fixed: Tensors, shapes: Shapes
) -> tuple[float | None, torch.Tensor]:
    """The best strength, and the out-of-fold predictions at it, (N, classes)."""
    if not shapes:
        return None, raw_logs(kind, fixed, predictions.logs, predictions.features)
    tried: list[tuple[float, float, torch.Tensor]] = []
    starts: list[Tensors | None] = [None] * len(folds)
    for strength in STRENGTHS:
        logs = torch.empty_like(predictions.logs[0])
        for number, (fit_on, held_out) in enumerate(folds):
            # A weaker penalty's solution is near a stronger one's.
            starts[number] = free = _fit(kind, predictions.some(fit_on), strength, fixed, shapes, starts[number])
            about = predictions.some(held_out)
            logs[held_out] = raw_logs(kind, fixed | free, about.logs, about.features)
        tried.append((float(functional.cross_entropy(logs, predictions.labels)), strength, logs))
        if len(tried) > 2 and tried[-1][0] > tried[-2][0] > tried[-3][0]:
            break  # it only gets worse from here
    _, best, logs = min(tried, key=lambda each: each[0])
    return best, logs


def _fit(
    kind: str,
    predictions: MemberOutputs,
    strength: float | None,
    fixed: Tensors,
    shapes: Shapes,
    start: Tensors | None = None,
) -> Tensors:
    """Fit the free parameters. The penalty pulls towards equal weights; for `logistic`, to the geometric mean.

    The combination's temperature is fitted too, and discarded for its own fit later: otherwise a mixture, which is
    underconfident, would rely on the most confident member alone.
    """
    from scipy import optimize

    sizes = [math.prod(shape) for shape in shapes.values()]
    weight = (strength or 0.0) / len(predictions.labels)

    def named(flat: torch.Tensor) -> Tensors:
        parts = zip(shapes.items(), torch.split(flat, sizes), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in parts}

    def objective(values: Any) -> tuple[float, Any]:
        flat = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        logs = raw_logs(kind, fixed | named(flat[:-1]), predictions.logs, predictions.features) / flat[-1].exp()
        loss = functional.cross_entropy(logs, predictions.labels) + weight * flat[:-1].square().sum()
        (gradient,) = torch.autograd.grad(loss, flat)
        return float(loss.detach()), gradient.numpy()

    first = np.zeros(sum(sizes) + 1)
    if start is not None:
        first[:-1] = torch.cat([start[name].flatten() for name in shapes]).numpy()
    done = optimize.minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    return named(torch.as_tensor(done.x[:-1], dtype=torch.float64))


def _parameters(kind: str, predictions: MemberOutputs) -> tuple[Tensors, Shapes]:
    """The fixed parameters, and the shapes of the fitted ones."""
    members, _, classes = predictions.logs.shape
    if kind == "mean":
        return {}, {}
    if kind == "weighted":
        return {}, {"weights": (members,)}
    if kind == "logistic":
        return {}, {"matrix": (members, classes, classes), "bias": (classes,)}
    whole = torch.cat([each.double() for each in predictions.features], dim=1)
    centre, spread = whole.mean(0), whole.std(0)
    scaled = torch.where(spread > 0, (whole - centre) / spread.clamp(min=1e-12), 0.0)
    _, sizes, directions = torch.linalg.svd(scaled, full_matrices=False)
    count = min(COMPONENTS, int((sizes > 1e-9 * sizes[0]).sum()))
    # An image's components are scaled to a length of about 1, whatever their number, so that one penalty fits all.
    scale = math.sqrt(len(whole)) / sizes[:count].norm()
    basis = torch.where(spread > 0, 1 / spread.clamp(min=1e-12), 0.0)[:, None] * directions[:count].T * scale
    return {"centre": centre, "basis": basis}, {"gate": (count, members), "bias": (members,)}
