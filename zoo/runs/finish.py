"""Finish a run: save the model, load it back, measure it, write record, card and report."""

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

VERIFIED = 16  # images whose inputs and logits are saved, to check copies of the model
SEALED = ("config.json", "model.safetensors", "verify.safetensors")  # run.json has their hashes and its own
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
    """Save the model in `ready`, measure it loaded back, and write the folder's files; returns the record.

    `course` is added to the record; `tasks` have their thresholds; `setup` are seconds before training, `began` is a
    time of the monotonic clock. Only the main process writes, and has `files` in its record.
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
                "name": this.record["name"],
                "created": this.record["created"],
                "backbone": loaded.spec.full_name,
                "requires": saved.requires(loaded.spec),
            },
            tasks=tasks,
        )
    accelerator.wait_for_everyone()
    model, result = measured(this, loaded.dataset, accelerator, settled.batch, settled.workers or 0, session.emit)
    result["selected_on"] = domains.chosen_on(loaded, settled)
    bad = _unreadable(loaded, ready.work, result.pop("bad"))
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
    session.emit(ResultReady(str(this.path), record))  # before the plots, which may take longer than training
    if accelerator.is_main_process:
        write_verification(this, loaded.dataset.test, model)
        write_up(this, loaded.dataset.test, record)
        shutil.rmtree(this.checkpoints, ignore_errors=True)  # a finished run is never resumed
    accelerator.wait_for_everyone()
    return record


def measured(
    this: Run, dataset: Dataset, accelerator: Accelerator, batch_size: int, workers: int, emit: Listener
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the saved model and test it: the model, and a record's `result` with unreadable images as `bad`."""
    model = saved.load(this.path).to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = data.eval_batches(
        dataset.test,
        config=preprocessing.data_config(model),
        batch_size=batch_size,
        workers=workers,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        device=accelerator.device,
    )

    def tell(done: int) -> None:
        emit(Progress("measuring the saved model", done * accelerator.num_processes, len(dataset.test)))

    outputs = collect(model, batches, accelerator, mixed=False, on_batch=tell)
    names = [dataset.test.id(place) for place in outputs.positions.tolist()]
    result = scoring.measured(outputs, saved.tasks(this.path, dataset.classes), names)
    result |= {"split": dataset.reported_on, "selected_on": dataset.selected_on}
    return model, result | {"bad": [image.as_dict() for image in batches.skipped.values()]}


def _unreadable(loaded: Loaded, work: Work, reported: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """A record's `bad`, with the images that proved unreadable during the run: a large data set is not read first."""
    bad = [image.as_dict() for loader in (work.loader, work.val_loader) for image in loader.skipped.values()]
    bad += reported
    if loaded.accelerator.num_processes > 1:
        bad = gather_object(bad)
    return {
        "bad": [*{each["path"]: each for each in (*(image.as_dict() for image in loaded.dataset.bad), *bad)}.values()]
    }


def write_up(this: Run, part: Part, record: dict[str, Any], sealed: Sequence[str] = SEALED) -> None:
    """Write card, report and record of a finished run with its test images; adds hashes of `sealed` to the record."""
    write_atomic(this.path / "README.md", model_card(record))
    record["files"] = {name: file_sha256(this.path / name) for name in sealed} | {"run.json": run_folder.seal(record)}
    write_report(this, _pictures(part, [row["id"] for row in record["result"]["mistakes"]]), record)
    this.write_record(record)  # last, so that a finished run is complete


@torch.no_grad()
def write_verification(this: Run, part: Part, model: nn.Module) -> None:
    """Save a few raw images, their preprocessed tensors and logits, to check copies of the model.

    Tensors: `raw.00` … (H, W, 3) uint8; `inputs` (N, C, H, W) and `logits` (N, classes), float32.
    """
    transform = create_transform(**preprocessing.data_config(model).as_dict(), is_training=False)
    chosen = np.linspace(0, len(part) - 1, min(VERIFIED, len(part))).astype(int).tolist()
    pictures = list(_readable(part, chosen))
    inputs = torch.stack([transform(picture) for picture in pictures])
    device = next(model.parameters()).device
    tensors = {f"raw.{number:02d}": torch.from_numpy(np.array(picture)) for number, picture in enumerate(pictures)}
    tensors |= {"inputs": inputs, "logits": model.eval()(inputs.to(device)).float().cpu()}
    with replacing(this.path / "verify.safetensors") as temporary:
        write_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def _readable(part: Part, positions: Sequence[int]) -> Iterator[Image.Image]:
    """The images at these positions; unreadable ones are left out if the data set may skip them."""
    for position in positions:
        try:
            yield part.image(position)
        except DataError:
            if part.on_bad_image == "error":
                raise


def _pictures(part: Part, ids: list[str]) -> dict[str, Image.Image]:
    """Thumbnails of images, by id."""
    position = {name: index for index, name in enumerate(part.ids)}
    pictures = {}
    for name in ids:
        picture = part.image(position[name])
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        pictures[name] = picture
    return pictures
