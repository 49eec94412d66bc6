"""Read a plugin's zoo.yaml into records, reporting every fault of the file at once."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, TypeGuard, get_args

from zoo.base.untrusted import read_yaml
from zoo.errors import ManifestError
from zoo.models.spec import BackboneSpec, LayerGroup, Plugin, Weights, WeightsSource

API = 1  # the manifest contract that this version of adaptzoo reads

_TOP = {"api", "name", "summary", "groups", "backbones", "module", "dynamic"}
_BACKBONE = {"name", "arch", "params", "input", "weights", "groups"}
_WEIGHTS = set(Weights.__slots__)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_RESERVED = re.compile(r"all\Z|head-\d+\Z")  # what a recipe's train_from means by itself
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_NEEDS = {"file": "path", "url": "url", "hf-hub": "repo"}


def read_manifest(path: Path, *, entry_point: str, distribution: str, version: str) -> Plugin:
    """Read one manifest.

    Args:
        path: The zoo.yaml file.
        entry_point: The entry point's name, which the manifest's `name` must equal.
        distribution: The distribution that brings the plugin, for messages.
        version: Its version.

    Raises:
        ManifestError: Anything in the file that breaks the contract, all of it in one message.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ManifestError(f"{path} must hold a mapping", why=f"it holds {type(content).__name__}")
    faults: list[str] = []
    api = content.get("api")
    if not _is_int(api):
        faults.append("api: must be a whole number")
    elif api > API:
        raise ManifestError(
            f"the manifest asks for plugin api {api}, this adaptzoo reads up to {API}",
            fix="upgrade adaptzoo: pip install --upgrade adaptzoo",
        )
    _unknown_keys(content, _TOP, "", faults)
    name = _text(content, "name", "", faults, required=True, pattern=_NAME)
    summary = _text(content, "summary", "", faults)
    if name and name != entry_point:
        faults.append(f"name: is {name!r}, but the entry point is named {entry_point!r}")
    module = _text(content, "module", "", faults, pattern=_MODULE)
    dynamic = _text(content, "dynamic", "", faults)
    if dynamic not in (None, "timm"):
        faults.append(f"dynamic: must be 'timm', not {dynamic!r}")
    family = _groups(content.get("groups", []), "groups", faults)
    rows = content.get("backbones", [])
    if not isinstance(rows, list):
        faults.append("backbones: must be a list")
        rows = []
    if not rows and not dynamic:
        faults.append("backbones: at least one is needed (or `dynamic: timm`)")
    backbones: list[BackboneSpec] = []
    for number, row in enumerate(rows):
        where = f"backbones[{number}]"
        if not isinstance(row, dict):
            faults.append(f"{where}: must be a mapping")
            continue
        if isinstance(row.get("name"), str):
            where = f"backbones[{number}] ({row['name']})"
        _unknown_keys(row, _BACKBONE, where, faults)
        groups = _groups(row["groups"], f"{where}.groups", faults) if "groups" in row else family
        if not groups:
            faults.append(f"{where}: no layer groups, neither its own nor the family's")
        short = _text(row, "name", where, faults, required=True, pattern=_NAME)
        arch = _text(row, "arch", where, faults, required=True, pattern=_NAME)
        backbones.append(
            BackboneSpec(
                name=short or "",
                plugin=entry_point,
                arch=arch or "",
                params=_whole(row, "params", where, faults, required=True),
                input=_whole(row, "input", where, faults, required=True),
                weights=_weights(row.get("weights", []), where, path.parent, faults),
                groups=groups,
                module=module,
                distribution=distribution,
                version=version,
            )
        )
    names = [backbone.name for backbone in backbones]
    faults += [f"backbones: {twice!r} is given more than once" for twice in _repeated(names)]
    if faults:
        raise ManifestError(f"{path.name} has {len(faults)} fault(s)", why="; ".join(faults))
    return Plugin(
        name=entry_point,
        summary=summary or "",
        api=int(content["api"]),
        backbones=tuple(backbones),
        dynamic=dynamic,
        module=module,
        distribution=distribution,
        version=version,
        root=path.parent,
    )


def _groups(rows: Any, where: str, faults: list[str]) -> tuple[LayerGroup, ...]:
    if not isinstance(rows, list):
        faults.append(f"{where}: must be a list")
        return ()
    groups = []
    for number, row in enumerate(rows):
        if not (isinstance(row, dict) and isinstance(row.get("name"), str) and isinstance(row.get("match"), str)):
            faults.append(f"{where}[{number}]: needs the two texts `name` and `match`")
            continue
        _unknown_keys(row, {"name", "match"}, f"{where}[{number}]", faults)
        try:
            if re.compile(row["match"]).groups:
                faults.append(f"{where}[{number}].match: write (?:…) instead of a capture group")
        except re.error as error:
            faults.append(f"{where}[{number}].match: {error}")
        if not _NAME.match(row["name"]) or _RESERVED.match(row["name"]):
            faults.append(f"{where}[{number}].name: {row['name']!r} cannot name a layer group")
        groups.append(LayerGroup(row["name"], row["match"]))
    names = [group.name for group in groups]
    faults += [f"{where}: group {twice!r} is given more than once" for twice in _repeated(names)]
    if names and names[-1] != "head":
        faults.append(f"{where}: the last group must be named 'head', not {names[-1]!r}")
    return tuple(groups)


