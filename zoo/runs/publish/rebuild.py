"""Script that rebuilds a published model as other people would: in a fresh process, without zoo.

It builds the model, or each member of a stack, from one commit with plain timm, and compares it with the run's
verify.safetensors. Usage: `python rebuild.py JOB ANSWER`, both JSON files.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from PIL import Image
from safetensors.torch import load_file


@torch.inference_mode()
def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Rebuild the model; returns `faults` as texts, `images`, the largest `difference` between logits, and `allowed`.

    The job has `repo`, `commit`, `files` (name -> sha256), `modules` (which register architectures), `classes`, and
    `models` (folder in the repository -> `kept`, a verify.safetensors, and `tolerance`, relative to the largest logit).
    """
    faults = []
    for name, expected in job["files"].items():
        content = Path(hf_hub_download(job["repo"], name, revision=job["commit"])).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            faults.append(f"{name} on the Hub is not the file that was sent")
    for module in job["modules"]:
        importlib.import_module(module)
    compared = [_compared(job, place, **expected) for place, expected in job["models"].items()]
    return {
        "faults": faults + [fault for one in compared for fault in one["faults"]],
        "images": sum(one["images"] for one in compared),
        "difference": max(one["difference"] for one in compared),
        "allowed": max(one["allowed"] for one in compared),
    }


def _compared(job: dict[str, Any], place: str, kept: str, tolerance: float) -> dict[str, Any]:
    """Compare one model; a stack's members may have their classes in another order."""
    faults = []
    name = f"hf-hub:{job['repo']}@{job['commit']}"
    if place:
        file = Path(hf_hub_download(job["repo"], f"{place}config.json", revision=job["commit"]))
        name = f"local-dir:{file.parent}"
    model: Any = timm.create_model(name, pretrained=True).eval()
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    saved = load_file(kept)
    raw = [saved[name] for name in sorted(saved) if name.startswith("raw.")]
    inputs, expected = torch.stack([transform(Image.fromarray(pixels.numpy())) for pixels in raw]), saved["inputs"]
    if inputs.shape != expected.shape:
        faults.append(f"its preprocessing gives {tuple(inputs.shape[1:])}, the run's {tuple(expected.shape[1:])}")
    elif not torch.allclose(inputs, expected, rtol=0, atol=1e-6):
        faults.append(f"its preprocessing differs from the run's by up to {(inputs - expected).abs().max():.2g}")
    labels = list(model.pretrained_cfg.get("label_names") or ())
    if (sorted(labels) != sorted(job["classes"])) if place else (labels != job["classes"]):
        faults.append(f"it names its classes {_few(labels)}, the run {_few(job['classes'])}")
    logits, target = model(expected).float(), saved["logits"]
    allowed = tolerance * max(1.0, float(target.abs().max()))
    difference = float("inf")
    if logits.shape != target.shape:
        faults.append(f"it gives {logits.shape[1]} logits, the run {target.shape[1]}")
    else:
        difference = float((logits - target).abs().max())
        if not difference <= allowed:
            faults.append(
                f"its logits differ from the run's by up to {difference:.3g}; rounding explains {allowed:.2g}"
            )
    faults = [f"{place.rstrip('/')}: {fault}" if place else fault for fault in faults]
    return {"faults": faults, "images": len(raw), "difference": difference, "allowed": allowed}


def _few(names: Any) -> str:
    shown = [str(name) for name in names or ()]
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "") if shown else "nothing"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(compare(json.loads(Path(sys.argv[1]).read_text()))))
