"""From trained weights to a finished run folder: saved, loaded back, measured, written up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from PIL import Image
from timm.data import create_transform
from torch import nn

from zoo import data
from zoo.base.files import replacing, write_atomic
from zoo.data import Dataset, Part
from zoo.errors import DataError
from zoo.events import Listener, Progress, ResultReady
from zoo.models import heads, preprocessing, saved
from zoo.models.preprocessing import DataConfig
from zoo.models.tensor_files import file_sha256, write_tensors
from zoo.runs import domains, run_folder
from zoo.runs.prepare import Prepared
from zoo.runs.publish.card import model_card
from zoo.runs.report.page import write_report
from zoo.runs.run_folder import Run
from zoo.tasks import scoring
from zoo.tasks.schema import Task, task_records
from zoo.training.collect import collect
from zoo.training.loaded import Loaded, Work
from zoo.training.state.session import Session

VERIFIED = 16  # images whose inputs and logits are kept, to check a copy of the model against
SEALED = ("config.json", "model.safetensors", "verify.safetensors")  # run.json has their hashes, and its own
THUMBNAIL = 200  # long side of the report's pictures, pixels


def finish(
    this: Run,
    ready: Prepared,
    session: Session,
    course: Mapping[str, Any],
    tasks: Sequence[Task],
    *,
    setup: float,
    began: float,
) -> dict[str, Any]:
    """Save the model, load it back, measure that, and write record, card and report.

    Args:
        this: The run.
        ready: What was trained; its model holds the weights to save.
        session: Where training ended.
        course: What the record says of training: the best epoch, a second training, averages.
        tasks: What images answer, with what was chosen when training was over.
        setup: Seconds before training.
        began: When it all began, by the monotonic clock.

    Returns:
        The finished record; `files` is in that of the main process alone, which writes them.
    """
    loaded, settled = ready.loaded, ready.work.settled
    training, accelerator = session.seconds, loaded.accelerator
    domains.recalibrated(loaded, settled.batch)
    heads.put_scales(loaded.model, tasks)
    if accelerator.is_main_process:
        saved.save(
            loaded.model,
            this.path,
            class_names=loaded.dataset.classes,
            data_config=loaded.config,
            zoo={
                "run": this.record["id"],
                **{key: this.record[key] for key in ("name", "created")},
                "backbone": loaded.spec.full_name,
                "requires": saved.requires(loaded.spec),
            },
            tasks=tasks,
        )
    accelerator.wait_for_everyone()
    model, result = measured(this, loaded.dataset, accelerator, settled.batch, settled.workers or 0, session.emit)
    result["selected_on"] = domains.chosen_on(loaded, settled)
    bad = _met(loaded, ready.work, result.pop("bad"))
    images = session.position.images * accelerator.num_processes
    record = this.record | {
        "status": "finished",
        "dataset": this.record["dataset"] | bad | task_records(tasks),
        "result": result,
        **course,
        "seconds": {
            "setup": round(setup, 3),
            "data": round(loaded.data_seconds, 3),
            "train": round(training, 3),
            "data_wait": round(session.position.waited, 3),
            "total": round(time.monotonic() - began, 3),
        },
        "images_per_second": round(images / training, 1) if training else None,
        **domains.described(this, loaded, settled, ready.plan, course.get("best"), model),
    }
    session.emit(ResultReady(str(this.path), record))  # drawing takes longer than many a training
    if accelerator.is_main_process:
        write_verification(this, loaded.dataset.test, model)
        write_up(this, loaded.dataset.test, record)
        shutil.rmtree(this.checkpoints, ignore_errors=True)  # a finished run needs no states to go on from
    accelerator.wait_for_everyone()
    return record


def measured(
    this: Run, dataset: Dataset, accelerator: Accelerator, batch_size: int, workers: int, emit: Listener
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the saved model back, and say how well it does on the images that report.

    Returns:
        The model on its device, and a record's `result`, with the images that could not be read as `bad`.
    """
    model = saved.load(this.path).to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    part = dataset.test
    batches = data.eval_batches(
        part,
        config=preprocessing.data_config(model),
        batch_size=batch_size,
        workers=workers,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
    )

    def tell(done: int) -> None:
        emit(Progress("measuring the saved model", done * accelerator.num_processes, len(part)))

    outputs = collect(model, batches, accelerator, mixed=False, on_batch=tell)
    names = [part.id(place) for place in outputs.positions.tolist()]
    result = scoring.measured(outputs, saved.tasks(this.path, dataset.classes), names)
    result |= {"split": dataset.reported_on, "selected_on": dataset.selected_on}
    return model, result | {"bad": [image.as_dict() for image in batches.skipped.values()]}


def _met(loaded: Loaded, work: Work, reported: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """A record's `bad` with the unreadable images that were met later, where there were too many to look at first."""
    found = {image.path: image.as_dict() for image in loaded.dataset.bad}
    met = [image.as_dict() for loader in (work.loader, work.val_loader) for image in loader.skipped.values()]
    everyone = gather_object([*met, *reported]) if loaded.accelerator.num_processes > 1 else [*met, *reported]
    return {"bad": [*(found | {each["path"]: each for each in everyone}).values()]}


def write_up(this: Run, part: Part, record: dict[str, Any], sealed: Sequence[str] = SEALED) -> None:
    """Write the card, the report and the record of a finished run, which gets the hashes of its files.

    Args:
        this: The run.
        part: The images that its result is measured on.
        record: Its record.
        sealed: Files whose hashes it gets.
    """
    write_atomic(this.path / "README.md", model_card(record))
    record["files"] = {name: file_sha256(this.path / name) for name in sealed} | {"run.json": run_folder.seal(record)}
    write_report(this, _pictures(part, [row["id"] for row in record["result"]["mistakes"]]), record)
    this.write_record(record)  # last: a run that says it is finished lacks nothing


@torch.no_grad()
def write_verification(this: Run, part: Part, model: nn.Module) -> None:
    """Keep a few raw images, their preprocessed tensors and logits, to check a copy of the model against.

    Tensors: `raw.00` … (H, W, 3) uint8; `inputs` (N, C, H, W) and `logits` (N, classes), float32.
    """
    config: DataConfig = preprocessing.data_config(model)
    transform = create_transform(**config.as_dict(), is_training=False)
    chosen = np.linspace(0, len(part) - 1, min(VERIFIED, len(part))).astype(int).tolist()
    pictures = list(_readable(part, chosen))
    inputs = torch.stack([transform(picture) for picture in pictures])
    device = next(model.parameters()).device
    tensors = {f"raw.{number:02d}": torch.from_numpy(np.array(picture)) for number, picture in enumerate(pictures)}
    tensors |= {"inputs": inputs, "logits": model.eval()(inputs.to(device)).float().cpu()}
    with replacing(this.path / "verify.safetensors") as temporary:
        write_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def _readable(part: Part, positions: Sequence[int]) -> Iterator[Image.Image]:
    """The images at these positions, without those that cannot be read, where such may be left out."""
    for position in positions:
        try:
            yield part.image(position)
        except DataError:
            if part.on_bad_image == "error":
                raise


def _pictures(part: Part, ids: list[str]) -> dict[str, Image.Image]:
    """Small pictures of some images, by id."""
    position = {name: index for index, name in enumerate(part.ids)}
    pictures = {}
    for name in ids:
        picture = part.image(position[name])
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        pictures[name] = picture
    return pictures
