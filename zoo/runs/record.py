"""Types of the values in run.json, checked at once, since a run folder may come from anyone.

Missing values are left to their readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from zoo.base.untrusted import is_finite
from zoo.tasks.schema import FACTS

FAULTS = 5  # that a message lists

# A type is "text", "number", "whole", "flag" or "any"; a list has the type of its items, a mapping those of its keys,
# with "*" for all others. Any value may be None (unknown), except in a list.
_WEIGHTS = {"name": "text", "source": "text", "repo": "text", "license": "text", "url": "text", "sha256": "text",
            "labels": ["text"]}  # fmt: skip
_COUNT = {"n": "whole", "per_class": ["whole"], "answers": {"*": "whole"}}
_SET = {"ref": "text", "name": "text", "hub": "text", "revision": "text", "license": "text", "tasks": ["text"],
        "fingerprint": "text", "selected_on": "text", "reported_on": "text"}  # fmt: skip
_GROUP = {"name": "text", "params": "whole", "lr": "number", "weight_decay": "number", "frozen": "flag", "norm": "text"}
_PHASE = {"name": "text", "epochs": "whole", "steps": "whole", "schedule": "text", "groups": [_GROUP], "extra": _GROUP,
          "unlabelled": "whole", "views": "whole", "eligible": "flag"}  # fmt: skip
_MISTAKE = {"id": "text", "label": "text", "predicted": "text", "probability": "number"}
_TASK = {"name": "text", "kind": "text", "classes": ["text"], "thresholds": ["number"], "mean": "number",
         "std": "number"}  # fmt: skip
_EPOCH = {"phase": "text", "epoch": "whole", "accuracy": "number"}
_TRIED = {"align": "text", "score": "number", "validators": {"*": "number"}, "source": "number", "accuracy": "number",
          "chosen": "flag", "run": "text"}  # fmt: skip
_POINTS = {"source": [["number"]], "target": [["number"]], "share": "number"}
_SCORES = {"accuracy": "number", "loss": "number", "refinement": "number"}
_MEMBER = {"name": "text", "run": "text", "id": "text", "backbone": "text"}
_AVERAGED = {**_MEMBER, **_SCORES, "phase": "text", "epoch": "whole", "step": "whole", "alpha": "number",
              "kept": "flag", "with": _SCORES}  # fmt: skip
_ANSWERED = {"problem": "text", "n": "whole", "classes": [{"name": "text", "n": "whole", "accuracy": "number"}],
             "labels": [{"name": "text", "n": "whole", "*": "number"}], "confusion": [["whole"]],
             "interval": ["number"], "calibration": [{"*": "number"}], "mistakes": [_MISTAKE],
             "*": "number"}  # fmt: skip
_NUMBERS = dict.fromkeys(("loss", "baseline", "baseline_mae", "score"), "number") | {
    measure.key: "number" for facts in FACTS.values() for measure in facts.measures
}
_SHAPE: dict[str, Any] = {
    "schema": "whole", "zoo": "text", "kind": "text", "status": "text", "name": "text", "id": "text", "created": "text",
    "backbone": {"name": "text", "arch": "text", "plugin": "text", "distribution": "text", "version": "text",
                 "module": "text", "params": "whole", "weights": _WEIGHTS},
    "dataset": {"ref": "text", "name": "text", "hub": "text", "revision": "text", "fingerprint": "text",
                "classes": ["text"], "counts": {"fit": _COUNT, "choose": _COUNT, "report": _COUNT},
                "selected_on": "text", "reported_on": "text", "license": "text", "tasks": [_TASK], "sets": [_SET],
                "bad": [{"path": "text", "error": "text"}], "notes": ["text"]},
    "recipe": {"strategy": "text"},
    "resolved": {"precision": "text", "device": "text", "norm": "text", "threads": "whole", "workers": "whole",
                 "batch_size": "whole", "processes": "whole", "lr": "number"},
    "plan": {"backbone": "text", "dataset": "text", "phases": [_PHASE], "seconds": "number", "memory_bytes": "number",
             "notes": ["text"]},
    "data_config": {"input_size": ["whole"], "mean": ["number"], "std": ["number"], "interpolation": "text",
                    "crop_pct": "number", "crop_mode": "text"},
    "environment": {},
    "result": {**_ANSWERED, **_NUMBERS, "split": "text", "selected_on": "text", "tasks": {"*": _ANSWERED}, "*": "any"},
    "refit": {"images": "whole", "epochs": {"*": "whole"}},
    "target": {"ref": "text", "name": "text", "fingerprint": "text", "n": "whole", "license": "text",
               "bad": [{"path": "text", "error": "text"}], "notes": ["text"], "align": "text", "semi": "text",
               "select_by": "text", "validators": {"*": "number"},
               "result": {"accuracy": "number", "n": "whole", "split": "text", "interval": ["number"]},
               "epochs": [_EPOCH], "chosen": _EPOCH, "oracle": _EPOCH,
               "domains": {"before": _POINTS, "after": _POINTS},
               "choosing": "whole",
               "tried": {"by": "text", "rows": [_TRIED], "left_out": {"*": "text"}}},
    "unlabelled": {"ref": "text", "name": "text", "fingerprint": "text", "n": "whole", "license": "text",
                   "bad": [{"path": "text", "error": "text"}], "notes": ["text"]},
    "best": {"phase": "text", "epoch": "whole", "accuracy": "number", "loss": "number"},
    "soup": {**_SCORES, "select_by": "text", "kept": "whole", "candidates": [_AVERAGED]},
    "wise": {"alpha": "number", "start": "text", "select_by": "text", "candidates": [_AVERAGED]},
    "stack": {"asked": "text", "folds": "whole", "choice": "text", "temperature": "number", "fit_on": "text",
              "n": "whole", "best_single": "text", "weights": ["number"],
              "members": [{**_MEMBER, "arch": "text", "params": "whole", "license": "text", "module": "text",
                           "distribution": "text", "input": "whole", "accuracy": "number"}],
              "ways": [{"kind": "text", "accuracy": "number", "loss": "number", "strength": "number",
                        "temperature": "number"}],
              "rows": [{"name": "text", "kind": "text", "chosen": "flag", "accuracy": "number", "interval": ["number"],
                        "loss": "number", "ece": "number", "n": "whole"}],
              "differences": [{"first": "text", "second": "text", "difference": "number", "interval": ["number"],
                               "p": "number", "p_adjusted": "number", "within_noise": "flag"}],
              "soup": {**_SCORES, "select_by": "text", "kept": "whole", "candidates": [_AVERAGED]}, "notes": ["text"]},
    "seconds": {"*": "number"},
    "images_per_second": "number",
    "files": {"*": "text"},
}  # fmt: skip
_KINDS = {"text": "a text", "number": "a finite number", "whole": "a whole number", "flag": "true or false"}


def record_faults(record: Mapping[str, Any]) -> list[str]:
    """The first few values of a record that have the wrong type."""
    found = list(islice(_faults(record, _SHAPE, ""), FAULTS + 1))
    return [*found[:FAULTS], "and more"] if len(found) > FAULTS else found


def _faults(value: Any, shape: Any, where: str) -> Iterator[str]:
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            yield f"{where}: must be a mapping"
            return
        for key, inner in value.items():
            if inner is not None:
                kind = shape.get(key, shape.get("*", "any"))
                yield from _faults(inner, kind, f"{where}.{key:.40}" if where else f"{key:.40}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{where}: must be a list"
            return
        for number, inner in enumerate(value):
            yield from _faults(inner, shape[0], f"{where}[{number}]")
    elif not _is(value, shape):
        yield f"{where}: must be {_KINDS[shape]}"


def _is(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    if kind == "text":
        return isinstance(value, str)
    if kind == "flag":
        return isinstance(value, bool)
    return is_finite(value) and (kind == "number" or isinstance(value, int))
