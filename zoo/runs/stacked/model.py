"""Stacked model: several networks and the combiner of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from torch import nn

from zoo import data
from zoo.base.files import replacing
from zoo.data import Part
from zoo.errors import RunError, WeightsError
from zoo.models import preprocessing, saved
from zoo.models.features import extract_with_logits, flat
from zoo.models.preprocessing import DataConfig
from zoo.models.tensor_files import read_tensors, write_tensors
from zoo.runs.run_folder import COMBINER, MEMBERS
from zoo.runs.stacked.combine import KINDS, Combiner, MemberOutputs


class Panel(nn.Module):
    """The members (timm models) with their classes in one order; takes images once per distinct preprocessing."""

    def __init__(self, networks: Sequence[nn.Module], classes: Sequence[str]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        own = [preprocessing.data_config(network) for network in networks]
        self.configs = tuple(dict.fromkeys(own))
        self._input_of = [self.configs.index(config) for config in own]
        self._order = [_places(network, classes) for network in networks]

    @property
    def device(self) -> torch.device:
        """The members' device."""
        return next(self.parameters()).device

    @torch.no_grad()
    def outputs_of(self, inputs: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> MemberOutputs:
        """The members' predictions, on the CPU, for images (B, C, H, W) in each of `configs`; labels (B,) if known."""
        logs, features = [], []
        for network, which, order in zip(self.networks, self._input_of, self._order, strict=True):
            images = inputs[which].to(self.device, memory_format=torch.channels_last, non_blocking=True)
            own, logits = extract_with_logits(network.eval(), images)
            features.append(flat(own).cpu())
            # log-probabilities with the classes in the shared order
            logs.append(logits.cpu().double()[:, order].log_softmax(1))
        known = torch.zeros(len(logs[0]), dtype=torch.int64) if labels is None else labels
        return MemberOutputs(torch.stack(logs), tuple(features), known)

    def over(self, part: Part, batch_size: int, tell: Callable[[int], None]) -> MemberOutputs:
        """The members' predictions for every image of a part, in its order; `tell` gets the number done."""
        loaders = [
            data.eval_batches(part, config=config, batch_size=batch_size, device=self.device) for config in self.configs
        ]
        outputs: list[MemberOutputs] = []
        done = 0
        for batches in zip(*loaders, strict=True):
            outputs.append(self.outputs_of([batch.images for batch in batches], batches[0].labels.cpu()))
            done += len(batches[0])
            tell(done)
        return MemberOutputs(
            torch.cat([each.logs for each in outputs], dim=1),
            tuple(map(torch.cat, zip(*(each.features for each in outputs), strict=True))),
            torch.cat([each.labels for each in outputs]),
        )


class Stacked(nn.Module):
    """The members and their combiner; gives calibrated log-probabilities (B, classes)."""

    def __init__(self, panel: Panel, combiner: Combiner) -> None:
        super().__init__()
        self.panel, self.combiner = panel, combiner
        self.configs: tuple[DataConfig, ...] = panel.configs  # the members' distinct preprocessings
        self._transforms = [create_transform(**config.as_dict(), is_training=False) for config in panel.configs]

    def transform(self, image: Image.Image) -> tuple[torch.Tensor, ...]:
        """An image as a tensor (C, H, W) for each of `configs`."""
        return tuple(transform(image) for transform in self._transforms)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, classes) of images (B, C, H, W), given once for each of `configs`."""
        outputs = self.panel.outputs_of(inputs)
        return self.combiner.logs(outputs.logs, outputs.features).float()


def load_stack(folder: Path, record: Mapping[str, Any]) -> Stacked:
    """Load a stack from a run folder or the Hub's cache; raises RunError if something is missing or damaged."""
    classes = list((record.get("dataset") or {}).get("classes") or ())
    facts = record.get("stack") or {}
    count, kind = len(facts.get("members") or ()), facts.get("choice")
    if not count or kind not in KINDS:
        raise RunError(f"{folder} is not a stack's folder", why="its record does not say what it combines, or how")
    panel = Panel([saved.load(folder / MEMBERS / str(number)) for number in range(count)], classes)
    return Stacked(panel, read_combiner(folder / COMBINER, kind, count, len(classes)))


def write_combiner(combiner: Combiner, path: Path) -> Combiner:
    """Save a combiner in float32, and return it as it will be read."""
    tensors = {**combiner.tensors, "temperature": torch.tensor(combiner.temperature)}
    with replacing(path) as temporary:
        write_tensors({name: tensor.float().contiguous() for name, tensor in tensors.items()}, temporary)
    return _combiner(combiner.kind, {name: tensor.float() for name, tensor in tensors.items()})


def read_combiner(path: Path, kind: str, members: int, classes: int) -> Combiner:
    """Read a combiner; raises RunError if it is missing, damaged, or for other numbers of members and classes."""
    try:
        tensors = dict(read_tensors(path))
    except WeightsError as error:
        raise RunError(error.what, why=error.why) from error
    for name, shape in _shapes(kind, members, classes).items():
        actual = tuple(tensors[name].shape) if name in tensors else ()
        if len(actual) != len(shape) or any(size not in (0, own) for size, own in zip(shape, actual, strict=True)):
            raise RunError(f"{path} is damaged", why=f"{name} has the shape {actual}, which does not fit its members")
        if name in ("members", "temperature") and not bool((tensors[name] > 0).all()):
            raise RunError(f"{path} is damaged", why=f"{name} must be above 0")
    return _combiner(kind, tensors)


def _combiner(kind: str, tensors: Mapping[str, torch.Tensor]) -> Combiner:
    own = {name: tensor.double() for name, tensor in tensors.items() if name != "temperature"}
    return Combiner(kind, own, float(tensors["temperature"]))


def _shapes(kind: str, members: int, classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a combiner's tensors; 0 is a size given by the members' features."""
    own: dict[str, dict[str, tuple[int, ...]]] = {
        "mean": {},
        "weighted": {"weights": (members,)},
        "gated": {"centre": (0,), "basis": (0, 0), "gate": (0, members), "bias": (members,)},
        "logistic": {"matrix": (members, classes, classes), "bias": (classes,)},
    }
    return {"members": (members,), "temperature": (), **own[kind]}


def _places(network: nn.Module, classes: Sequence[str]) -> list[int]:
    """The indices of a network's outputs in the shared class order."""
    own = saved.labels(network, None)
    if sorted(own) != sorted(classes):
        raise RunError("a member does not have the stack's classes", why=f"it has {len(own)}, the stack {len(classes)}")
    return [own.index(name) for name in classes]
