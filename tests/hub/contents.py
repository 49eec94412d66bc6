"""Small repositories to put on the local Hub."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def picture(label: int, number: int, side: int = 32) -> bytes:
    """A PNG whose class shows in its colour, with noise that makes each one different."""
    noise = np.random.default_rng([label, number]).integers(0, 80, (side, side, 3))
    noise[..., label % 3] += 60 + 30 * (label // 3 % 4)
    buffer = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def put_dataset(
    root: Path,
    identity: str,
    classes: Sequence[str],
    splits: Mapping[str, int],
    *,
    image: str = "image",
    label: str = "label",
    config: str = "default",
    side: int = 32,
) -> Path:
    """Make a parquet data set with a card, as the Hub's own are.

    Args:
        root: The server's root.
        identity: "ORG/NAME".
        classes: Class names.
        splits: Split -> images per class.
        image: Name of the column of images.
        label: Name of the column of labels.
        config: Name of the configuration.
        side: Of the images, pixels.
    """
    import datasets

    folder = root / "datasets" / identity
    (folder / config).mkdir(parents=True, exist_ok=True)
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(classes))})
    offset = 0
    for split, count in splits.items():
        rows: dict[str, list[object]] = {image: [], label: []}
        for number in range(count):
            for position in range(len(classes)):
                rows[image].append({"bytes": picture(position, offset + number, side), "path": None})
                rows[label].append(position)
        offset += count
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / config / f"{split}-00000-of-00001.parquet"))
    files = "".join(f"  - split: {split}\n    path: {config}/{split}-*\n" for split in splits)
    card = f"license: mit\nconfigs:\n- config_name: {config}\n  data_files:\n{files}"
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder


def put_cifar10(root: Path, *, train: int = 20, test: int = 5, side: int = 32) -> Path:
    """A stand-in for uoft-cs/cifar10: its columns, configuration and classes, with pictures of our own making."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return put_dataset(
        root, "uoft-cs/cifar10", names, {"train": train, "test": test}, image="img", config="plain_text", side=side
    )


def put_timm_weights(root: Path, model: str, *, seed: int = 0) -> Path:
    """Random weights of a timm model ("resnet50.a1_in1k") where timm looks for its pretrained ones."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    network = timm.create_model(model, pretrained=False)
    identity = network.pretrained_cfg["hf_hub_id"]
    if identity.endswith("/"):
        identity += model
    folder = root / "models" / identity
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    return folder
