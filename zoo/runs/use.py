"""Use a finished run or a pretrained backbone: load, evaluate, predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from torch import nn

from zoo import data
from zoo.base.references import HUB_MODEL, may_be_repo
from zoo.data import DataOptions, Part, evaluation_options
from zoo.data.loose_images import Picture
from zoo.errors import DataError, PluginError, RunError, WeightsError
from zoo.events import Listener, Note, Progress, ignore
from zoo.models import lookup, preprocessing, saved
from zoo.models.preprocessing import DataConfig
from zoo.models.spec import Weights
from zoo.recipes.recipe import Recipe
from zoo.runs import publish
from zoo.runs import run_folder as run
from zoo.runs.load import data_options
from zoo.runs.recipe_file import recipe_of_run
from zoo.runs.run_folder import Run
from zoo.runs.stacked.held_out import images_of
from zoo.runs.stacked.model import Stacked, load_stack
from zoo.tasks.outputs import Outputs
from zoo.tasks.predictions import Prediction, predictions
from zoo.tasks.schema import Task, is_plain, one_class
from zoo.tasks.scoring import measured
from zoo.training import machine
from zoo.training.collect import collect


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model ready for use."""

    model: nn.Module  # timm model, eval mode
    classes: tuple[str, ...]  # names of its outputs
    config: DataConfig
    run: Run | None  # None: a backbone with its pretrained head
    name: str
    tasks: tuple[Task, ...]


def open_classifier(model: str | Path | Run, emit: Listener = ignore) -> Classifier:
    """Load a run by folder or name, a model on the Hub, or a backbone with its pretrained head."""
    local = model if isinstance(model, Run) else run.find(model)
    if local is not None:
        record = local.finished_record()
        if record.get("kind") == "stack":
            return _stacked(load_stack(local.path, record), record, local, local.name)
        network = saved.load(local.path)
        classes = tuple((record.get("dataset") or {}).get("classes") or ())
        if len(classes) != network.num_classes:
            raise RunError(
                f"{local.record_path} does not belong to the model in its folder",
                why=f"it names {len(classes)} classes, and the model has {network.num_classes}",
                fix="restore both files of one run",
            )
        tasks = saved.tasks(local.path, classes)
        return Classifier(network, classes, preprocessing.data_config(network), local, local.name, tasks)
    text = str(model)
    if text.startswith(HUB_MODEL) and not isinstance(model, Path):
        return _from_hub(text.removeprefix(HUB_MODEL), emit)
    if isinstance(model, Path) or Path(text).exists():
        raise run.not_a_run(model)
    try:
        spec = lookup.get(text)
    except PluginError as error:
        installed = {plugin.name for plugin in lookup.discover().plugins}
        if may_be_repo(text) and text.partition("/")[0] not in installed:
            return _from_hub(text, emit)
        fix = f"{error.fix}; or name a run folder: see `zoo runs`" if error.fix else "see `zoo list` and `zoo runs`"
        what = f"{model!r} is neither a run nor a backbone"
        raise PluginError(what, why=error.what, fix=run.near(text) + fix) from None
    weights = saved.resolve_weights(spec, "default")
    if weights is None:
        raise WeightsError(f"{spec.full_name} has no pretrained weights", fix="adapt it to your images first")
    network = saved.build(spec, weights=weights).eval()
    classes, config = saved.labels(network, weights), preprocessing.data_config(network)
    return Classifier(network, classes, config, None, spec.full_name, one_class(classes))


def _stacked(network: Stacked, record: Mapping[str, Any], run: Run | None, name: str) -> Classifier:
    classes = tuple(record["dataset"]["classes"])
    return Classifier(network, classes, network.configs[0], run, name, one_class(classes))


def _from_hub(reference: str, emit: Listener) -> Classifier:
    emit(Progress(f"fetching {reference}", 0, 0))
    name = f"{HUB_MODEL}{reference}"
    try:
        folder = publish.fetch(reference, emit)
    except publish.NoModel:
        stack = publish.fetch_stack(reference, emit)
        if stack is None:
            raise
        return _stacked(load_stack(*stack), stack[1], None, name)
    network = saved.load(folder, name)
    # A timm repository's name tells which ImageNet label set its head has; ours have their labels in the config.
    weights = Weights(name=reference, source="hf-hub", repo=reference)
    classes, config = saved.labels(network, weights), preprocessing.data_config(network)
    return Classifier(network, classes, config, None, name, saved.tasks(folder, classes))


