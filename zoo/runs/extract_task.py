"""One task of a run as a run of its own: an ordinary timm model with that task alone, ready to be published."""

from __future__ import annotations

import copy
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from zoo.base.files import write_atomic
from zoo.errors import RunError
from zoo.models import heads, preprocessing, saved
from zoo.models.tensor_files import file_sha256, write_tensors
from zoo.runs import run_folder
from zoo.runs.publish.card import model_card
from zoo.runs.publish.contents import checked_record
from zoo.runs.report.task_sections import alone_record
from zoo.runs.run_folder import Run
from zoo.tasks.schema import Span, alone, spans

NEAR = 1e-4  # how far outputs may be from the whole model's, relative to the largest: float32 in another order


def one_task(whole: Run, name: str, folder: Path) -> Run:
    """Write a run folder of one task.

    Args:
        whole: A finished run of several tasks.
        name: The task.
        folder: Where to; a new folder.

    Returns:
        The run. It has the result of the task, and of the head the rows that answer it.

    Raises:
        RunError: The run is not finished or was changed since, has no such task, or its head cannot be taken apart.
    """
    record = checked_record(whole)
    tasks = saved.tasks(whole.path, record["dataset"]["classes"])
    span = next((span for span in spans(tasks) if span.task.name == name), None)
    if span is None or len(tasks) < 2:
        there = f"its tasks are: {', '.join(task.name for task in tasks)}" if len(tasks) > 1 else "it has no tasks"
        raise RunError(f"{whole.path} has no task {name!r}", why=there, fix="name one of them, or leave --task out")
    if name not in record["result"]["tasks"]:
        raise RunError(
            f"the task {name} of {whole.path} cannot be published alone",
            why=f"no image of {record['result']['split']} answers it, so it was never measured",
            fix="publish all tasks together: leave --task out; or train again with images there that answer it",
        )
    network = saved.load(whole.path)
    small = heads.one_task(network, tasks, name)
    kept = load_file(whole.path / "verify.safetensors")
    logits = kept["logits"][:, span.outputs].contiguous()
    with torch.inference_mode():
        difference = (small(kept["inputs"]).float() - logits).abs().max()
    if not difference <= NEAR * max(1.0, float(logits.abs().max())):
        raise RunError(
            f"the task {name} of {whole.path} cannot be taken out",
            why=f"alone the head says otherwise, by up to {difference:.2g}",
            fix="publish all tasks together: leave --task out",
        )
    made = Run(folder)
    found = _record(record, span)
    facts = {key: found[key] for key in ("name", "created")}
    saved.save(
        small,
        folder,
        class_names=span.task.output_names,
        data_config=preprocessing.data_config(network),
        zoo={"run": found["id"], **facts, "backbone": found["backbone"]["name"], "requires": _requires(found)},
        tasks=(alone(span.task),),
    )
    write_tensors({**kept, "logits": logits}, folder / "verify.safetensors")
    write_atomic(folder / "README.md", model_card(found))
    sealed = ("config.json", "model.safetensors", "verify.safetensors")
    found["files"] = {file: file_sha256(folder / file) for file in sealed} | {"run.json": run_folder.seal(found)}
    made.write_record(found)
    return made


def _record(record: dict[str, Any], span: Span) -> dict[str, Any]:
    """The record of the task's own run: one of classes says no more of tasks than any classifier's."""
    task = span.task
    found = copy.deepcopy({key: value for key, value in alone_record(record, span).items() if key != "files"})
    found["kind"] = "classifier"
    found["name"] = f"{record['name']}-{task.name}"
    found["id"] = uuid.uuid5(uuid.NAMESPACE_OID, f"{record['id']} {task.name}").hex  # the same when it is pushed again
    if alone(task).plain:
        found["dataset"].pop("tasks")
        found["result"].pop("problem")
    return found


def _requires(record: dict[str, Any]) -> dict[str, Any] | None:
    backbone = record["backbone"]
    if backbone.get("module") is None:
        return None
    return {key: backbone[key] for key in ("distribution", "version", "module")}
