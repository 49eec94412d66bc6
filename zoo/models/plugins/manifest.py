"""Manifest: read a plugin's zoo.yaml into records, and report all its faults at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard, get_args

from zoo.base.untrusted import is_finite, read_yaml
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
    """Read one manifest, whose `name` must equal the entry point's.

    Raises ManifestError for anything in the file that breaks the contract, all of it in one message.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ManifestError(f"{path} must hold a mapping", why=f"it holds {type(content).__name__}")
    faults: list[str] = []
    top = _Row(content, "", faults)
    api = content.get("api")
    if not _is_int(api):
        top.fault("api", "must be a whole number")
    elif api > API:
        what = f"the manifest asks for plugin api {api}, this adaptzoo reads up to {API}"
        raise ManifestError(what, fix="upgrade adaptzoo: pip install --upgrade adaptzoo")
    top.check_keys(_TOP)
    name = top.text("name", required=True, pattern=_NAME)
    summary = top.text("summary")
    if name and name != entry_point:
        top.fault("name", f"is {name!r}, but the entry point is named {entry_point!r}")
    module = top.text("module", pattern=_MODULE)
    dynamic = top.text("dynamic")
    if dynamic not in (None, "timm"):
        top.fault("dynamic", f"must be 'timm', not {dynamic!r}")
    family = _groups(top)
    if not content.get("backbones") and not dynamic:
        top.fault("backbones", "at least one is needed (or `dynamic: timm`)")
    backbones: list[BackboneSpec] = []
    for row in top.mappings("backbones"):
        if isinstance(row.values.get("name"), str):
            row = replace(row, where=f"{row.where} ({row.values['name']})")
        row.check_keys(_BACKBONE)
        groups = _groups(row) if "groups" in row.values else family
        if not groups:
            faults.append(f"{row.where}: no layer groups, neither its own nor the family's")
        backbone = BackboneSpec(
            name=row.text("name", required=True, pattern=_NAME) or "",
            plugin=entry_point,
            arch=row.text("arch", required=True, pattern=_NAME) or "",
            params=row.whole("params", required=True),
            input=row.whole("input", required=True),
            weights=_weights(row, path.parent),
            groups=groups,
            module=module,
            distribution=distribution,
            version=version,
        )
        backbones.append(backbone)
    top.check_unique("backbones", [backbone.name for backbone in backbones])
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


@dataclass(frozen=True, slots=True)
class _Row:
    """One mapping of the file. A reader returns None for a missing or wrong value, and reports a fault."""

    values: dict[Any, Any]
    where: str  # its place in the file: "backbones[0] (resnet50)"; "" for the file itself
    faults: list[str]

    def place(self, key: object) -> str:
        return f"{self.where}.{key}" if self.where else str(key)

    def fault(self, key: object, text: str) -> None:
        self.faults.append(f"{self.place(key)}: {text}")

    def check_keys(self, known: Collection[str]) -> None:
        for key in self.values:
            if key not in known:
                self.fault(key, "unknown key")

    def check_unique(self, key: str, names: list[str], noun: str = "") -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.fault(key, f"{noun}{name!r} is given more than once")

    def read(self, key: str, valid: Callable[[Any], object], kind: str, *, required: bool = False) -> Any:
        value = self.values.get(key)
        if value is None and required:
            self.fault(key, "is missing")
        if value is None or valid(value):
            return value
        self.fault(key, f"must be {kind}")
        return None

    def text(self, key: str, *, required: bool = False, pattern: re.Pattern[str] | None = None) -> str | None:
        value: str | None = self.read(
            key, lambda text: isinstance(text, str) and text != "", "a text", required=required
        )
        if value and pattern and not pattern.match(value):
            self.fault(key, f"{value!r} has characters that a name cannot have")
        return value

    def one_of(self, key: str, known: tuple[str, ...], *, required: bool = False) -> str | None:
        value = self.text(key, required=required)
        if value and value not in known:
            self.fault(key, f"must be one of {', '.join(known)}, not {value!r}")
        return value

    def whole(self, key: str, *, required: bool = False) -> int | None:
        value: int | None = self.read(key, lambda x: _is_int(x) and x > 0, "a positive whole number", required=required)
        return value

    def numbers(self, key: str) -> tuple[float, ...] | None:
        values = self.read(key, lambda x: isinstance(x, list) and x and all(map(is_finite, x)), "a list of numbers")
        return values and tuple(map(float, values))

    def items(self, key: str) -> list[Any]:
        items = self.values.get(key, [])
        if isinstance(items, list):
            return items
        self.fault(key, "must be a list")
        return []

    def mappings(self, key: str) -> Iterator[_Row]:
        for number, item in enumerate(self.items(key)):
            if isinstance(item, dict):
                yield _Row(item, self.place(f"{key}[{number}]"), self.faults)
            else:
                self.fault(f"{key}[{number}]", "must be a mapping")


