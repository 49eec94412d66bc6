"""What `golden` does at both revisions: the commands of each case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NANO = "resnet_nano"
# Given rather than measured, so that both revisions do the same. A state after every step: a resumed run saves at the
# same steps as one that was never killed, and all of these can be compared.
FIXED = ("--seed", "3", "--threads", "2", "--precision", "fp32", "--batch-size", "8", "--image-size", "32",
         "--device", "cpu", "--workers", "0", "--compile", "off",
         "--checkpoint-every", "1 step", "--checkpoint-keep", "1000")  # fmt: skip
CACHE = ("--cache", "on")


@dataclass(frozen=True)
class Command:
    """One `zoo` command; its output is compared, and the folder that it makes."""

    name: str  # of its output
    words: tuple[str, ...]  # after `zoo`
    makes: str = ""  # a folder
    resume: tuple[str, ...] = ()  # words that go on with it when it was killed; empty: it is not killed
    code: int = 0  # the exit code that it should have

    @property
    def reads(self) -> bool:
        """Whether it uses a finished run, and changes nothing."""
        return self.words[0] in ("eval", "predict")


@dataclass(frozen=True)
class Case:
    """Commands that run one after the other in one folder, with caches that are empty at first."""

    commands: tuple[Command, ...]

    @property
    def killed(self) -> Command | None:
        """The command that is killed under `--kill`."""
        return next((command for command in self.commands if command.resume), None)

    @property
    def until_killed(self) -> tuple[Command, ...]:
        """That command, after those before it that make what it may need."""
        earlier = self.commands[: self.commands.index(self.killed) + 1] if self.killed else ()
        return tuple(command for command in earlier if command.makes)


def cases(images: Path) -> dict[str, Case]:
    """Every case by its name; `images` is what `golden_images.make` gives."""
    digits = ("--dataset", "digits", "--train-per-class", "8")
    shapes, table = ("--dataset", str(images / "shapes")), str(images / "answers.csv")
    lp_ft = ("--strategy", "lp-ft", "--probe-epochs", "2", "--epochs", "2")
    new = str(images / "new")
    tasks = ("shape", "tags:multi-label", "size:small<medium<large", "brightness:regression")
    named = [word for task in tasks for word in ("--task", f"{task.partition(':')[0]}={table}:{task}")]
    refit = ("--refit", "on", "--recalibrate", "on")
    members = (*shapes, "--data-seed", "1", "--refit", "off", "--strategy", "finetune", "--epochs", "2", *CACHE)
    return {
        "probe": Case((
            *_trained(*digits, "--strategy", "probe", "--epochs", "3", *CACHE, new=new),
            _said("runs", "runs", "."),
            _said("push", "push", "run", "me/digits", "--dry-run", "published", makes="published"),
            _said("reproduce", "reproduce", "run"),
        )),
        "lp-ft": Case(_trained(*digits, *lp_ft, *refit, "--mixup", "0.2", *CACHE, new=new)),
        "cache-off": Case(_trained(*digits, *lp_ft, *refit, "--mixup", "0.2", "--cache", "off", new=new)),
        "gradual": Case(_trained(*digits, "--strategy", "gradual", "--probe-epochs", "1", "--epochs", "1", "--lr",
                                 "auto", "--accumulate", "2", "--cache-ram-gb", "0", *CACHE, new=new)),
        "partial": Case(_trained(*digits, "--strategy", "partial", "--epochs", "3", "--cache-views", "2", "--augment",
                                 "standard", "--balance", "sampler", *CACHE, new=new)),
        # At this rate two epochs make a better average than one.
        "averages": Case(_trained("--dataset", "digits", "--train-per-class", "10", "--strategy", "lp-ft",
                                  "--probe-epochs", "2", "--epochs", "4", "--lr", "0.01", "--schedule", "constant",
                                  "--refit", "off", "--ema", "0.5", "--soup", "--wise", "sweep", *CACHE, new=new)),
        "multi-label": Case(_trained("--dataset", table, "--label-column", "tags", "--label-separator", ";",
                                     "--label-loss", "asymmetric", *lp_ft, *CACHE, new=new)),
        "tasks": Case(_trained(*named, "--label-separator", ";", "--task-weighting", "uncertainty", *lp_ft, *CACHE,
                               new=new)),
        "align": Case(_trained(*shapes, "--target", str(images / "night"), "--align", "daan", *lp_ft, *CACHE, new=new)),
        "semi": Case(_trained(*shapes, "--unlabelled", str(images / "more"), "--semi", "fixmatch", "--threshold", "0.4",
                              "--unlabelled-ratio", "2", *lp_ft, *CACHE, new=new)),
        "processes": Case(_trained(*shapes, *lp_ft, *CACHE, new=new, more=("--processes", "2"))),
        "rank": Case((_said("rank", "rank", NANO, f"{NANO}=none", *shapes, "--budget", "12steps", *FIXED),)),
        "compare": Case((
            # Of members that are equally good the quicker one comes first: these differ.
            _said("compare", "compare", NANO, *shapes, "--strategies", "probe,scratch", "--seeds", "1", "--budget",
                  "18steps", *CACHE, *FIXED, "--out", "comparison", makes="comparison",
                  resume=("compare", "--resume", "comparison")),
        )),
        "ensembles": Case((
            *(_said(name, "adapt", NANO, *members, *_seeded(seed), "--out", name, makes=name)
              for name, seed in (("one", "3"), ("two", "4"))),
            _said("stack", "stack", "one", "two", "--out", "stacked", makes="stacked"),
            _said("folds", "stack", "one", "two", "--folds", "2", "--choice", "weighted", "--seed", "3", "--out",
                  "folded", makes="folded", resume=("stack", "--resume", "folded")),
            _said("soup", "soup", "one", "two", "--out", "souped", makes="souped"),
            *(_said(f"{verb}-{what}", verb, what, *more) for what in ("stacked", "souped")
              for verb, more in (("eval", ()), ("predict", (f"{new}/disc.png",)))),
        )),
    }  # fmt: skip


def _trained(*words: str, new: str, more: Sequence[str] = ()) -> tuple[Command, ...]:
    """One run: planned, trained, measured again, and asked about new images, of which one is broken."""
    chosen = (NANO, *words, *FIXED)
    return (
        _said("plan", "plan", *chosen),
        _said("adapt", "adapt", *chosen, *more, "--out", "run", makes="run", resume=("adapt", "--resume", "run")),
        _said("eval", "eval", "run"),
        _said("predict", "predict", "run", new, "--top", "2", code=1),
    )


def _said(name: str, *words: str, makes: str = "", resume: Sequence[str] = (), code: int = 0) -> Command:
    """A command that prints JSON."""
    going_on = (*resume, "--json") if resume else ()
    return Command(name, (*words, "--json"), makes=makes, resume=going_on, code=code)


def _seeded(seed: str) -> tuple[str, ...]:
    """The fixed options with another seed."""
    return ("--seed", seed, *FIXED[2:])
