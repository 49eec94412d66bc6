"""Transferability scores of frozen features, without training: LogME, H-score, nearest neighbours."""

from __future__ import annotations

import numpy as np

from zoo.training.probe import Floats, Labels

NEIGHBOURS = 5
_ROUNDS = 100  # at most, of LogME's fixed point, which takes about ten
_CLOSE = 1e-6  # relative change at which it has converged
_BLOCK = 1024  # images whose similarities are in memory at once


def log_me(features: Floats, labels: Labels) -> float:
    """LogME: the log of the maximum evidence of a linear model of each class's 0/1 labels (You et al., ICML 2021).

    For a class with labels y, weights w ~ N(0, 1/alpha) and noise 1/beta, the evidence p(y | F, alpha, beta) is
    maximised over alpha and beta by MacKay's fixed point. The score for features (N, D) and labels (N,) is its log in
    nats per image, averaged over classes; more is better.
    """
    values = features.astype(np.float64)
    count, width = values.shape
    left, singular, _ = np.linalg.svd(values, full_matrices=False)
    nonzero = singular > singular.max() * max(values.shape) * np.finfo(np.float64).eps
    squares = singular[nonzero] ** 2
    scores = []
    for label in np.unique(labels):
        target = (labels == label).astype(np.float64)
        along = (left[:, nonzero].T @ target) ** 2  # squared, in each direction of the features
        beyond = max(0.0, float(target @ target - along.sum()))  # squared, in none of them
        scores.append(_evidence(squares, along, beyond, count, width))
    return float(np.mean(scores))


def _evidence(squares: Floats, along: Floats, beyond: float, count: int, width: int) -> float:
    """Log of the largest evidence, per image (equations 2 and 3 of the paper, in the features' singular directions)."""
    tiny = np.finfo(np.float64).tiny ** 0.5
    alpha = beta = 1.0
    for _ in range(_ROUNDS):
        ratio = alpha / beta
        gamma = float((squares / (squares + ratio)).sum())
        size = float((squares * along / (squares + ratio) ** 2).sum())  # of the weights' mean, squared
        residual = float((along * (ratio / (squares + ratio)) ** 2).sum()) + beyond
        alpha = gamma / max(size, tiny)
        spare = count - len(squares) + float((ratio / (squares + ratio)).sum())  # count - gamma, without cancellation
        beta = spare / max(residual, tiny)
        if abs(alpha / beta - ratio) <= _CLOSE * ratio:
            break
    ratio = alpha / beta
    size = float((squares * along / (squares + ratio) ** 2).sum())
    residual = float((along * (ratio / (squares + ratio)) ** 2).sum()) + beyond
    determinant = float(np.log(alpha + beta * squares).sum()) + (width - len(squares)) * np.log(alpha)
    total = (
        width * np.log(alpha) + count * np.log(beta) - determinant - beta * residual - alpha * size
        - count * np.log(2 * np.pi)
    )  # fmt: skip
    return float(total) / 2 / count


def h_score(features: Floats, labels: Labels) -> float:
    """H-score: the share of the features' variance that lies between the classes, summed over whitened directions.

    tr(cov(f)^-1 cov(E[f | y])) for features (N, D) and labels (N,) (Bao et al., ICIP 2019); 0 to about K - 1, more is
    better. The covariance is shrunk as Ledoit and Wolf (2004) estimate, and the class means with it (Ibrahim et al.,
    NeurIPS 2021): otherwise its inverse means nothing if there are more features than images.
    """
    from sklearn.covariance import LedoitWolf  # takes seconds to import, and adapting does not need it

    values = features.astype(np.float64)
    values -= values.mean(0)
    fitted = LedoitWolf(assume_centered=True, store_precision=False).fit(values)
    present, places = np.unique(labels, return_inverse=True)
    means = np.stack([values[labels == label].mean(0) for label in present])
    weights = np.bincount(places) / len(values)
    # tr(C^-1 sum of w m m') is the sum of w m' C^-1 m: one solve for each class.
    solved = np.linalg.solve(fitted.covariance_, means.T).T
    return float((1 - fitted.shrinkage_) * (weights * (means * solved).sum(1)).sum())


def neighbours(features: Floats, labels: Labels, count: int = NEIGHBOURS) -> float:
    """Leave-one-out accuracy, 0 to 1, of k nearest neighbours by cosine similarity of features (N, D).

    Each neighbour votes with its similarity, so that there are no ties between classes.
    """
    values = features.astype(np.float32)
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    count = min(count, len(values) - 1)
    classes = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    right = 0
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        similarity = block @ values.T
        # An image is no neighbour of itself.
        similarity[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        weights = 1 + np.take_along_axis(similarity, nearest, axis=1)  # 0 (opposite) to 2
        votes = (weights[:, :, None] * classes[nearest]).sum(1)
        right += int((votes.argmax(1) == labels[start : start + len(block)]).sum())
    return right / len(values)
