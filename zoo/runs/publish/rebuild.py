"""What somebody else does with a published model: a script of its own, in a fresh process, which knows nothing of zoo.

It takes one commit from a cache that holds nothing else, builds the model, or each member of a stack, with plain timm,
and compares what it does with what the run kept. `python rebuild.py JOB ANSWER`, both JSON files.
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
    """Rebuild the model and say what differs.

    Args:
        job: `repo`, `commit`, `files` (name -> sha256), `modules` (that register architectures), `models` (place in the
            repository -> `kept`, the run's verify.safetensors, and `tolerance` of logits, as a share of the largest),
            `classes`.

    Returns:
        `faults`, in words; `images`; `difference`, the largest between logits; `allowed`.
    """
    faults = []
    for name, expected in job["files"].items():
        content = Path(hf_hub_download(job["repo"], name, revision=job["commit"])).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            faults.append(f"{name} on the Hub is not the file that was sent")
    for module in job["modules"]:
        importlib.import_module(module)
    found = [_compared(job, place, **expected) for place, expected in job["models"].items()]
    return {
        "faults": faults + [fault for one in found for fault in one["faults"]],
        "images": sum(one["images"] for one in found),
        "difference": max(one["difference"] for one in found),
        "allowed": max(one["allowed"] for one in found),
    }


def _compared(job: dict[str, Any], place: str, kept: str, tolerance: float) -> dict[str, Any]:
    """One model of the repository; its class names may come in another order than a stack's."""
    faults = []
    what = f"{place.rstrip('/')}: " if place else ""
    name = f"hf-hub:{job['repo']}@{job['commit']}"
    if place:
        file = Path(hf_hub_download(job["repo"], f"{place}config.json", revision=job["commit"]))
        name = f"local-dir:{file.parent}"
    model: Any = timm.create_model(name, pretrained=True).eval()
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    told = load_file(kept)
    raw = [told[name] for name in sorted(told) if name.startswith("raw.")]
    inputs = torch.stack([transform(Image.fromarray(pixels.numpy())) for pixels in raw])
    if inputs.shape != told["inputs"].shape:
        faults.append(f"its preprocessing gives {tuple(inputs.shape[1:])}, the run's {tuple(told['inputs'].shape[1:])}")
    elif not torch.allclose(inputs, told["inputs"], rtol=0, atol=1e-6):
        faults.append(f"its preprocessing differs from the run's by up to {(inputs - told['inputs']).abs().max():.2g}")
    labels = list(model.pretrained_cfg.get("label_names") or ())
    if (sorted(labels) != sorted(job["classes"])) if place else (labels != job["classes"]):
        faults.append(f"it names its classes {_few(labels)}, the run {_few(job['classes'])}")
    logits, wanted = model(told["inputs"]).float(), told["logits"]
    allowed = tolerance * max(1.0, float(wanted.abs().max()))
    difference = float("inf")
    if logits.shape != wanted.shape:
        faults.append(f"it gives {logits.shape[1]} logits, the run {wanted.shape[1]}")
    else:
        difference = float((logits - wanted).abs().max())
        if not difference <= allowed:
            faults.append(
                f"its logits differ from the run's by up to {difference:.3g}; {allowed:.2g} would be rounding"
            )
    found = [f"{what}{fault}" for fault in faults]
    return {"faults": found, "images": len(raw), "difference": difference, "allowed": allowed}


def _few(names: Any) -> str:
    shown = [str(name) for name in names or ()]
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "") if shown else "nothing"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(compare(json.loads(Path(sys.argv[1]).read_text()))))