def _groups(owner: _Row) -> tuple[LayerGroup, ...]:
    groups = []
    for number, item in enumerate(owner.items("groups")):
        row = _Row(item, owner.place(f"groups[{number}]"), owner.faults)
        if not (isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("match"), str)):
            owner.faults.append(f"{row.where}: needs the two texts `name` and `match`")
            continue
        row.check_keys({"name", "match"})
        try:
            if re.compile(item["match"]).groups:
                row.fault("match", "write (?:…) instead of a capture group")
        except re.error as error:
            row.fault("match", str(error))
        if not _NAME.match(item["name"]) or _RESERVED.match(item["name"]):
            row.fault("name", f"{item['name']!r} cannot name a layer group")
        groups.append(LayerGroup(item["name"], item["match"]))
    names = [group.name for group in groups]
    owner.check_unique("groups", names, "group ")
    if names and names[-1] != "head":
        owner.fault("groups", f"the last group must be named 'head', not {names[-1]!r}")
    return tuple(groups)


def _weights(backbone: _Row, root: Path) -> tuple[Weights, ...]:
    result = []
    for row in backbone.mappings("weights"):
        row.check_keys(_WEIGHTS)
        name = row.text("name", required=True, pattern=_TAG)
        source = row.one_of("source", get_args(WeightsSource), required=True)
        needed = _NEEDS.get(source or "")
        if needed and not row.values.get(needed):
            row.faults.append(f"{row.where}: source {source!r} needs `{needed}`")
        file = row.text("path")
        if file and not (root / file).resolve().is_relative_to(root.resolve()):
            row.fault("path", "must lie inside the plugin's package")
        sha256 = row.text("sha256")
        if sha256 and not _SHA256.match(sha256):
            row.fault("sha256", "must be 64 hexadecimal digits in lower case")
        interpolation = row.one_of("interpolation", _INTERPOLATIONS)
        num_classes = row.whole("num_classes")
        model_args = row.values.get("model_args", {})
        if not isinstance(model_args, dict):
            row.fault("model_args", "must be a mapping")
        labels = row.read("labels", _is_texts, "a list of texts")
        if labels is not None and num_classes is not None and len(labels) != num_classes:
            row.fault("labels", f"{len(labels)} names for {num_classes} classes")
        crop_pct = row.read("crop_pct", lambda x: is_finite(x) and x > 0, "a number above 0")
        weights = Weights(
            name=name or "",
            source=source or "timm",  # type: ignore[arg-type]  # a wrong one is already a fault
            path=str((root / file).resolve()) if file else None,
            url=row.text("url"),
            repo=row.text("repo"),
            sha256=sha256,
            num_classes=num_classes,
            input=row.whole("input"),
            mean=row.numbers("mean"),
            std=row.numbers("std"),
            interpolation=interpolation,
            crop_pct=crop_pct and float(crop_pct),
            model_args=model_args,
            license=row.text("license"),
            labels=None if labels is None else tuple(labels),
        )
        result.append(weights)
    backbone.check_unique("weights", [weights.name for weights in result])
    return tuple(result)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
