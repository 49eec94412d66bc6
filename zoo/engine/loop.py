"""The training loop, on one page: phases, epochs, steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from zoo.data import Batch
from zoo.engine.events import EpochDone, PhaseStarted, StepDone
from zoo.engine.optim import make_optimizer, set_rates
from zoo.engine.randomness import seed_all
from zoo.engine.session import Session
from zoo.engine.source import Source
from zoo.errors import TrainingError
from zoo.groups import Freezer, Group
from zoo.planning import PhasePlan, Plan
from zoo.recipe import Recipe

Objective = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
EXPLODED = 1e4  # nats; guessing costs the logarithm of the number of classes, and no such network recovers
Sources = Callable[[PhasePlan, Session, Callable[[], None]], Source]  # the last raises when it is time to stop


@dataclass(frozen=True, slots=True)
class Job:
    """One training: what trains, on what, towards what."""

    model: nn.Module  # on the device
    groups: Sequence[Group]
    plan: Plan
    recipe: Recipe
    sources: Sources  # what each phase trains on
    objective: Objective
    accelerator: Accelerator
    sample_ids: Sequence[str]  # of the training images, to name the ones in a faulty batch


def train(job: Job, session: Session) -> None:
    """Run a plan from where the session stands, and leave the best weights in the model."""
    average = ModelEmaV3(job.model, decay=job.recipe.ema, use_warmup=True) if job.recipe.ema else None
    session.restore(job.model, average)
    while session.position.phase < len(job.plan.phases):
        run_phase(job, session, job.plan.phases[session.position.phase], average)
        session.position.next_phase()
    session.save_end()
    session.load_best(job.model)


def run_phase(job: Job, session: Session, phase: PhasePlan, average: ModelEmaV3 | None) -> None:
    """Run one phase with its own freezing, optimizer and schedule, from the session's position on."""
    at, accelerator = session.position, job.accelerator
    freezer = Freezer(job.model, job.groups, phase.frozen, phase.fixed_norm)
    optimizer = make_optimizer(job.recipe.optimizer, job.model, job.groups, phase)
    session.restore_optimizer(optimizer)
    source = job.sources(phase, session, partial(session.checkpoint, job.model, average, optimizer))
    model, optimizer = accelerator.prepare(source.network, optimizer)
    session.emit(PhaseStarted(phase.name, phase.epochs, phase.steps, at.phase_step))

    while at.epoch <= phase.epochs and not (job.recipe.patience and at.stale >= job.recipe.patience):
        started = time.monotonic()
        freezer.train()
        batches = session.timed(source.epoch(at.epochs_seen, at.epoch_step * job.recipe.accumulate))
        while micro_batches := list(islice(batches, job.recipe.accumulate)):
            seed_all(job.recipe.seed, "step", at.step, accelerator.process_index)
            rates = set_rates(optimizer, phase, at.phase_step)
            loss = torch.zeros((), device=accelerator.device)
            for batch in micro_batches:
                images = batch.images.to(accelerator.device, non_blocking=True)
                part = job.objective(model, images, batch.labels.to(accelerator.device, non_blocking=True))
                accelerator.backward(part / len(micro_batches))
                loss += part.detach() / len(micro_batches)
            if job.recipe.clip:
                accelerator.clip_grad_norm_(job.model.parameters(), job.recipe.clip)
            value = float(accelerator.reduce(loss, "mean"))
            check_finite(value, job, session, phase, micro_batches)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            at.step, at.phase_step, at.epoch_step = at.step + 1, at.phase_step + 1, at.epoch_step + 1
            if average is not None:
                average.update(job.model, step=at.step)
            at.loss_sum += value
            session.log_step(StepDone(phase.name, at.epoch, at.step, value, rates))
            session.checkpoint(job.model, average, optimizer)

        finish_epoch(job, session, phase, source, average, time.monotonic() - started)
        session.checkpoint(job.model, average, optimizer)

    plain = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    # Or accelerate would take it for prepared, and the next phase would be without mixed precision.
    plain.__dict__.pop("_is_accelerate_prepared", None)
    accelerator.free_memory()


def finish_epoch(
    job: Job, session: Session, phase: PhasePlan, source: Source, average: ModelEmaV3 | None, seconds: float
) -> None:
    """Evaluate, keep the weights if they are the best so far, and move on to the next epoch."""
    at = session.position
    candidate = job.model if average is None else average.module
    scores = source.evaluate(candidate).scores()
    if not math.isfinite(scores["loss"]):
        raise TrainingError(
            f"the loss on the choosing images is {scores['loss']} after epoch {at.epoch} of phase {phase.name}",
            why=f"the rate may be too high (head: {phase.groups[-1].lr:g})",
            fix="try a tenth of the rate with --lr, or --precision fp32",
        )
    best = is_better(scores, at.best, job.recipe.select_by)
    if best:
        session.keep_best(candidate, {"phase": phase.name, "epoch": at.epoch, "step": at.step, **scores})
    # Patience goes by the phase's own best: unfreezing may cost at first what it wins back later.
    if has_improved(scores, at.phase_best, job.recipe.select_by):
        at.stale, at.phase_best = 0, scores
    else:
        at.stale += 1
    train_loss = at.loss_sum / max(1, at.epoch_step)
    session.log_epoch(
        EpochDone(
            phase.name, at.epoch, phase.epochs, train_loss, scores["loss"], scores["accuracy"], round(seconds, 3), best
        )
    )
    at.next_epoch()


def is_better(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether an epoch takes the place of the best one.

    Of epochs with equal accuracy the later one does: few images choose, so ties are common, and by then the rate has
    come down further.
    """
    if best is None:
        return True
    if select_by == "accuracy":
        return scores["accuracy"] >= best["accuracy"]
    return (-scores[select_by], scores["accuracy"]) >= (-best[select_by], best["accuracy"])


def has_improved(scores: dict[str, float], best: dict[str, float] | None, select_by: str) -> bool:
    """Whether patience starts anew: a tie in accuracy counts if the loss fell."""
    if best is None:
        return True
    by_accuracy = (scores["accuracy"], -scores["loss"]) > (best["accuracy"], -best["loss"])
    return by_accuracy if select_by == "accuracy" else scores[select_by] < best[select_by]


def check_finite(value: float, job: Job, session: Session, phase: PhasePlan, batches: Sequence[Batch]) -> None:
    """Stop before a loss that is not a number, or beyond all measure, spoils the weights.

    Raises:
        TrainingError: It names the step, and some of the images in it.
    """
    if abs(value) < EXPLODED:  # which NaN is not
        return
    ids = [job.sample_ids[index] for batch in batches for index in batch.indices.tolist()]
    raise TrainingError(
        f"the loss is {value} at step {session.position.step + 1} (phase {phase.name}); nothing was updated by it",
        why=f"the rate may be too high (head: {phase.groups[-1].lr:g}), or an image broken; in this step: "
        + ", ".join(ids[:8])
        + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
        fix="try a tenth of the rate with --lr, or --precision fp32",
    )
