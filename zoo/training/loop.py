"""The training loop, on one page: phases, epochs, steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from zoo.errors import TrainingError
from zoo.events import EpochDone, PhaseStarted
from zoo.models.freezing import hold
from zoo.models.layer_groups import Group
from zoo.recipes.plan import PhasePlan, Plan
from zoo.recipes.recipe import Recipe
from zoo.tasks.outputs import Scores
from zoo.training.async_losses import Losses, Step
from zoo.training.autotune.compile import compiled
from zoo.training.frozen_cache.phase_data import Source
from zoo.training.losses.objective import Joined, Objective
from zoo.training.norms.synchronised import synchronised
from zoo.training.optim import make_optimizer, set_rates
from zoo.training.seeds import seed_all
from zoo.training.selection import has_improved, is_better
from zoo.training.state.session import Session
from zoo.training.validators import VALIDATORS, with_target

PLAIN = ("accuracy", "loss", "refinement")  # with fields of their own in an epoch's line, or none


@dataclass(frozen=True, slots=True)
class Job:
    """One training: the model, its data and its objective."""

    model: nn.Module  # on the device
    groups: Sequence[Group]
    plan: Plan
    recipe: Recipe
    source: Callable[[PhasePlan, Session], Source]  # what a phase that begins trains on
    objective: Objective  # on the device
    accelerator: Accelerator
    scores: Scores  # computes the scores on the validation images, "loss" among them
    sample_ids: Sequence[str]  # of the training images, to name those in a faulty batch
    epochs: Mapping[str, int] | None = None  # of each phase, if fewer than the plan's
    judged: bool = True  # whether the best epoch is selected; otherwise the last one's weights are


def train(job: Job, session: Session, started: Callable[[int], None] = lambda step: None) -> None:
    """Run a plan from the session's position and load the best weights; `started` gets the last step done before it."""
    average = ModelEmaV3(job.model, decay=job.recipe.ema, use_warmup=True) if job.recipe.ema else None
    session.restore(job.model, average, job.objective)
    if session.position.phase < len(job.plan.phases):
        started(session.position.step)
    while session.position.phase < len(job.plan.phases):
        phase = job.plan.phases[session.position.phase]
        with synchronised(job.model, job.groups, phase, job.accelerator):
            run_phase(job, session, phase, average)
        session.position.next_phase()
    session.save_end()
    session.load_best(job.model)