def load(model: str | Path | Run) -> nn.Module:
    """Load a model as a torch module: see `zoo.api.load`."""
    classifier = open_classifier(model)
    network: Any = classifier.model
    if not isinstance(network, Stacked):  # a stack has its own transform, as its members' preprocessing may differ
        network.transform = create_transform(**classifier.config.as_dict(), is_training=False)
    network.class_names = classifier.classes
    network.tasks = () if is_plain(classifier.tasks) else classifier.tasks
    loaded: nn.Module = network
    return loaded


def evaluate(
    model: str | Path | Run,
    dataset: str | None,
    *,
    split: str | None,
    batch_size: int,
    path_column: str | None,
    label_column: str | None,
    label_separator: str | None,
    dataset_config: str | None,
    on_bad_image: str,
    emit: Listener,
) -> dict[str, Any]:
    """Score a model: see `zoo.api.evaluate`."""
    classifier = open_classifier(model, emit)
    stack = isinstance(classifier.model, Stacked) and classifier.run is not None
    own = recipe_of_run(classifier.run.record) if classifier.run is not None and not stack else None
    if dataset is None and own is None and not stack:
        raise RunError(f"{classifier.name} has no data set of its own", fix="name one with --dataset")
    recipe = own.recipe if own is not None and dataset is None else Recipe()
    specs = own.recipe.task_specs if own is not None else ()
    options = DataOptions(
        path_column=path_column or recipe.path_column,
        label_column=label_column or recipe.label_column,
        problem=recipe.problem,
        specs=recipe.task_specs,
        label_separator=label_separator or (own.recipe.label_separator if own is not None else None),
        config=dataset_config or recipe.dataset_config,
        train_per_class=recipe.train_per_class,
        limit=recipe.limit,
        val_fraction=recipe.val_fraction,
        on_bad_image="skip" if "skip" in (on_bad_image, recipe.on_bad_image) else "error",
        fold=recipe.held_fold,
        seed=recipe.cut_seed,
    )
    selected_on = None
    if dataset is None and split is not None and len({spec.dataset for spec in specs}) > 1:
        raise RunError(
            f"{classifier.name} was trained on several data sets, and --split is about one",
            fix="name one of them with --dataset",
        )
    if dataset is None and stack:
        assert classifier.run is not None
        if split is not None:
            raise RunError(f"{classifier.name} has no splits of its own", fix="name the data as well: --dataset …")
        held = images_of(classifier.run, emit)
        part, where, bad, selected_on = held.test, held.reported_on, held.dataset.bad, held.fit_on
    elif dataset is None and split is None and own is not None and own.dataset is not None:
        opened = data.open_dataset(own.dataset, options, lambda *progress: emit(Progress(*progress)))
        part, where, bad, selected_on = opened.test, opened.reported_on, opened.bad, opened.selected_on
        assert classifier.run is not None
        before = classifier.run.record["dataset"]["fingerprint"]
        if ("cut from" in where or recipe.fold) and opened.fingerprint != before:
            raise DataError(
                f"the data of {classifier.run.path} changed since it was trained",
                why=f"its result is about {where}, which cut again would include images that it was trained on",
                fix="name images that it has not seen: --dataset …",
            )
    else:
        reference = dataset or (own.dataset if own is not None else None)
        assert reference is not None
        options = evaluation_options(reference, classifier.tasks, specs, replace(options, specs=()))
        evaluation = data.open_evaluation(
            reference, classifier.classes, options, lambda *progress: emit(Progress(*progress)), split=split
        )
        part, where, bad = evaluation.part, evaluation.split, evaluation.bad
    outputs = _outputs(classifier, part, batch_size, emit)
    names = [part.id(place) for place in outputs.positions.tolist()]
    return {
        "model": classifier.name,
        "dataset": dataset or (own.dataset if own is not None else None),
        "split": where,
        "selected_on": selected_on,
        **measured(outputs, classifier.tasks, names),
        "bad": [image.as_dict() for image in bad],
    }


def own_outputs(run_: Run, emit: Listener = ignore) -> tuple[Outputs, list[str], Classifier]:
    """The predictions of a finished run for its test images, and their ids in order."""
    classifier = open_classifier(run_, emit)
    own = recipe_of_run(run_.record)
    assert own.dataset is not None
    options = data_options(own.recipe, classifier.config)
    opened = data.open_dataset(own.dataset, options, lambda *progress: emit(Progress(*progress)))
    outputs = _outputs(classifier, opened.test, 32, emit)
    return outputs, opened.test.ids, classifier


