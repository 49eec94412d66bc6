"""Extract one task of a multi-task run as a run of its own, to publish it alone."""

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

NEAR = 1e-4  # largest difference from the whole model's outputs, relative to the largest: float32 rounding


def one_task(whole: Run, name: str, folder: Path) -> Run:
    """Write the run folder of one task: the task's result, and the head's rows for it.

    Raises RunError if the run is not finished or was changed since, has no such task, or its head cannot be split.
    """
    record = checked_record(whole)
    tasks = saved.tasks(whole.path, record["dataset"]["classes"])
    span = next((span for span in spans(tasks) if span.task.name == name), None)
    if span is None or len(tasks) < 2:
        why = f"its tasks are: {', '.join(task.name for task in tasks)}" if len(tasks) > 1 else "it has no tasks"
        raise RunError(f"{whole.path} has no task {name!r}", why=why, fix="name one of them, or leave --task out")
    if name not in record["result"]["tasks"]:
        raise RunError(
            f"the task {name} of {whole.path} cannot be published alone",
            why=f"no image of {record['result']['split']} has a target for it, so it was never measured",
            fix="publish all tasks together: leave --task out; or train again with images there that have one",
        )
    network = saved.load(whole.path)
    small = heads.one_task(network, tasks, name)
    verification = load_file(whole.path / "verify.safetensors")
    logits = verification["logits"][:, span.outputs].contiguous()
    with torch.inference_mode():
        difference = (small(verification["inputs"]).float() - logits).abs().max()
    if not difference <= NEAR * max(1.0, float(logits.abs().max())):
        raise RunError(
            f"the task {name} of {whole.path} cannot be extracted",
            why=f"the outputs of its head alone differ by up to {difference:.2g}",
            fix="publish all tasks together: leave --task out",
        )
    own = _record(record, span)
    about = {"run": own["id"], "name": own["name"], "created": own["created"], "backbone": own["backbone"]["name"]}
    saved.save(
        small,
        folder,
        class_names=span.task.output_names,
        data_config=preprocessing.data_config(network),
        zoo={**about, "requires": _requires(own)},
        tasks=(alone(span.task),),
    )
    write_tensors({**verification, "logits": logits}, folder / "verify.safetensors")
    write_atomic(folder / "README.md", model_card(own))
    sealed = ("config.json", "model.safetensors", "verify.safetensors")
    own["files"] = {file: file_sha256(folder / file) for file in sealed} | {"run.json": run_folder.seal(own)}
    Run(folder).write_record(own)
    return Run(folder)


def _record(record: dict[str, Any], span: Span) -> dict[str, Any]:
    """The record of the task's own run; of a single-label task it is like any classifier's."""
    task = span.task
    own = copy.deepcopy({key: value for key, value in alone_record(record, span).items() if key != "files"})
    own["kind"] = "classifier"
    own["name"] = f"{record['name']}-{task.name}"
    own["id"] = uuid.uuid5(uuid.NAMESPACE_OID, f"{record['id']} {task.name}").hex  # the same when pushed again
    if alone(task).plain:
        own["dataset"].pop("tasks")
        own["result"].pop("problem")
    return own


def _requires(record: dict[str, Any]) -> dict[str, Any] | None:
    backbone = record["backbone"]
    if backbone.get("module") is None:
        return None
    return {key: backbone[key] for key in ("distribution", "version", "module")}
