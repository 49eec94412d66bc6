"""What somebody else does with a published model: a script of its own, in a fresh process, which knows nothing of zoo.

It fetches one commit into an empty cache, builds the model with plain timm, and compares what it does with what the
run kept. `python rebuild.py JOB ANSWER`, both JSON files; the token, if there is one, comes by HF_TOKEN.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from safetensors.torch import load_file

TRIES = 4


def fetch(repo: str, name: str, revision: str) -> Path:
    """One file of the commit; the library does not try again after a 500, so this does."""
    for attempt in range(TRIES):
        try:
            return Path(hf_hub_download(repo, name, revision=revision))
        except HfHubHTTPError as error:
            if attempt == TRIES - 1 or error.response.status_code not in (429, 500, 502, 503, 504):
                raise
            asked = str(error.response.headers.get("Retry-After") or "")
            time.sleep(max(2.0**attempt, min(float(asked), 300.0) if asked.isdigit() else 0.0))
    raise AssertionError("the last try returns or raises")


@torch.inference_mode()
def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Rebuild the model and say what differs.

    Args:
        job: `repo`, `commit`, `files` (name -> sha256), `module` (registers the architecture, or None), `kept` (the
            run's verify.safetensors), `classes`, `tolerance` (of logits, as a share of the largest).

    Returns:
        `faults`, in words; `images`; `difference`, the largest between logits; `allowed`.
    """
    faults = []
    for name, expected in job["files"].items():
        content = fetch(job["repo"], name, job["commit"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            faults.append(f"{name} on the Hub is not the file that was sent")
    if job["module"]:
        importlib.import_module(job["module"])
    model: Any = timm.create_model(f"hf-hub:{job['repo']}@{job['commit']}", pretrained=True).eval()
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    kept = load_file(job["kept"])
    raw = [kept[name] for name in sorted(kept) if name.startswith("raw.")]
    inputs = torch.stack([transform(Image.fromarray(pixels.numpy())) for pixels in raw])
    if inputs.shape != kept["inputs"].shape:
        faults.append(f"its preprocessing gives {tuple(inputs.shape[1:])}, the run's {tuple(kept['inputs'].shape[1:])}")
    elif not torch.allclose(inputs, kept["inputs"], rtol=0, atol=1e-6):
        faults.append(f"its preprocessing differs from the run's by up to {(inputs - kept['inputs']).abs().max():.2g}")
    labels = model.pretrained_cfg.get("label_names")
    if list(labels or ()) != job["classes"]:
        faults.append(f"it names its classes {_few(labels)}, the run {_few(job['classes'])}")
    logits, wanted = model(kept["inputs"]).float(), kept["logits"]
    allowed = job["tolerance"] * max(1.0, float(wanted.abs().max()))
    difference = float("inf")
    if logits.shape != wanted.shape:
        faults.append(f"it gives {logits.shape[1]} logits, the run {wanted.shape[1]}")
    else:
        difference = float((logits - wanted).abs().max())
        if not difference <= allowed:
            faults.append(
                f"its logits differ from the run's by up to {difference:.3g}; {allowed:.2g} would be rounding"
            )
    return {"faults": faults, "images": len(raw), "difference": difference, "allowed": allowed}


def _few(names: Any) -> str:
    shown = [str(name) for name in names or ()]
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "") if shown else "nothing"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(compare(json.loads(Path(sys.argv[1]).read_text()))))
