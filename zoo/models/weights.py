"""Pretrained weights: find those that a user names, and fetch their tensors; each failure has a message."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever HTTP library it is built on

from zoo.base import files, references
from zoo.base.references import HUB_MODEL
from zoo.errors import WeightsError
from zoo.models import hub_client, lookup
from zoo.models.config_checks import check_arguments, check_facts, check_labels, read_config
from zoo.models.spec import BackboneSpec, Weights
from zoo.models.tensor_files import Tensors, file_sha256, read_metadata, read_tensors

_FILES = (".safetensors", ".pth", ".pt", ".bin")
_START_WITHOUT = "`--weights none` starts from random weights"


def resolve_weights(spec: BackboneSpec, text: str) -> Weights | None:
    """Turn the text of `--weights` into a record; None for "none".

    Args:
        spec: The backbone that the weights are for.
        text: "default"; "none"; a name in the manifest or a timm tag; the path of a .safetensors or .pth file, or of a
            run folder (any folder with config.json and model.safetensors); or "hf-hub:ORG/NAME[@revision]", which alone
            needs the network, for the repository's config.json.

    Raises:
        WeightsError: No weights have that name, the file or repository cannot be reached, or it is for another
            architecture; the message names both.
    """
    if text == "none":
        return None
    if text == "default":
        if not spec.weights:
            raise WeightsError(f"{spec.full_name} has no pretrained weights", fix=f"{_START_WITHOUT}, or name a file")
        return spec.weights[0]
    for weights in spec.weights:
        if weights.name == text:
            return weights
    if text.startswith(HUB_MODEL):
        return _from_hub(spec, text.removeprefix(HUB_MODEL))
    path = Path(text).expanduser()
    if path.is_dir():
        return _from_folder(spec, path)
    if path.is_file():
        facts = read_metadata(path) if path.suffix == ".safetensors" else {}
        return _record(spec, facts, name=path.stem, path=path)
    if path.suffix in _FILES or references.looks_like_path(text):
        fix = references.did_you_mean(references.near_path(text)) + "give a .safetensors or .pth file, or a run folder"
        raise WeightsError(f"there is no weights file {text}", fix=fix)
    lookup.register_architectures(spec)
    declared = timm_config(spec.arch, text)
    if declared is not None and declared.has_weights:
        return Weights(name=text, source="timm", license=declared.license)
    raise unknown_tag(spec, text)


def timm_config(arch: str, tag: str | None = None) -> Any:
    """The pretrained configuration (timm's `PretrainedCfg`) of a tag, or of the default tag; None if it has none."""
    if tag is None:
        return timm.get_pretrained_cfg(arch, allow_unregistered=False)
    return timm.models.get_arch_pretrained_cfgs(arch).get(f"{arch}.{tag}")


def unknown_tag(spec: BackboneSpec, tag: str) -> WeightsError:
    """The error for a tag that neither the manifest nor timm has, with the nearest tags."""
    known = [weights.name for weights in spec.weights]
    known += [name.partition(".")[2] for name in timm.list_pretrained(f"{spec.arch}.*")]
    near = difflib.get_close_matches(tag, known, n=3, cutoff=0.4) or sorted(set(known))[:8]
    fix = f"try {', '.join(dict.fromkeys(near))}" if near else "it has none; give a file"
    return WeightsError(f"{spec.full_name} has no weights named {tag!r}", fix=f"{fix}; {_START_WITHOUT}")


def fetch_tensors(spec: BackboneSpec, weights: Weights, declared: dict[str, Any]) -> Tensors:
    """Get the tensors of one set of weights, from disk, a cache or the network.

    `declared` is timm's pretrained configuration for them, with the address of source "timm". Raises WeightsError if
    the file is damaged or cannot be reached; the message says how to get it another way.
    """
    if weights.source == "file":
        if weights.path is None:
            raise WeightsError(f"the weights {weights.name!r} of {spec.full_name} name no file")
        path = Path(weights.path)
        if path.suffix == ".safetensors" and path.is_file():
            _check_architecture(spec, read_metadata(path).get("architecture"), str(path))
        return read_tensors(path, sha256=weights.sha256)
    repo = weights.repo if weights.source == "hf-hub" else declared.get("hf_hub_id")
    url = weights.url if weights.source == "url" else declared.get("url")
    if repo:
        filename = declared.get("hf_hub_filename") if weights.source == "timm" else None
        with network_errors(spec, weights, repo=repo):
            path = _hub_file(repo, filename or "pytorch_model.bin")
        return read_tensors(path, sha256=weights.sha256)
    if url:
        return read_tensors(_download(spec, weights, url), sha256=weights.sha256)
    raise WeightsError(f"timm has no file for {spec.arch}.{weights.name}", fix=_START_WITHOUT)


def at_hand(spec: BackboneSpec, weights: Weights) -> bool:
    """Whether the weights are on this machine, as a file or in the Hub's cache or zoo's; uses no network.

    Raises PluginError if the plugin's module, which registers the architecture, cannot be imported.
    """
    if weights.source == "file":
        return weights.path is not None and Path(weights.path).is_file()
    repo, url, filename = weights.repo, weights.url, None
    if weights.source == "timm":
        lookup.register_architectures(spec)
        declared = timm_config(spec.arch, weights.name)
        if declared is None:
            return False
        repo, url, filename = declared.hf_hub_id, declared.url, declared.hf_hub_filename
    if repo:
        name, revision = references.revised(repo)
        cached = (try_to_load_from_cache(name, file, revision=revision) for file in _candidates(filename))
        return any(isinstance(path, str) for path in cached)
    return bool(url) and _downloaded(str(url)).is_file()


@contextmanager
def network_errors(
    spec: BackboneSpec, weights: Weights, *, repo: str | None = None, url: str | None = None
) -> Iterator[None]:
    """Turn the network's failures into a WeightsError that says how to get the file another way."""
    place = f"the Hub repository {repo}" if repo else str(url)
    what = f"the weights {weights.name!r} of {spec.full_name} cannot be reached ({place})"
    name, _ = references.revised(repo or "")
    folder = name.rpartition("/")[2]
    bring = f"download {url} on a machine with network, copy it here and pass `--weights FILE`"
    if repo:
        bring = f"on a machine with network run `hf download {name} --local-dir {folder}`, "
        bring += f"copy the folder here and pass `--weights {folder}`"
    try:
        with hub_client.session():
            yield
    except GatedRepoError as error:
        fix = f"accept its terms at {hub_client.place()}/{repo}, then: hf auth login"
        raise WeightsError(what, why="the repository is gated", fix=fix) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        why = "there is no such repository or revision, or it is private"
        raise WeightsError(what, why=why, fix="check the name; for a private one: hf auth login") from error
    except (OSError, HfHubHTTPError, httpx.HTTPError, EntryNotFoundError, ValueError) as error:
        if constants.HF_HUB_OFFLINE and repo:
            why = "HF_HUB_OFFLINE is set, and the file is not in the local cache"
            fix = f"unset HF_HUB_OFFLINE; or {bring}"
        elif isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            why = "the repository has no model.safetensors and no pytorch_model.bin"
            fix = "name a repository of a timm model"
        else:
            reason = hub_client.one_line(error.__cause__ or error)
            why = f"{hub_client.place() if repo else 'the server'} did not give it: {reason}"
            fix = f"check the network{' and HF_ENDPOINT' if repo else ''}; or {bring}"
        raise WeightsError(what, why=why, fix=f"{fix}; {_START_WITHOUT}") from error


def _from_folder(spec: BackboneSpec, folder: Path) -> Weights:
    config, file = folder / "config.json", folder / "model.safetensors"
    if not config.is_file() or not file.is_file():
        what, why = f"{folder} has no weights to start from", "it needs config.json and model.safetensors"
        raise WeightsError(what, why=why, fix="give a finished run folder, or a file")
    return _record(spec, _config_facts(config), name=folder.resolve().name, path=file)


def _from_hub(spec: BackboneSpec, reference: str) -> Weights:
    repo, revision = references.revised(reference)
    if not references.is_repo(repo):
        what = f"{HUB_MODEL}{reference} is not {HUB_MODEL}ORG/NAME"
        raise WeightsError(what, fix=f"write {HUB_MODEL}ORG/NAME[@revision]")
    with network_errors(spec, Weights(name=reference, source="hf-hub"), repo=reference):
        config = Path(hf_hub_download(repo, "config.json", revision=revision))
    return _record(spec, _config_facts(config), name=reference)


def _record(spec: BackboneSpec, facts: dict[str, Any], *, name: str, path: Path | None = None) -> Weights:
    """A record from a file's own facts, in the manifest's keys; without a path, of the Hub repository `name`."""
    origin = str(path) if path else f"{HUB_MODEL}{name}"
    _check_architecture(spec, facts.get("architecture"), origin)
    try:
        size = facts.get("input", facts.get("input_size"))
        size = size[-1] if isinstance(size, list | tuple) else size
        classes, crop, labels = facts.get("num_classes"), facts.get("crop_pct"), facts.get("labels")
        arguments = facts.get("model_args") or {}
        check_arguments(arguments)
        check_facts({**facts, "input_size": (3, size, size) if size is not None else None})
        check_labels(labels)
        return Weights(
            name=name,
            source="file" if path else "hf-hub",
            path=str(path.resolve()) if path else None,
            repo=None if path else name,
            sha256=file_sha256(path) if path else None,
            num_classes=int(classes) if classes is not None else None,
            input=int(size) if size is not None else None,
            mean=_floats(facts.get("mean")),
            std=_floats(facts.get("std")),
            interpolation=facts.get("interpolation"),
            crop_pct=float(crop) if crop is not None else None,
            model_args=dict(arguments),
            license=facts.get("license"),
            labels=tuple(labels) if labels else None,
        )
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise WeightsError(f"the metadata of {origin} cannot be understood", why=str(error)) from error


def _config_facts(path: Path) -> dict[str, Any]:
    """The facts in a timm config.json, in the manifest's keys."""
    try:
        config = read_config(path)
        pretrained = config.get("pretrained_cfg", config)
        labels = config.get("label_names") or pretrained.get("label_names")
        arguments = {key: value for key, value in config.get("model_args", {}).items() if key != "num_classes"}
        size = pretrained.get("input_size") or (3, None, None)
        if size[0] != 3:
            arguments.setdefault("in_chans", size[0])
        return {
            **{key: pretrained.get(key) for key in ("mean", "std", "interpolation", "crop_pct", "license")},
            "architecture": config["architecture"],
            "num_classes": config.get("num_classes", pretrained.get("num_classes")),
            "input": size[-1],
            "model_args": arguments,
            "labels": list(labels.values()) if isinstance(labels, dict) else labels,
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} is not the config.json of a timm model", why=str(error)) from error


def _check_architecture(spec: BackboneSpec, actual: Any, origin: str) -> None:
    if actual is not None and actual != spec.arch:
        what = f"{origin} holds weights for the architecture {actual}, but {spec.full_name} is a {spec.arch}"
        raise WeightsError(what, fix=f"adapt timm/{actual} instead, or choose other weights")


def _floats(values: Any) -> tuple[float, ...] | None:
    return tuple(map(float, values)) if values is not None else None


def _hub_file(repo: str, filename: str) -> Path:
    """A Hub repository's weights file, preferably .safetensors, in the Hub's cache."""
    name, revision = references.revised(repo)
    for candidate in _candidates(filename):
        try:
            return Path(hf_hub_download(name, candidate, revision=revision))
        except EntryNotFoundError as error:
            # Only a file that is not there is a reason to try the next name, not one that cannot be reached.
            if isinstance(error, LocalEntryNotFoundError) or candidate == filename:
                raise
    raise AssertionError("the last candidate returns or raises")


def _candidates(filename: str | None) -> list[str]:
    """The file names that a Hub repository's weights may have, the best first."""
    filename = filename or "pytorch_model.bin"
    plain = Path(filename).with_suffix(".safetensors").name
    return list(dict.fromkeys((plain.replace("pytorch_model", "model"), plain, filename)))


def _downloaded(url: str) -> Path:
    """The path in zoo's cache of the file behind a URL."""
    name = url.rpartition("/")[2].partition("?")[0]
    return files.cache_dir() / "weights" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"


def _download(spec: BackboneSpec, weights: Weights, url: str) -> Path:
    """The file behind a URL, in zoo's cache; torch's file names contain the start of the sha256, which is checked."""
    marked = torch.hub.HASH_REGEX.search(url.rpartition("/")[2].partition("?")[0])
    expected = weights.sha256 or (marked.group(1) if marked else None)
    path = _downloaded(url)
    if not path.exists():
        with files.replacing(path) as temporary, network_errors(spec, weights, url=url):
            torch.hub.download_url_to_file(url, str(temporary), progress=False)
            if expected and not (actual := file_sha256(temporary)).startswith(expected.lower()):
                raise WeightsError(f"{url} gave another file", why=f"its sha256 is {actual}, expected {expected}")
    return path
