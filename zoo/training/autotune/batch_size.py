"""Batch size: the largest that fits and pays off, by trying, and the default."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass

import torch
from accelerate.utils import gather_object

from zoo.errors import TrainingError
from zoo.models.freezing import hold
from zoo.recipes.plan import PhasePlan
from zoo.recipes.recipe import Recipe
from zoo.training.autotune.cost import extra_gradients, try_step
from zoo.training.loaded import Loaded
from zoo.training.memory import available_memory
from zoo.training.optim import make_optimizer

FIRST = 8  # images per process
LARGEST = 65_536  # images, as a recipe has it
STEPS = 8  # of an epoch that are left at least: with fewer there is little to learn from, however fast they are
GAIN = 1.05  # in images per second; twice the batch for less is not worth it
SHARE = 0.8  # of the free memory; the rest is for evaluation, loaded batches, and other programs
BESIDES = 1.5  # memory of a step, relative to what it holds for the backward pass
_QUICK = 0.5  # seconds; a step that is quicker is timed more than once


@dataclass(frozen=True, slots=True)
class FoundSize:
    """The result of the search."""

    size: int  # images, over all processes
    speeds: dict[int, float]  # images per second at each size that was tried, over all processes
    why: str  # why no larger one


def find_batch_size(
    loaded: Loaded, phase: PhasePlan, recipe: Recipe, *, backwards: int = 1, unlabelled_ratio: int = 0
) -> FoundSize:
    """Double the batch until it no longer fits, no longer pays, or leaves few steps; the model is left unchanged.

    If the first size does not fit, it is halved until one does. On a GPU a size that does not fit fails, and is given
    up. On the CPU the system would kill the process: there a size is tried only if the memory of smaller ones says that
    it fits. All processes get the same result. Sizes and speeds count labelled images; `unlabelled_ratio` is the number
    of unlabelled ones, all views counted, for each. Raises TrainingError if one image does not fit.
    """
    processes, training_images = loaded.accelerator.num_processes, len(loaded.dataset.train)
    trial = _Trial(loaded, phase, recipe, backwards, 1 + unlabelled_ratio)
    most = min(training_images // (STEPS * recipe.accumulate), LARGEST) // processes
    size, why = min(FIRST, max(1, training_images // processes)), f"larger ones leave under {STEPS} steps an epoch"
    best, speeds = 0, dict[int, float]()
    while True:
        speed = trial.speed(size)
        if speed is None:
            why = "the next one would not fit into memory"
            if best or size == 1:
                break
            size, most = size // 2, 0
            continue
        speeds[size * processes] = round(speed * processes, 1)
        if best and speed < GAIN * speeds[best * processes] / processes:
            why = "the next one brings less than 5 % more images per second"
            break
        best = size
        if 2 * size > most:
            break
        size *= 2
    if processes > 1:  # each has its own result
        best, why = min(gather_object([(best, why)]))
    if not best:
        raise TrainingError(
            "not even a batch of one image fits into memory", fix="use a smaller --image-size, or a smaller backbone"
        )
    return FoundSize(best * processes, speeds, why)


class _Trial:
    def __init__(self, loaded: Loaded, phase: PhasePlan, recipe: Recipe, backwards: int, each: int) -> None:
        self._model = model = copy.deepcopy(loaded.model)
        self._accelerator, self._input_size = loaded.accelerator, loaded.config.input_size
        self._backwards, self._each = backwards, each  # images of a step for each labelled one
        hold(model, loaded.groups, phase).train()
        self._optimizer = make_optimizer(recipe.optimizer, model, loaded.groups, phase)
        trained = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if tensor.requires_grad)
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        # Gradients and two moments; the best weights, and the average.
        self._fixed = (3 + extra_gradients(backwards)) * trained + (1 + bool(recipe.ema)) * weights
        self._per_image = 0.0

    def speed(self, size: int) -> float | None:
        """Images per second of this process; None if it does not fit."""
        cuda = self._accelerator.device.type == "cuda"
        try:
            if not self._seems_to_fit(size):
                return None
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            seconds, held = self._step(size)
            for _ in range(3 if seconds < _QUICK else 1):
                seconds = min(seconds, self._step(size)[0])
            self._per_image = held / size
            if cuda:
                free, total = torch.cuda.mem_get_info()
                others = total - free - torch.cuda.memory_reserved()
                if torch.cuda.max_memory_allocated() > 0.9 * (total - others):
                    return None
            return size / seconds
        except RuntimeError as error:  # torch.OutOfMemoryError is one, and other devices have none of their own
            if "memory" not in str(error).lower():
                raise
            return None
        finally:
            self._optimizer.zero_grad(set_to_none=True)
            if cuda:
                torch.cuda.empty_cache()

    def _seems_to_fit(self, size: int) -> bool:
        """Whether it can be tried safely."""
        if self._accelerator.device.type != "cpu":
            return True
        if not self._per_image:
            small = min(2, size)
            self._per_image = self._step(small)[1] / small
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # they are about to take as much
        return bool(self._fixed + BESIDES * self._per_image * size <= SHARE * available_memory() / neighbours)

    def _step(self, size: int) -> tuple[float, int]:
        images = size * self._each
        cost = try_step(self._model, images, self._input_size, self._accelerator, torch.float32, self._backwards)
        self._optimizer.step()  # so that memory includes its moments
        self._optimizer.zero_grad(set_to_none=True)
        return cost


USUAL = 32
BATCHES = 5  # of an epoch: with fewer, training ends before it has learnt what few images can teach (docs/recipes.md)
_SMALLER = (16, 8)
_SHARE = 8  # images of a smaller batch that each process gets at least


def usual(images: int, processes: int) -> tuple[int, str]:
    """The default batch size for this number of training images, and a note about it."""
    sizes = (USUAL, *(size for size in _SMALLER if size % processes == 0 and size // processes >= _SHARE))
    size = next((size for size in sizes if images // size >= BATCHES), sizes[-1])
    if size == USUAL:
        return size, ""
    return size, f"batches are of {size} images: of {USUAL}, an epoch would have only {max(1, images // USUAL)}"
