"""Deep embedded validation (DEV), as a candidate for choosing a method without the target's labels.

You et al. 2019, "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation": the loss on source images
that were not trained on, each weighted by how much likelier its features are in the target, with a control variate.
zoo does not choose by it; what it would have chosen is measured beside the validators that zoo has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

import zoo
from zoo import data
from zoo.data import Part
from zoo.events import ignore
from zoo.runs.prepare import prepare
from zoo.training.norms.reestimate import features

MOST = 2000  # images of each part: enough to tell two domains apart
REGULARISATIONS = (1e-4, 1e-2, 1.0)  # the one whose probabilities are best in cross-validation
LIMITS = (1e-6, 1 - 1e-6)  # of the probability that an image is of the source: nothing is divided by 0


def deviation(run: zoo.Run, backbone: str, dataset: Path, recipe: zoo.Recipe) -> float:
    """The estimated loss on the target of a finished run, nats; lower is better."""
    ready = prepare(backbone, str(dataset), recipe, ignore)
    assert ready.loaded.unlabelled is not None
    model: Any = zoo.load(run)

    def found(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        batches = data.eval_batches(
            part.some(_spread(len(part))), config=ready.loaded.config, batch_size=ready.work.settled.batch
        )
        return features(model, batches, ready.loaded.accelerator)

    (source, _), (target, _), (held_out, labels) = map(
        found, (ready.loaded.dataset.train, ready.loaded.unlabelled.train, ready.loaded.dataset.val)
    )
    with torch.inference_mode():
        losses = functional.cross_entropy(model.get_classifier()(held_out), labels, reduction="none")
    return estimate(losses.double().numpy(), weights(source.numpy(), target.numpy(), held_out.numpy()))


def weights(source: Any, target: Any, held_out: Any) -> Any:
    """How much likelier features are in the target than in the source: (M,) for (N, D), (K, D) and (M, D)."""
    told = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=REGULARISATIONS,
            l1_ratios=(0,),
            cv=StratifiedKFold(5, shuffle=True, random_state=0),  # images come in the order of their classes
            scoring="neg_log_loss",
            use_legacy_attributes=False,
            max_iter=1000,
        ),
    )
    told.fit(np.concatenate([source, target]), np.repeat([0, 1], [len(source), len(target)]))
    of_source = np.clip(told.predict_proba(held_out)[:, 0], *LIMITS)
    return len(source) / len(target) * (1 - of_source) / of_source


def estimate(losses: Any, weighted_by: Any) -> float:
    """The weighted mean loss, with the weights, whose mean should be 1, as the control variate."""
    weighted = losses * weighted_by
    variance = np.var(weighted_by, ddof=1)
    slope = -np.cov(weighted, weighted_by, ddof=1)[0, 1] / variance if variance > 0 else 0.0
    return float(weighted.mean() + slope * (weighted_by.mean() - 1))


def _spread(count: int) -> list[int]:
    """Places at equal distances, for images are in the order of their classes."""
    return [int(place) for place in np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))]
