"""Public functions, which the command line calls too. Each imports its modules when called, to keep `import` fast."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import RecipeError
from zoo.events import Listener, ignore
from zoo.recipes import methods
from zoo.recipes.budget import Budget
from zoo.recipes.plan import Plan
from zoo.recipes.recipe import Recipe
from zoo.recipes.rules import refuse_other_data
from zoo.runs import progress_lines, run_folder
from zoo.runs.run_folder import Run
from zoo.studies.compare.comparison_folder import Comparison

if TYPE_CHECKING:
    from torch import nn

    from zoo.data.loose_images import Picture
    from zoo.runs.publish.push import Pushed
    from zoo.runs.reproduce import Reproduction
    from zoo.studies.rank.rank import Ranking
    from zoo.tasks.predictions import Prediction


def plan(
    backbone: str, dataset: str | None = None, recipe: Recipe | None = None, *, on_event: Listener = ignore
) -> Plan:
    """Plan what `adapt` would do: which layer group trains when, at which learning rate, and at what cost.

    Args:
        backbone: A backbone's name, such as `resnet50`, `resnet/resnet50.a1_in1k` or `timm/convnext_tiny`.
        dataset: A name from the registry, a folder, a table, an archive, or `hf:ORG/NAME[@revision]`. May be left out
            if the recipe has tasks, which name their own.
        recipe: The choices; default: `Recipe()`.
        on_event: Called with progress.

    Returns:
        The plan, with estimated seconds of training and bytes of memory on this machine. Printing it shows a table.

    Raises:
        ZooError: The backbone, the data or the choices cannot be used; the message says why and what to do.
    """
    from zoo.runs.prepare import prepare

    settled = recipe or Recipe()
    return prepare(*_required(backbone, dataset, settled), settled, on_event).plan


def adapt(
    backbone: str | None = None,
    dataset: str | None = None,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    budget: str | Budget | None = None,
    among: Sequence[str] = (),
    progress: bool | None = None,
    on_event: Listener | None = None,
) -> Run:
    """Fine-tune a backbone on a data set, measure the result, and write a run folder.

    The default recipe trains the head alone first and then the whole network from there, earlier layer groups at
    lower rates (LP-FT, Kumar et al. 2022).

    Args:
        backbone: As for `plan`; or "auto": backbones are ranked as by `rank`, and the best that fits into the budget is
            taken. The choice and its reason are in the run's record under `chosen`.
        dataset: As for `plan`.
        recipe: The choices; default: `Recipe()`.
        out: The run folder, which must not exist yet; default: a new one under `runs/`.
        resume: A run to go on with, its folder or its name under `runs/`. Other arguments must be those that it was
            started with; only `workers`, `checkpoint_every` and `checkpoint_keep` may change.
        budget: Limit on training, by the plan's estimate, ranking included: "10m", "500steps". It decides the epochs,
            in the recipe's proportion.
        among: The backbones that "auto" chooses from, as for `rank`; default: all whose weights are on this machine.
        progress: Whether to show the plan and every epoch on stderr; default: on a terminal and in a notebook, unless
            `on_event` is given.
        on_event: Called with progress, every step and every epoch.

    Returns:
        The finished run. `run.result` is measured on the saved model, loaded back, in float32.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; the state is saved first.
        ZooError: Something cannot be used or went wrong; the message says what, why, and what to do.
    """
    from zoo.runs import train
    from zoo.runs.lock import refuse_used
    from zoo.studies import align_auto
    from zoo.studies.rank import auto

    emit = on_event or progress_lines.listener(progress)
    if resume is not None:
        if out or budget or among:
            raise RecipeError(
                "a resumed run stays in its folder, with the epochs and the backbone that it has",
                fix="drop out=, budget= and among=",
            )
        return train.go_on(Path(resume), emit, backbone, dataset, recipe)
    settled = recipe or Recipe()
    name, data = _required(backbone, dataset, settled)
    folder = _path(out)
    if folder is not None:
        refuse_used(folder)  # before anything that takes long
    several = len(methods.asked(settled.align)) > 1
    if several and (name == auto.AUTO or budget is not None):
        raise RecipeError(
            f"--align {settled.align} trains with several methods, and "
            f"{'auto plans with one' if name == auto.AUTO else 'a budget is for one training'}",
            fix="name one method" if name == auto.AUTO else "name one method, or leave the budget out",
        )
    if name == auto.AUTO:
        choice = auto.choose(data, among, settled, _budget(budget), emit)
        return train.start(choice.entrant.backbone, data, choice.recipe, folder, emit, chosen=choice.record)
    if among:
        what = "among names the backbones that auto chooses from, and a backbone is named"
        raise RecipeError(what, fix='name "auto", or leave it out')
    if budget is not None:
        cut = auto.cut(name, data, settled, _budget(budget), emit)
        return train.start(name, data, cut.recipe, folder, emit, chosen={"budget": str(budget)})
    if several:
        return align_auto.start(name, data, settled, folder, emit)
    return train.start(name, data, settled, folder, emit)


def rank(
    dataset: str,
    backbones: Sequence[str] = (),
    recipe: Recipe | None = None,
    *,
    images: int = 2000,
    budget: str | Budget | None = None,
    on_event: Listener = ignore,
) -> Ranking:
    """Order backbones by how well they should transfer, before any training.

    Each frozen backbone processes the images once. The order is by the cross-validated accuracy of a linear probe on
    its features; LogME (You et al. 2021), H-score (Bao et al. 2019, shrunk as by Ibrahim et al. 2021) and the accuracy
    of nearest neighbours are given too. Test images are not used.

    Args:
        dataset: As for `plan`.
        backbones: Names, or "NAME=WEIGHTS"; default: all that plugins declare and whose weights are on this machine.
        recipe: Chooses the images, and is what time and memory of adapting are estimated for; default: `Recipe()`.
        images: Largest number of images to rank on.
        budget: Limit on adapting: "10m", "500steps"; each row says whether it fits, and with how many epochs.
        on_event: Called with progress.

    Returns:
        The backbones in order, with accuracy, interval, probability of being the best, and cost; and those left out,
        with reasons. Printing it shows a table.

    Raises:
        ZooError: The data or the choices cannot be used, or no backbone can be ranked.
    """
    from zoo.studies.rank.rank import ranked

    return ranked(dataset, backbones, recipe or Recipe(), images=images, budget=_budget(budget), emit=on_event)


def compare(
    backbones: Sequence[str] = (),
    dataset: str | None = None,
    recipe: Recipe | None = None,
    *,
    strategies: Sequence[str] = (),
    seeds: int | None = None,
    budget: str | Budget | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    on_event: Listener = ignore,
) -> Comparison:
    """Adapt several backbones to a data set, in the same way, and report which differences are more than noise.

    Every backbone is run with every strategy and every seed, each run in a process of its own. A failed run is reported
    and does not stop the others.

    Args:
        backbones: Names, or "NAME=WEIGHTS", where WEIGHTS is what `Recipe.weights` takes.
        dataset: As for `plan`.
        recipe: The choices that all share; default: `Recipe()`.
        strategies: Default: the recipe's.
        seeds: How many, default 3; they count from the recipe's.
        budget: Limit on each run's training, by the plan's estimate: "10m", "500steps"; default: the recipe's epochs. A
            member without time for one epoch of each phase is left out.
        out: The folder of the comparison, which must not exist yet; default: a new one under `runs/`.
        resume: The folder of a comparison to go on with, instead of everything above.
        on_event: Called with progress.

    Returns:
        The finished comparison: `summary` has a row for each member and the differences; `page` is an HTML page.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; what is finished is kept.
        ZooError: Something cannot be used, or no member could be run.
    """
    from zoo.studies.compare.compare import go_on, start

    if resume is not None:
        if backbones or dataset or recipe or strategies or seeds is not None or budget or out:
            raise RecipeError("a resumed comparison takes everything from its folder", fix="give resume alone")
        return go_on(Path(resume), on_event)
    if dataset is None:
        fix = "for example: zoo compare resnet18 vgg11_bn --dataset cifar10"
        raise RecipeError("a data set must be named", fix=fix)
    settled = recipe or Recipe()
    return start(
        backbones, dataset, settled, strategies=strategies or (settled.strategy,), seeds=3 if seeds is None else seeds,
        budget=_budget(budget), out=_path(out), emit=on_event,
    )  # fmt: skip


def stack(
    runs: Sequence[str | Path | Run] = (),
    *,
    choice: str = "auto",
    folds: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    on_event: Listener = ignore,
) -> Run:
    """Learn to combine the predictions of several runs, and compare that with each of them, their mean and their soup.

    The members' probabilities are combined by a model that is fitted by cross-validation on images that no member was
    trained on, and calibrated (Guo et al. 2017); it is measured on test images that chose nothing either.

    Args:
        runs: Two or more finished runs with the same classes. They may take images of different sizes, and have their
            classes in different orders.
        choice: "mean", "weighted" (a weight for each member), "gated" (weights that depend on the members' features),
            "logistic" (a logistic regression on log-probabilities); "auto": the simplest that cross-validation does not
            find worse than another by more than chance.
        folds: Adapt every member this many times from scratch, each time without a part of the training images, and fit
            on the predictions for those parts. None: fit on the validation images.
        seed: Of the folds of cross-validation.
        out: The stack's folder; default: a new one under `runs/`.
        resume: The folder of a stack that was interrupted, instead of everything above.
        on_event: Called with progress.

    Returns:
        A run of kind "stack", for `evaluate`, `predict`, `load` and `push`; the members are inside.
        `run.record["stack"]` has the table.

    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; folds that are finished are kept.
        ZooError: The runs cannot be combined, or there are fewer than 10 images of a class to fit on.
    """
    from zoo.studies.ensemble.stack import go_on, start

    if resume is not None:
        if runs or out or folds or choice != "auto":
            raise RecipeError("a resumed stack takes everything from its folder", fix="give resume alone")
        return go_on(Path(resume), on_event)
    return start(runs, choice=choice, parts=folds, seed=seed, out=_path(out), emit=on_event)


def soup(runs: Sequence[str | Path | Run], *, out: str | Path | None = None, on_event: Listener = ignore) -> Run:
    """Average the weights of several runs, greedily: one network, as fast as each of them.

    From the best run down, each is added to the average if that makes it no worse on the validation images (Wortsman et
    al. 2022, "Model soups"). Norm statistics are averaged like weights.

    Args:
        runs: Two or more finished runs of one architecture, with the same train, val and test images.
        out: The new run's folder; default: a new one under `runs/`.
        on_event: Called with progress.

    Returns:
        An ordinary run. `run.record["soup"]` has the validation scores of each candidate, and which are in it.

    Raises:
        ZooError: The runs cannot be averaged, or there are no validation images to choose by.
    """
    from zoo.studies.ensemble.soup import put_together

    return put_together(runs, _path(out), on_event)


def _path(folder: str | Path | None) -> Path | None:
    return None if folder is None else Path(folder)


def _budget(budget: str | Budget | None) -> Budget | None:
    return Budget.parse(budget) if isinstance(budget, str) else budget


def reproduce(
    run: str | Path | Run,
    *,
    dataset: str | None = None,
    weights: str | None = None,
    out: str | Path | None = None,
    on_event: Listener = ignore,
) -> Reproduction:
    """Do a finished run again from its record, and compare the two.

    On the CPU of the same machine, with the same versions, the weights are the same to the bit.

    Args:
        run: The run, its folder or its name under `runs/`; or a model that zoo published, "ORG/NAME[@revision]".
        dataset: Where the images are now; default: where they were. Needed for a model on the Hub that was trained on
            local images.
        weights: Where the weights to start from are now, if they were a file; default: where they were.
        out: The new run's folder; default: a new one under `runs/`.
        on_event: Called with progress and differences.

    Returns:
        Whether the weights are the same, else by how much they differ; the accuracy of both; and the differences in
        data, versions and machine.

    Raises:
        ZooError: The run is not finished or not found, or something that it needs is missing.
    """
    from zoo.runs import reproduce

    return reproduce.reproduce(run, dataset, weights, _path(out), on_event)


def evaluate(
    model: str | Path | Run,
    dataset: str | None = None,
    *,
    split: str | None = None,
    batch_size: int = 32,
    path_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    dataset_config: str | None = None,
    on_bad_image: str = "error",
    on_event: Listener = ignore,
) -> dict[str, Any]:
    """Score a run, a model on the Hub, or a backbone with its pretrained head.

    Args:
        model: A run, its folder or its name under `runs/`; a model on the Hub, "hf-hub:ORG/NAME[@revision]" or
            "ORG/NAME"; or a backbone's name.
        dataset: As for `plan`; default: the run's own, on the images of its result.
        split: "train", "val" or "test"; default: test if there is one, else val, else all images.
        batch_size: Images per batch.
        path_column: Column of the image paths in a table.
        label_column: Column of the labels.
        label_separator: Separator of several labels in a cell; default: as in training.
        dataset_config: Configuration of a Hub data set.
        on_bad_image: "error" or "skip".
        on_event: Called with progress.

    Returns:
        Plain values: accuracy, top5, macro_f1, ece (0 to 1), loss (nats), n, split, interval (95 %, Wilson), classes,
        confusion (rows: targets), calibration, mistakes. For several labels per image: map, micro_f1, macro_f1,
        accuracy (share of images with every label right), loss (nats per label), n, split, interval (95 %, of map,
        bootstrap), labels (ap, f1, precision, recall, threshold of each), mistakes.

    Raises:
        ZooError: The model or the data cannot be used, or the data has a class that the model does not know.
    """
    from zoo.runs import use

    return use.evaluate(
        model,
        dataset,
        split=split,
        batch_size=batch_size,
        path_column=path_column,
        label_column=label_column,
        label_separator=label_separator,
        dataset_config=dataset_config,
        on_bad_image=on_bad_image,
        emit=on_event,
    )


def predict(
    model: str | Path | Run,
    images: Picture | Iterable[Picture],
    *,
    top: int = 5,
    batch_size: int = 32,
    on_event: Listener = ignore,
) -> list[Prediction]:
    """Label images. `Predictor` does the same, and opens the model once for many calls.

    Args:
        model: As for `evaluate`.
        images: As for `Predictor.predict`.
        top: How many classes to give for each image.
        batch_size: Images per batch.
        on_event: Called with progress.

    Returns:
        A prediction per image, in order; an image that cannot be read has `error` set and does not stop the others.

    Raises:
        ZooError: The model cannot be used.
    """
    from zoo.runs import use

    return use.Predictor(model, on_event=on_event).predict(images, top=top, batch_size=batch_size)


def load(model: str | Path | Run) -> nn.Module:
    """Load a run's model, one on the Hub, or a backbone with its pretrained head, ready to use.

    Args:
        model: As for `evaluate`.

    Returns:
        A timm model in eval mode, (B, C, H, W) to (B, classes). `model.transform` turns a PIL image into its input
        (C, H, W), and `model.class_names` names its classes.

    Raises:
        ZooError: It cannot be loaded.
    """
    from zoo.runs import use

    return use.load(model)


def push(
    run: str | Path | Run,
    repo: str,
    *,
    task: str | None = None,
    private: bool = False,
    overwrite: bool = False,
    license: str | None = None,
    dry_run: str | Path | None = None,
    on_event: Listener = ignore,
) -> Pushed:
    """Publish a finished run on the Hugging Face Hub, and prove that it loads elsewhere.

    The token's owner and rights are checked first. All files go in one commit, which is then loaded with plain timm in
    a new process with an empty cache, and its preprocessing, labels and logits are compared with the run's on the
    images in verify.safetensors.

    Args:
        run: The run, its folder or its name under `runs/`.
        repo: "ORG/NAME", your account or one of its organisations before the slash. Created if it does not exist; one
            that holds the same run, or an earlier one of the same name, is updated.
        task: The task of a multi-task run to publish, as an ordinary model with its outputs alone; default: all of them
            in one model, with their outputs concatenated.
        private: Make the repository private.
        overwrite: Replace another run, or whatever else the repository holds.
        license: A Hub licence id, which must be as strict as the weights' own; default: the weights' own.
        dry_run: Write the files to this new folder instead; needs no token and no network.
        on_event: Called with progress.

    Returns:
        Its URL, commit and files, and the result of the check.

    Raises:
        RunError: The run is not finished, or was changed since.
        HubError: The Hub cannot be reached or refuses, the repository holds something else, or the published model
            differs from the run; the message says which, and how to put it right.
    """
    from zoo.runs.extract_task import one_task
    from zoo.runs.publish.push import publish

    with tempfile.TemporaryDirectory(prefix="zoo-task-") as place:
        found = run_folder.named(run)
        chosen = found if task is None else one_task(found, task, Path(place))
        return publish(
            chosen, repo, private=private, overwrite=overwrite, license_=license, dry_run=_path(dry_run), emit=on_event
        )


def _required(backbone: str | None, dataset: str | None, recipe: Recipe) -> tuple[str, str]:
    """Backbone and data set (the first task's, if there are tasks); raises RecipeError if one is missing."""
    refuse_other_data(recipe, dataset)
    named = [spec.dataset for spec in recipe.task_specs]
    dataset = named[0] if named else dataset
    missing = [name for name, value in (("a backbone", backbone), ("a data set", dataset)) if not value]
    if missing or backbone is None or dataset is None:
        fix = "for example: zoo adapt resnet50 --dataset cifar10"
        raise RecipeError(f"{' and '.join(missing)} must be named", fix=fix)
    return backbone, dataset
