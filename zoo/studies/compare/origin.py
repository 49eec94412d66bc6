"""Origin of a member's initial weights: their source, licence and training data, as far as recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import RunError
from zoo.models.spec import BackboneSpec, Weights
from zoo.runs.run_folder import read_record

NONE = "random weights"


def of(spec: BackboneSpec, weights: Weights | None) -> dict[str, str | None]:
    """Name, source ("timm", "url", "hf-hub", "file", "random"), licence and origin of weights; None: random ones.

    The origin is the training data by a run's record, or else the weights' name. Members that share it differ by
    architecture alone.
    """
    if weights is None:
        return {"name": "none", "source": "random", "license": None, "origin": NONE}
    origin = weights.repo or weights.name
    if weights.path is not None and weights not in spec.weights:  # the user's own
        origin = _by_its_run(Path(weights.path)) or weights.path
    return {"name": weights.name, "source": weights.source, "license": weights.license, "origin": origin}


def words(facts: Mapping[str, Any] | None, asked: str) -> str:
    """The same as text; if nothing is known, the weights that were asked for."""
    if facts is None:
        return asked
    if facts["source"] == "random":
        return str(facts["origin"])
    origin = Path(str(facts["origin"]))
    name = "/".join(origin.parts[-2:]) if origin.is_absolute() else str(facts["origin"])
    return f"{name} ({', '.join(filter(None, (facts['source'], facts['license'])))})"


def _by_its_run(file: Path) -> str | None:
    if file.name != "model.safetensors":
        return None
    try:
        record = read_record(file.parent)
        before = record["backbone"]["weights"]
        return f"{record['dataset']['name']}, after {before['name'] if before else NONE}"
    except (RunError, KeyError, TypeError):
        return None
