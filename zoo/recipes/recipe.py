"""Recipe: every choice that shapes a run, validated; from and to YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import yaml

from zoo.base.fields import choice, field_faults, mapping_faults
from zoo.errors import RecipeError
from zoo.recipes import methods
from zoo.recipes.rules import choice_faults
from zoo.recipes.strategies import PRESETS, Augment, Phase, Preset, phase_faults
from zoo.tasks.schema import FACTS, LOSS_NAMES, MANY, ONE, Problem, TaskSpec, task_faults

Strategy = Literal["probe", "partial", "finetune", "gradual", "lp-ft", "scratch"]
Balance = Literal["none", "weights", "sampler"]
OnBadImage = Literal["error", "skip"]
TaskWeighting = Literal["fixed", "uncertainty", "pcgrad"]

Rate = float | Literal["auto"] | None  # a number, a range test, or the strategy's default


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that shapes a result; None: the strategy's default, or decided from data and machine.

    Raises:
        RecipeError: Choices are out of range or contradict each other; all of them are listed.
    """

    strategy: Strategy = choice(
        "lp-ft", "How to transfer.", choices=("probe", "partial", "finetune", "gradual", "lp-ft", "scratch")
    )
    weights: str = choice(
        "default",
        "Pretrained weights: default, a name from `zoo show`, none, a .safetensors or .pth file, a run folder, "
        "or hf-hub:ORG/NAME.",
    )
    epochs: int | None = choice(None, "Epochs of the last phase.", low=1, high=100_000)
    probe_epochs: int | None = choice(None, "Epochs of the phases before the last one.", low=0, high=100_000)
    lr: Rate = choice(
        None,
        "Peak learning rate of the head in the last phase, or auto (range test).",
        more_than=0,
        high=100,
        words=("auto",),
    )
    probe_lr: float | None = choice(None, "Peak learning rate of the head while only it trains.", more_than=0, high=100)
    lr_decay: float | None = choice(None, "Each earlier layer group's rate, relative to the next.", low=0, high=1)
    group_lr: Mapping[str, float] = choice(dict, "Peak learning rate of one layer group.", metavar="GROUP=RATE", low=0)
    train_from: str | None = choice(
        None, "First layer group that trains in the last phase: a name from `zoo show`, head-N, or all."
    )
    phases: tuple[Phase, ...] = choice(tuple, "Phases in full, instead of a strategy's (recipe files only).")
    optimizer: str = choice("adamw", "Any optimizer of timm's factory.")
    weight_decay: float | None = choice(None, "Weight decay; biases and norms get none.", low=0, high=10)
    schedule: str = choice("one-cycle", "Learning rate schedule.", choices=("one-cycle", "cosine", "constant"))
    warmup: float = choice(0.25, "Share of a phase's steps in which the learning rate rises.", low=0, high=0.9)
    batch_size: int | Literal["auto"] | None = choice(
        None,
        "Images per batch over all processes, or auto for the largest that fits and is worth it; default: 32, or 16 "
        "or 8 with few images, so that an epoch has five batches.",
        low=1,
        high=65_536,
        words=("auto",),
    )
    accumulate: int = choice(1, "Batches per optimizer step (gradient accumulation).", low=1, high=4096)
    clip: float = choice(1.0, "Largest gradient norm; 0 turns clipping off.", low=0)
    label_smoothing: float | None = choice(
        None,
        "Share of each target spread over all classes; default: 0.1, or 0 with --semi, whose pseudo-labels need "
        "confident predictions, and for several labels per image.",
        low=0,
        high=0.9,
    )
    label_loss: str = choice(
        FACTS[MANY].losses[0],
        "Loss of several labels per image: binary cross-entropy, or asymmetric for many labels, few of them per image.",
        choices=LOSS_NAMES,
    )
    ema: float = choice(
        0.0, "Decay of a moving average of the weights, which is then evaluated; 0 turns it off.", low=0, high=0.99999
    )
    soup: bool = choice(
        False, "Average the weights of the run's best epochs, adding each that improves the average (greedy soup)."
    )
    soup_keep: int = choice(5, "Largest number of epochs whose weights are kept for --soup.", low=2, high=100)
    wise: float | Literal["sweep"] | None = choice(
        None,
        "Average the weights from before (0) and after (1) the body trains, with this share of the latter; sweep "
        "tries eleven shares (WiSE-FT).",
        low=0,
        high=1,
        words=("sweep",),
    )
    dropout: float = choice(0.0, "Dropout rate before the head.", low=0, high=0.95)
    norm: str = choice("auto", "Batch-norm statistics of the groups that train.", choices=("auto", "live", "fixed"))
    recalibrate: str = choice(
        "auto",
        "Re-estimate pretrained norm statistics on the training images before training: auto (if the images look "
        "different and a trial shows an improvement), on, off.",
        choices=("auto", "on", "off"),
    )
    augment: Augment | None = choice(None, "Augmentation.", choices=("none", "light", "standard", "strong"))
    mixup: float = choice(0.0, "Mixup's alpha; 0 turns it off.", low=0, high=10)
    cutmix: float = choice(0.0, "CutMix's alpha; 0 turns it off.", low=0, high=10)
    balance: Balance = choice("none", "Method against class imbalance.", choices=("none", "weights", "sampler"))
    patience: int | None = choice(None, "Stop a phase after this many epochs without improvement.", low=1)
    select_by: str = choice(
        "auto",
        "Score that chooses the best epoch; auto: the refinement error with few validation images, else accuracy; "
        "with --align: information, which like entropy and density uses unlabelled target images; for several labels "
        "per image: map, their mean average precision; for several tasks: score, the mean of theirs.",
        choices=("auto", "accuracy", "loss", "refinement", "entropy", "information", "density", "map", "score"),
    )
    target: str | None = choice(
        None, "Images of another domain to adapt to, named like --dataset; their labels are used for the report only."
    )
    align: str = choice(
        "none",
        "How to align the features of both domains; adabn takes the target's norm statistics after training. Several, "
        "separated by commas, are all tried; the best is chosen without labels; auto: none,adabn,dann,cdan.",
        choices=(*methods.SOURCE_ONLY, *methods.ALIGNMENT, methods.AUTO),
        several=(*methods.SOURCE_ONLY, *methods.ALIGNMENT),
    )
    align_weight: float = choice(1.0, "Weight of the alignment loss.", more_than=0, high=1000)
    unlabelled: str | None = choice(None, "More images of the same kind, as for --dataset; labels are ignored.")
    semi: str = choice(
        "none",
        "How to learn from unlabelled images: those of --unlabelled, or of --target.",
        choices=("none", *methods.SEMI),
    )
    semi_weight: float = choice(1.0, "Weight of the loss of unlabelled images.", more_than=0, high=1000)
    unlabelled_ratio: int | None = choice(
        None, "Unlabelled images per labelled one in a batch; default: 7 with --semi, else 1.", low=1, high=100
    )
    threshold: float = choice(0.95, "Confidence from which a prediction becomes a pseudo-label.", low=0, high=1)
    cache: str = choice(
        "auto",
        "Train from cached features of the frozen part: auto (if that saves time), on, off, or names of phases.",
        metavar="auto|on|off|PHASES",
    )
    cache_views: int | None = choice(
        None, "Augmented views cached per training image, which epochs use in turn; default: 4.", low=1, high=1000
    )
    cache_ram_gb: float = choice(2.0, "Gigabytes of cached features in memory; more goes into a file.", low=0)
    cache_gb: float = choice(10.0, "Gigabytes of cached features on disk, all runs together.", low=0)
    store_gb: float = choice(
        8.0, "Gigabytes of decoded images on disk, all runs together; 0: decode in every epoch.", low=0
    )
    checkpoint_every: str = choice(
        "1m",
        "How often to save a checkpoint: a time (90s, 10m, 2h), steps (500 steps), or both separated by a comma.",
        metavar="TIME|STEPS",
    )
    checkpoint_keep: int = choice(2, "Checkpoints to keep, in case the newest is damaged.", low=2, high=1000)
    image_size: int | None = choice(None, "Side of the square input, pixels; default: the weights'.", low=8, high=4096)
    train_per_class: int | None = choice(None, "Few-shot: images per class, validation images included.", low=2)
    limit: int | None = choice(
        None, "At most this many training images, and unlabelled ones; of each data set if tasks name several.", low=2
    )
    val_fraction: float = choice(0.2, "Share cut from train if there is no validation split.", more_than=0, high=0.9)
    on_bad_image: OnBadImage = choice("error", "What to do about unreadable images.", choices=("error", "skip"))
    path_column: str | None = choice(None, "Column of the image paths or images; default: path, or the data set's.")
    label_column: str | None = choice(
        None, "Column of the labels, or one column per label, separated by commas; default: label, or the data set's."
    )
    problem: Problem = choice(
        "auto",
        "Targets of an image: single-label, one class; multi-label, several (collected from all rows of a table with "
        "its path); auto: multi-label if the separator, the columns or lists in cells say so.",
        choices=get_args(Problem),
    )
    label_separator: str | None = choice(None, "Separator of several labels in one cell, such as ;")
    tasks: tuple[str, ...] = choice(
        tuple,
        "A task, instead of --dataset: its name, a data set, and for a table the column, with the kind if needed "
        "(single-label, multi-label, regression, ordinal, or levels such as low<high).",
        metavar="NAME=DATASET[:COLUMN[:KIND]]",
    )
    task_weights: Mapping[str, float] = choice(dict, "Weight of one task's loss.", metavar="TASK=WEIGHT", low=0)
    task_weighting: TaskWeighting = choice(
        "fixed",
        "How the tasks' losses are combined: fixed weights; uncertainty, which learns them; or pcgrad, which removes "
        "from each task's gradient what conflicts with another's.",
        choices=("fixed", "uncertainty", "pcgrad"),
    )
    task_temperature: float = choice(
        1.0,
        "Draw images in proportion to their task's size to this power: 1 as they come, 0 equally for all tasks, as far "
        "as no image has targets of two.",
        low=0,
        high=1,
    )
    dataset_config: str | None = choice(None, "Configuration of a Hub data set.")
    seed: int = choice(0, "Seed of every random choice.", low=0, high=2**31 - 1)
    data_seed: int | None = choice(
        None, "Seed of splitting and subsampling the images; default: the seed.", low=0, high=2**31 - 1
    )
    fold: str | None = choice(
        None,
        "Hold out the K-th of N equal parts of the training images and test on it, such as 2/5 (cross-validation).",
        metavar="K/N",
    )
    refit: str = choice(
        "auto",
        "Train again up to the best epoch, on the validation images too: auto (if there are under 500 labelled "
        "images, and the validation images were cut from them), on, off.",
        choices=("auto", "on", "off"),
    )
    precision: str = choice("auto", "Numeric precision of training.", choices=("auto", "fp32", "bf16", "fp16"))
    compile: str = choice(
        "auto",
        "Compile the training step with torch.compile: auto (if a trial shows that it pays off), on, off, or phases.",
        metavar="auto|on|off|PHASES",
    )
    device: str = choice("auto", "Where to train.", choices=("auto", "cpu", "cuda", "mps"))
    threads: int | None = choice(None, "CPU threads; default: OMP_NUM_THREADS, else all cores.", low=1, high=1024)
    workers: int | None = choice(None, "Processes that load images; default: by device and cores.", low=0, high=256)

    def __post_init__(self) -> None:
        """Check everything and report all faults at once."""
        checked = [entry for entry in fields(self) if entry.name not in _OWN]
        faults = [fault for entry in checked for fault in field_faults(entry, getattr(self, entry.name))]
        faults += mapping_faults("group_lr", self.group_lr) + phase_faults(self.phases)
        faults += task_faults(self.tasks, self.task_weights) + choice_faults(self)
        if faults:
            count = "an invalid choice" if len(faults) == 1 else f"{len(faults)} invalid choices"
            raise RecipeError(f"the recipe has {count}", why="; ".join(faults))
        for name in ("phases", "tasks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("group_lr", "task_weights"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def batch(self) -> int:
        """Images per batch; only once it is settled."""
        assert isinstance(self.batch_size, int)
        return self.batch_size

    @property
    def task_specs(self) -> tuple[TaskSpec, ...]:
        """The tasks, parsed."""
        return tuple(map(TaskSpec.parse, self.tasks))

    @property
    def smoothing(self) -> float:
        """The label smoothing, chosen or default."""
        default = 0.1 if self.semi == "none" else 0.0
        return default if self.label_smoothing is None else self.label_smoothing

    @property
    def cut_seed(self) -> int:
        """The seed of splitting the images."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def held_fold(self) -> tuple[int, int] | None:
        """The number of the fold that is held out, from 1, and the number of folds."""
        if self.fold is None:
            return None
        number, _, count = self.fold.partition("/")
        return int(number), int(count)

    @property
    def preset(self) -> Preset:
        """The strategy's defaults."""
        return PRESETS[self.strategy]

    def with_preset(self) -> Recipe:
        """The recipe with the strategy's defaults written out, so that a zoo with other defaults repeats it."""
        names = ("augment", "weight_decay", *(() if self.phases else ("epochs", "probe_epochs", "lr", "lr_decay")))
        defaults = {name: getattr(self.preset, name) for name in names if getattr(self, name) is None}
        full = replace(self, label_smoothing=self.smoothing, **defaults)
        if full.phases or full.probe_lr:
            return full
        return replace(full, probe_lr=self.preset.probe_lr or (None if full.lr == "auto" else full.lr))

    def expand(self) -> tuple[Phase, ...]:
        """The phases, before layer groups are known; an `lr` of auto counts as the strategy's default."""
        if self.phases:
            return self.phases
        full = self.with_preset()
        lr = float(full.lr) if isinstance(full.lr, int | float) else self.preset.lr
        decay, epochs, before = full.lr_decay or 0.0, full.epochs or 1, full.probe_epochs or 0
        if self.strategy == "probe":
            return (Phase("probe", epochs, lr, "head"),)
        if self.strategy not in ("gradual", "lp-ft"):
            boundary = self.train_from or ("head-1" if self.strategy == "partial" else "all")
            return (Phase(self.strategy, epochs, lr, boundary, decay),)
        phases = [Phase("finetune", epochs, lr, self.train_from or "all", decay)]
        if before and self.strategy == "gradual":
            phases = [Phase(f"unfreeze-{n}", before, lr, f"head-{n}", decay) for n in (1, 2)] + phases
        if before:
            phases = [Phase("probe", before, full.probe_lr or lr, "head"), *phases]
        return tuple(phases)

    def record(self) -> dict[str, Any]:
        """The recipe as plain values, every field."""
        plain = {"phases": [phase.record() for phase in self.phases], "tasks": list(self.tasks),
                 "group_lr": dict(self.group_lr), "task_weights": dict(self.task_weights)}  # fmt: skip
        return {entry.name: plain.get(entry.name, getattr(self, entry.name)) for entry in fields(self)}

    def to_yaml(self) -> str:
        """The recipe as YAML, without defaults."""
        plain = Recipe().record()
        return yaml.safe_dump({key: value for key, value in self.record().items() if value != plain[key]})

    @classmethod
    def from_record(cls, values: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
        """Build a recipe from plain values.

        Raises:
            RecipeError: Keys are unknown or values invalid; all of them are listed.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = [str(key) for key in values if key not in known]
        faults = [f"{key}: unknown key" for key in unknown]
        chosen = {key: value for key, value in values.items() if key in known}
        try:
            chosen["phases"] = tuple(Phase(**item) for item in chosen.get("phases") or ())
        except TypeError:
            faults.append("phases: must be a list of mappings with name, epochs, lr, train_from and perhaps lr_decay")
            del chosen["phases"]
        try:
            recipe = cls(**chosen)
        except RecipeError as error:
            faults.append(error.why)
        if faults:
            fix = f"known keys: {', '.join(sorted(known))}" if unknown else ""
            raise RecipeError(f"{source} cannot be used", why="; ".join(faults), fix=fix)
        return recipe


_OWN = ("phases", "group_lr", "tasks", "task_weights")  # fields with checks of their own


def with_choices(recipe: Recipe, choices: Mapping[str, Any]) -> Recipe:
    """The recipe with choices replaced; a value of None changes nothing.

    `problem` was perhaps settled by a run, not chosen, so new tasks or label options reset it. New tasks also drop the
    weights of former ones.
    """
    chosen = {key: value for key, value in choices.items() if value is not None}
    labels = recipe.problem == ONE and (chosen.keys() & {"label_separator", "label_column"})
    if (chosen.get("tasks") or labels) and "problem" not in chosen:
        chosen["problem"] = "auto"
    if chosen.get("tasks"):
        gone = recipe.task_weights.keys() - {str(task).partition("=")[0] for task in chosen["tasks"]}
        weights = chosen.get("task_weights", recipe.task_weights)
        chosen["task_weights"] = {name: weight for name, weight in weights.items() if name not in gone}
    return replace(recipe, **chosen)