def run_phase(job: Job, session: Session, phase: PhasePlan, average: ModelEmaV3 | None) -> None:
    """Run one phase from the session's position, with its own freezing, optimizer and schedule."""
    at, accelerator = session.position, job.accelerator
    if job.recipe.wise is not None and at.start is None and phase.trains_body:
        before = job.plan.phases[at.phase - 1].name if at.phase else None
        session.save_start(job.model if average is None else average.module, before)
    freezer = hold(job.model, job.groups, phase)
    job.objective.requires_grad_(phase.extra is not None)
    optimizer = make_optimizer(job.recipe.optimizer, job.model, job.groups, phase, job.objective)
    losses = Losses(accelerator, job.sample_ids)
    session.restore_optimizer(optimizer, losses.flush)
    source = job.source(phase, session)
    network = compiled(source.network) if phase.compiled else source.network
    joined, optimizer = accelerator.prepare(Joined(network, job.objective), optimizer)
    epochs = phase.epochs if job.epochs is None else job.epochs[phase.name]
    session.emit(PhaseStarted(phase.name, epochs, epochs * phase.steps_per_epoch, at.phase_step))

    while at.epoch <= epochs and not (job.recipe.patience and at.stale >= job.recipe.patience):
        started = time.monotonic()
        freezer.train()
        batches = source.epoch(at.epochs_seen, at.epoch_step * job.recipe.accumulate)
        while True:
            asked = time.perf_counter()
            micro_batches = list(islice(batches, job.recipe.accumulate))
            at.waited += time.perf_counter() - asked
            if not micro_batches:
                break
            at.images += sum(map(len, micro_batches))
            seed_all(job.recipe.seed, "step", at.step, accelerator.process_index)
            rates = set_rates(optimizer, phase, at.phase_step)
            values = torch.zeros((), device=accelerator.device)
            for number, batch in enumerate(micro_batches, 1):
                # Processes share their gradients once a step.
                with nullcontext() if number == len(micro_batches) else accelerator.no_sync(joined):
                    loss = joined(batch.to(accelerator.device), at.phase_step / phase.steps)
                    accelerator.backward(loss.total / len(micro_batches))
                values = values + loss.values / len(micro_batches)
            if job.recipe.clip:
                accelerator.clip_grad_norm_(job.model.parameters(), job.recipe.clip)
                if phase.extra:  # separately, so that its gradients do not shorten the network's
                    nn.utils.clip_grad_norm_(job.objective.parameters(), job.recipe.clip)
            positions = [batch.indices for batch in micro_batches]
            step = Step(phase, at.epoch, at.step + 1, rates, positions, tuple(loss.parts), tuple(loss.amounts))
            known = losses.add(step, accelerator.reduce(values, "mean"))  # raises if the loss is not finite
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            at.step, at.phase_step, at.epoch_step = at.step + 1, at.phase_step + 1, at.epoch_step + 1
            if average is not None:
                average.update(job.model, step=at.step - at.began)
            if known:
                session.log_steps(known)
                session.checkpoint()

        session.log_steps(losses.flush())
        is_last = at.epoch == epochs and phase is job.plan.phases[-1]
        finish_epoch(job, session, phase, source, average, time.monotonic() - started, is_last)
        session.checkpoint()
    accelerator.free_memory()


def finish_epoch(
    job: Job, session: Session, phase: PhasePlan, source: Source, average: ModelEmaV3 | None, seconds: float, last: bool
) -> None:
    """Evaluate, save the weights if they are the best so far (unjudged: the last), and move on to the next epoch."""
    at = session.position
    candidate = job.model if average is None else average.module
    at.done[phase.name] = at.epoch
    if not job.judged:
        if last:
            session.save_best(candidate, {"phase": phase.name, "epoch": at.epoch, "step": at.step})
        at.next_epoch()
        return
    outputs = source.evaluate(candidate)
    if outputs.target is not None:
        session.save_predictions(outputs.target)
    scores = with_target(job.scores(outputs), outputs)
    if not math.isfinite(scores["loss"]):
        raise TrainingError(
            f"the loss on the validation images is {scores['loss']} after epoch {at.epoch} of phase {phase.name}",
            why=f"the rate may be too high (head: {phase.groups[-1].lr:g})",
            fix="try a tenth of the rate with --lr, or --precision fp32",
        )
    best = phase.eligible and is_better(scores, at.best, job.recipe.select_by)
    facts = {"phase": phase.name, "epoch": at.epoch, "step": at.step, **scores}
    if best:
        session.save_best(candidate, facts)
    if job.recipe.soup and phase.eligible:
        session.save_epoch(candidate, facts, most=job.recipe.soup_keep, select_by=job.recipe.select_by)
    # Patience compares with the phase's own best: unfreezing may cost at first what it wins back later.
    if has_improved(scores, at.phase_best, job.recipe.select_by):
        at.stale, at.phase_best = 0, scores
    else:
        at.stale += 1
    losses, accuracy = (at.loss_sum / max(1, at.epoch_step), scores["loss"]), scores.get("accuracy")
    validators = {name: scores[name] for name in VALIDATORS if name in scores}
    values = {name: value for name, value in scores.items() if name not in (*PLAIN, *VALIDATORS)}
    seconds = round(seconds, 3)
    session.log_epoch(
        EpochDone(phase.name, at.epoch, phase.epochs, *losses, accuracy, seconds, best, validators, values)
    )
    at.next_epoch()
