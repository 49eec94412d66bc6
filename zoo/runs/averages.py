"""After training: the average of a run's own weights that it asks for, chosen on the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from zoo.events import Note, Progress
from zoo.tasks.scoring import scores_of
from zoo.training.averaging import SHARES, Ingredient, State, greedy, wise_ft
from zoo.training.collect import collect
from zoo.training.loaded import Loaded, Work
from zoo.training.state.position import START_FILE, epoch_file
from zoo.training.state.session import Session


def averaged(loaded: Loaded, work: Work, session: Session) -> dict[str, Any]:
    """Put the average into the model, which holds the best weights, and say how it was chosen.

    A soup comes first, and is then the end that wise averages with the start.

    Args:
        loaded: What was trained.
        work: How.
        session: Where training ended; it knows the weights that were kept.

    Returns:
        `soup` and `wise` for the record, where they were asked for.
    """
    recipe, position, model = work.settled, session.position, loaded.model
    found: dict[str, Any] = {}
    if recipe.soup and position.epochs_kept:
        tried = 2 * len(position.epochs_kept) - 1
        judge = _Judge(loaded, work, session, "trying soups", tried)
        soup = greedy([_epoch(entry, session) for entry in position.epochs_kept], judge.score, recipe.select_by)
        model.load_state_dict(soup.state)
        found["soup"] = {"select_by": recipe.select_by, "kept": soup.kept, **soup.scores, "candidates": [*soup.rows]}
        if soup.kept == 1:
            session.emit(Note("soup: no average is better than the best epoch alone, which is kept"))
    if recipe.wise is not None and position.start is not None:
        tried = len(SHARES) if recipe.wise == "sweep" else 3
        judge = _Judge(loaded, work, session, "trying averages with the start", tried)
        start, end = session.read_weights(START_FILE), _state(model)
        after = position.start["after"]
        # A head that nobody had trained yet would only add noise.
        keep = loaded.groups[-1].parameters + loaded.groups[-1].buffers if after is None else ()
        line = wise_ft(start, end, recipe.wise, judge.score, recipe.select_by, keep)
        model.load_state_dict(line.state)
        found["wise"] = {
            "alpha": line.share,
            "asked": recipe.wise,
            "start": "pretrained weights" if after is None else f"end of {after}",
            "select_by": recipe.select_by,
            "candidates": [*line.rows],
        }
        if recipe.wise == "sweep" and line.share == 1:
            session.emit(Note("wise: no average with the start is better than the end, which is kept"))
    return found


def _epoch(entry: Mapping[str, Any], session: Session) -> Ingredient:
    facts = {name: entry[name] for name in ("phase", "epoch", "step")}
    return Ingredient(facts, lambda: session.read_weights(epoch_file(entry["step"])))


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


class _Judge:
    """Says what the validation images think of weights; the model holds the last ones that it was asked about."""

    def __init__(self, loaded: Loaded, work: Work, session: Session, stage: str, total: int) -> None:
        self._loaded, self._work, self._session, self._stage = loaded, work, session, stage
        self._total, self._done = total, 0

    def score(self, state: State) -> dict[str, float]:
        """What epochs are chosen by, on the validation images, in the precision of the run."""
        model = self._loaded.model
        self._session.emit(Progress(self._stage, self._done, self._total))
        model.load_state_dict(state)
        outputs = collect(model, self._work.val_loader, self._loaded.accelerator, mixed=True)
        self._done += 1
        self._session.emit(Progress(self._stage, self._done, self._total))
        return scores_of(self._loaded.dataset.tasks)(outputs)