def _weights(rows: Any, where: str, root: Path, faults: list[str]) -> tuple[Weights, ...]:
    if not isinstance(rows, list):
        faults.append(f"{where}.weights: must be a list")
        return ()
    result = []
    for number, row in enumerate(rows):
        here = f"{where}.weights[{number}]"
        if not isinstance(row, dict):
            faults.append(f"{here}: must be a mapping")
            continue
        _unknown_keys(row, _WEIGHTS, here, faults)
        name = _text(row, "name", here, faults, required=True, pattern=_TAG)
        source = _text(row, "source", here, faults, required=True)
        if source is not None and source not in get_args(WeightsSource):
            faults.append(f"{here}.source: must be one of {', '.join(get_args(WeightsSource))}, not {source!r}")
        needed = _NEEDS.get(source or "")
        if needed and not row.get(needed):
            faults.append(f"{here}: source {source!r} needs `{needed}`")
        file = _text(row, "path", here, faults)
        if file is not None and not (root / file).resolve().is_relative_to(root.resolve()):
            faults.append(f"{here}.path: must lie inside the plugin's package")
        sha256 = _text(row, "sha256", here, faults)
        if sha256 is not None and not _SHA256.match(sha256):
            faults.append(f"{here}.sha256: must be 64 hexadecimal digits in lower case")
        interpolation = _text(row, "interpolation", here, faults)
        if interpolation is not None and interpolation not in _INTERPOLATIONS:
            faults.append(f"{here}.interpolation: must be one of {', '.join(_INTERPOLATIONS)}, not {interpolation!r}")
        num_classes = _whole(row, "num_classes", here, faults)
        model_args = row.get("model_args", {})
        if not isinstance(model_args, dict):
            faults.append(f"{here}.model_args: must be a mapping")
            model_args = {}
        labels = row.get("labels")
        if labels is not None and not (isinstance(labels, list) and all(isinstance(item, str) for item in labels)):
            faults.append(f"{here}.labels: must be a list of texts")
            labels = None
        if labels is not None and num_classes is not None and len(labels) != num_classes:
            faults.append(f"{here}.labels: {len(labels)} names for {num_classes} classes")
        result.append(
            Weights(
                name=name or "",
                source=source or "timm",  # type: ignore[arg-type]  # a wrong one is already a fault
                path=str((root / file).resolve()) if file else None,
                url=_text(row, "url", here, faults),
                repo=_text(row, "repo", here, faults),
                sha256=sha256,
                num_classes=num_classes,
                input=_whole(row, "input", here, faults),
                mean=_numbers(row, "mean", here, faults),
                std=_numbers(row, "std", here, faults),
                interpolation=interpolation,
                crop_pct=_number(row, "crop_pct", here, faults),
                model_args=model_args,
                license=_text(row, "license", here, faults),
                labels=tuple(labels) if labels is not None else None,
            )
        )
    faults += [f"{where}.weights: {twice!r} is given more than once" for twice in _repeated([w.name for w in result])]
    return tuple(result)


def _unknown_keys(row: dict[Any, Any], known: set[str], where: str, faults: list[str]) -> None:
    prefix = f"{where}." if where else ""
    faults += [f"{prefix}{key}: unknown key" for key in row if key not in known]


def _text(
    row: dict[str, Any],
    key: str,
    where: str,
    faults: list[str],
    *,
    required: bool = False,
    pattern: re.Pattern[str] | None = None,
) -> str | None:
    value = row.get(key)
    label = f"{where}.{key}" if where else key
    if value is None:
        if required:
            faults.append(f"{label}: is missing")
        return None
    if not isinstance(value, str) or not value:
        faults.append(f"{label}: must be a text")
        return None
    if pattern and not pattern.match(value):
        faults.append(f"{label}: {value!r} has characters that a name cannot have")
    return value


def _whole(row: dict[str, Any], key: str, where: str, faults: list[str], *, required: bool = False) -> int | None:
    value = row.get(key)
    if value is None:
        if required:
            faults.append(f"{where}.{key}: is missing")
        return None
    if not _is_int(value) or value <= 0:
        faults.append(f"{where}.{key}: must be a positive whole number")
        return None
    return int(value)


def _number(row: dict[str, Any], key: str, where: str, faults: list[str]) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        faults.append(f"{where}.{key}: must be a number above 0")
        return None
    return float(value)


def _numbers(row: dict[str, Any], key: str, where: str, faults: list[str]) -> tuple[float, ...] | None:
    value = row.get(key)
    if value is None:
        return None
    numbers = isinstance(value, list) and all(_is_int(item) or isinstance(item, float) for item in value)
    if not numbers or not value or not all(math.isfinite(item) for item in value):
        faults.append(f"{where}.{key}: must be a list of numbers")
        return None
    return tuple(float(item) for item in value)


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