def _outputs(classifier: Classifier, part: Part, batch_size: int, emit: Listener) -> Outputs:
    """A classifier's predictions in float32; moves its model to the device."""

    def count(done: int) -> None:
        emit(Progress("evaluating", min(len(part), done * accelerator.num_processes), len(part)))

    accelerator = machine.make_accelerator(machine.settle(Recipe(precision="fp32")))
    network = classifier.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(network, Stacked):  # each process predicts all images: a stack is used on few of them
        outputs = network.panel.over(part, batch_size, count)
        return Outputs(network.combiner.logs(outputs.logs, outputs.features).float(), outputs.labels)
    batches = data.eval_batches(
        part,
        config=classifier.config,
        batch_size=batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
    )
    return collect(network, batches, accelerator, mixed=False, on_batch=count)


class Predictor:
    """A model that is opened once, to predict any number of times.

    Args:
        model: As for `zoo.evaluate`.
        on_event: Receives progress events.

    Attributes:
        name: Name of the run or backbone.
        classes: Class names, in the head's order.
        tasks: The tasks; empty for one class per image.

    Raises:
        ZooError: The model cannot be used.
    """

    def __init__(self, model: str | Path | Run, *, on_event: Listener = ignore) -> None:
        self._emit = on_event
        classifier = open_classifier(model, on_event)
        self.name, self.classes, self._tasks = classifier.name, classifier.classes, classifier.tasks
        self.tasks = () if is_plain(self._tasks) else self._tasks
        self._transform = _transform(classifier)
        self._device = machine.make_accelerator(machine.settle(Recipe(precision="fp32"))).device
        network: Any = classifier.model
        self._network = network.to(self._device, memory_format=torch.channels_last)

    def predict(self, images: Picture | Iterable[Picture], *, top: int = 5, batch_size: int = 32) -> list[Prediction]:
        """Predict the classes, labels or values of images.

        Args:
            images: One or several files or folders (with all images below), or images in memory: encoded files as
                bytes, PIL images, or pixels (H, W), (H, W, 3) or (H, W, 4) of uint8.
            top: Number of classes to return for each image.
            batch_size: Images per batch.

        Returns:
            A prediction per image, in order. An unreadable image has `error` set and does not stop the others. The
            `path` of an image in memory is its position: `images[0]`.
        """
        given = [images] if isinstance(images, str | Path | bytes | Image.Image) else images
        remarks: dict[str, list[str]] = {}
        source = data.open_images(given, lambda path, text: remarks.setdefault(text, []).append(path))
        predicted: list[Prediction] = []
        while chunk := list(islice(source, batch_size)):
            predicted += self._labelled(chunk, top)
            self._emit(Progress("predicting", len(predicted), 0))
        for text, paths in remarks.items():
            self._emit(Note(f"{len(paths)} image(s) {text} (such as {paths[0]})"))
        return predicted

    @torch.no_grad()
    def _labelled(self, chunk: Sequence[tuple[str, Image.Image | DataError]], top: int) -> list[Prediction]:
        readable = [(path, self._transform(image)) for path, image in chunk if not isinstance(image, Exception)]
        labelled: Iterator[Prediction] = iter(())
        if readable:
            inputs = [torch.stack(same) for same in zip(*(tensors for _, tensors in readable), strict=True)]
            pixels = [each.to(self._device, memory_format=torch.channels_last) for each in inputs]
            logits = self._network(*pixels).float().cpu()
            labelled = iter(predictions([path for path, _ in readable], logits, self._tasks, top))
        return [
            Prediction(path, None, None, error=_one_line(image)) if isinstance(image, Exception) else next(labelled)
            for path, image in chunk
        ]


def _transform(classifier: Classifier) -> Callable[[Image.Image], tuple[torch.Tensor, ...]]:
    """From an image to the model's inputs: a tensor (C, H, W), or one for each preprocessing of a stack."""
    if isinstance(classifier.model, Stacked):
        return classifier.model.transform
    one = create_transform(**classifier.config.as_dict(), is_training=False)
    return lambda image: (one(image),)


def _one_line(error: Exception) -> str:
    what, why = getattr(error, "what", str(error)), getattr(error, "why", "")
    return f"{what}: {why}" if why else str(what)
