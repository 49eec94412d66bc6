"""Weight averaging after training: soup of epochs, and WiSE-FT with the start, chosen on validation images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from zoo.events import Note, Progress
from zoo.tasks.scoring import scores_of
from zoo.training.averaging import SHARES, Ingredient, State, greedy, wise_ft
from zoo.training.collect import collect
from zoo.training.loaded import Loaded, Work
from zoo.training.state.position import START_FILE, epoch_file
from zoo.training.state.session import Session


def averaged(loaded: Loaded, work: Work, session: Session) -> dict[str, Any]:
    """Load the average into the model, which holds the best weights; returns `soup` and `wise` for the record.

    The soup comes first; WiSE-FT then averages it with the start.
    """
    recipe, position, model = work.settled, session.position, loaded.model
    facts: dict[str, Any] = {}
    if recipe.soup and position.epochs_kept:
        score = _scorer(loaded, work, session, "trying soups", 2 * len(position.epochs_kept) - 1)
        soup = greedy([_epoch(entry, session) for entry in position.epochs_kept], score, recipe.select_by)
        model.load_state_dict(soup.state)
        facts["soup"] = {"select_by": recipe.select_by, "kept": soup.kept, **soup.scores, "candidates": [*soup.rows]}
        if soup.kept == 1:
            session.emit(Note("soup: no average is better than the best epoch alone, which is kept"))
    if recipe.wise is not None and position.start is not None:
        total = len(SHARES) if recipe.wise == "sweep" else 3
        score = _scorer(loaded, work, session, "trying averages with the start", total)
        start = session.read_weights(START_FILE)
        end = {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        after = position.start["after"]
        # An untrained head would only add noise.
        keep = loaded.groups[-1].parameters + loaded.groups[-1].buffers if after is None else ()
        line = wise_ft(start, end, recipe.wise, score, recipe.select_by, keep)
        model.load_state_dict(line.state)
        facts["wise"] = {
            "alpha": line.share,
            "asked": recipe.wise,
            "start": "pretrained weights" if after is None else f"end of {after}",
            "select_by": recipe.select_by,
            "candidates": [*line.rows],
        }
        if recipe.wise == "sweep" and line.share == 1:
            session.emit(Note("wise: no average with the start is better than the end, which is kept"))
    return facts


def _epoch(entry: Mapping[str, Any], session: Session) -> Ingredient:
    facts = {name: entry[name] for name in ("phase", "epoch", "step")}
    return Ingredient(facts, lambda: session.read_weights(epoch_file(entry["step"])))


def _scorer(
    loaded: Loaded, work: Work, session: Session, stage: str, total: int
) -> Callable[[State], dict[str, float]]:
    """Scores weights on the validation images, in the run's precision; they stay in the model."""
    done = itertools.count()

    def score(state: State) -> dict[str, float]:
        before = next(done)
        session.emit(Progress(stage, before, total))
        loaded.model.load_state_dict(state)
        outputs = collect(loaded.model, work.val_loader, loaded.accelerator, mixed=True)
        session.emit(Progress(stage, before + 1, total))
        return scores_of(loaded.dataset.tasks)(outputs)

    return score
