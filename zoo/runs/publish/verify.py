"""Verify a pushed run: load it from the Hub in a fresh process with an empty cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from zoo.errors import HubError
from zoo.models.hub_client import one_line, place, retrying
from zoo.runs.publish.contents import Published, is_stack, places
from zoo.runs.run_folder import Run

# Largest difference from the run's logits, as a share of the largest: float32 rounding, and a GPU's TF32 convolutions.
TOLERANCE = {"cpu": 1e-4}
TOLERANCE_ELSEWHERE = 1e-2
_SCRIPT = Path(__file__).with_name("rebuild.py")
_OWN = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_XET_CACHE", "HF_TOKEN_PATH", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True, slots=True)
class Proof:
    """The comparison of a published copy with its run."""

    images: int  # compared by preprocessing and logits
    difference: float  # largest between its logits and the run's
    allowed: float  # largest that counts as rounding
    module: str | None  # imported first, to register the architecture with timm

    def record(self) -> dict[str, Any]:
        """The proof as plain values."""
        return asdict(self)


def verify(
    run: Run, record: Mapping[str, Any], repo: str, commit: str, files: Sequence[Published], *, replaced: str | None
) -> Proof:
    """Fetch a commit into an empty cache, rebuild the model with plain timm, and compare it with the run.

    A fresh process without network or token rebuilds it. `replaced` is the commit before, which the error names.
    Raises HubError if the copy cannot be fetched or built, or differs from the run.
    """
    needing = record["stack"]["members"] if is_stack(record) else [record["backbone"]]
    modules = list(dict.fromkeys(one["module"] for one in needing if one.get("module")))
    job = {
        "repo": repo,
        "commit": commit,
        "files": {file.name: file.sha256 for file in files},
        "modules": modules,
        "models": {place: _expected(Run(run.path / place), record if not place else None) for place in places(record)},
        "classes": record["dataset"]["classes"],
    }
    what = f"{repo} was pushed (commit {commit[:12]}), but is not verified"
    with tempfile.TemporaryDirectory(prefix="zoo-verify-") as name:
        folder = Path(name)
        for file in files:
            get = partial(hf_hub_download, repo, file.name, revision=commit, cache_dir=folder / "hf" / "hub")
            retrying(get, what, repo=repo)
        answer = _rebuild(job, folder, what)
    if answer["faults"]:
        raise HubError(what, why="; ".join(answer["faults"]), fix=_take_back(repo, commit, replaced))
    return Proof(answer["images"], answer["difference"], answer["allowed"], ", ".join(modules) or None)


def _expected(model: Run, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """The file with a model's expected logits, and their tolerance, which depends on the run's device."""
    device = (record or model.record)["resolved"].get("device")
    kept = str((model.path / "verify.safetensors").resolve())
    return {"kept": kept, "tolerance": TOLERANCE.get(device, TOLERANCE_ELSEWHERE)}


def _rebuild(job: Mapping[str, Any], folder: Path, what: str) -> dict[str, Any]:
    """Run `zoo.runs.publish.rebuild` in a process of its own; returns its answer."""
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    # -P keeps the script's folder out of sys.path.
    command = [sys.executable, "-P", str(_SCRIPT), str(folder / "job.json"), str(folder / "answer.json")]
    done = subprocess.run(
        command, env=_environment(folder), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
        raise HubError(
            what,
            why=f"loading it back ended with: {one_line(last or f'exit code {done.returncode}')}",
            fix="run the same command again: files on the Hub are not sent twice, and are checked again",
        )
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return answer


def _environment(folder: Path) -> dict[str, str]:
    """This process's environment with its own cache, without secrets."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    return environment | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}


def _take_back(repo: str, commit: str, replaced: str | None) -> str:
    if replaced is None:
        return f"take it back: hf repos delete {repo}"
    name = repo.rpartition("/")[2]
    return (
        f"take it back: git clone {place()}/{repo} && cd {name} && git revert --no-edit {commit} && git push "
        f"(what was there before is {repo}@{replaced[:12]})"
    )
