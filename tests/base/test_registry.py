from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zoo.base import registry
from zoo.errors import ManifestError

ROOT = Path(__file__).resolve().parents[2]
WANTED = "cifar10 cifar100 mnist fashion_mnist imagenet-1k flowers102 pets food101 dtd caltech101 eurosat beans digits"


def write_own(text: str) -> Path:
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "zoo" / "registry.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_shipped_catalogue_is_complete() -> None:
    found = registry.load()
    assert set(WANTED.split()) <= set(found.datasets)
    for entry in found.datasets.values():
        assert entry.summary and entry.license and entry.classes
        if entry.hub:
            assert entry.image and entry.label and "train" in entry.splits
    assert found.datasets["digits"].builtin == "digits"
    assert not found.datasets["digits"].hflip and not found.datasets["mnist"].hflip
    imagenet = found.datasets["imagenet-1k"]
    assert imagenet.gated
    assert imagenet.page == "https://huggingface.co/datasets/ILSVRC/imagenet-1k"


def test_the_in_tree_plugins_are_listed_with_what_they_offer() -> None:
    found = registry.load().plugins
    for name in ("resnet", "vgg", "legacy", "timm"):
        entry = found[name]
        (manifest,) = (ROOT / "plugins" / f"adaptzoo-{name}").glob("*/zoo.yaml")
        content = yaml.safe_load(manifest.read_text())
        assert list(entry.backbones) == [row["name"] for row in content.get("backbones", [])]
        assert entry.requirement == f"adaptzoo-{name}"
        assert entry.homepage and entry.summary


def test_a_persons_own_file_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = len(registry.load().datasets)
    write_own(
        "datasets:\n  birds: {summary: birds, hub: me/birds, splits: {train: all}, hflip: false}\n"
        "  cifar10: {summary: a mirror, hub: mirror/cifar10}\n"
        "plugins:\n  mine: {requirement: 'mine>=2', summary: my nets, backbones: [a, b]}\n"
    )
    found = registry.load()
    assert len(found.datasets) == shipped + 1
    assert found.datasets["birds"].splits == {"train": "all"}
    assert not found.datasets["birds"].hflip
    assert found.datasets["cifar10"].hub == "mirror/cifar10"
    assert found.plugins["mine"].backbones == ("a", "b")
    elsewhere = tmp_path / "other.yaml"
    elsewhere.write_text("datasets: {fish: {summary: fish, hub: me/fish}}")
    monkeypatch.setenv("ZOO_REGISTRY", str(elsewhere))
    assert "fish" in registry.load().datasets
    assert "birds" not in registry.load().datasets


def test_every_fault_is_reported_at_once() -> None:
    path = write_own(
        "colour: red\n"
        "datasets:\n"
        "  1: {summary: a number}\n"
        "  none: {summary: neither}\n"
        "  both: {summary: both, hub: a/b, builtin: digits}\n"
        "  odd: {hub: nowhere, gated: maybe, splits: {fit: train}, label: 3, size: 4, classes: 1}\n"
        "  other: {summary: x, builtin: letters}\n"
        "  text: hello\n"
        "plugins:\n"
        "  p: {backbones: all}\n"
    )
    with pytest.raises(ManifestError) as caught:
        registry.load()
    error = caught.value
    assert error.what == f"{path} has 17 fault(s)"
    for fault in (
        "colour: unknown key",
        "datasets.1: a name is a text",
        "datasets.none: needs either `hub` or `builtin`",
        "datasets.both: needs either `hub` or `builtin`",
        "datasets.odd.hub: must be ORG/NAME, not 'nowhere'",
        "datasets.odd.gated: must be true or false",
        "datasets.odd.splits.fit: must be one of train, val, test",
        "datasets.odd.splits: `train` is missing",
        "datasets.odd.label: must be a text",
        "datasets.odd.size: unknown key",
        "datasets.odd.summary: is missing",
        "datasets.odd.classes: must be a whole number from 2 on",
        "datasets.other.builtin: must be one of digits, not 'letters'",
        "datasets.text: must be a mapping",
        "plugins.p.backbones: must be a list of names",
        "plugins.p.requirement: is missing",
        "plugins.p.summary: is missing",
    ):
        assert fault in error.why
    assert error.fix == f"edit {path}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold a mapping"),
        ("datasets: [a]\n", "datasets: must map names to entries"),
        ("datasets: {a: [}\n", "is not valid YAML"),
    ],
)
def test_a_file_of_the_wrong_form(text: str, message: str) -> None:
    write_own(text)
    with pytest.raises(ManifestError) as caught:
        registry.load()
    assert message in str(caught.value)


def test_an_empty_file_adds_nothing_and_a_missing_named_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = registry.load()
    write_own("")
    assert registry.load() == shipped
    monkeypatch.setenv("ZOO_REGISTRY", "/no/such/registry.yaml")
    with pytest.raises(ManifestError, match=r"ZOO_REGISTRY names /no/such/registry\.yaml, which is not there"):
        registry.load()


def test_an_edited_file_is_read_again() -> None:
    write_own("datasets: {a: {summary: one, hub: me/a}}")
    assert registry.load().datasets["a"].hub == "me/a"
    write_own("datasets: {a: {summary: other, hub: me/other}}")
    assert registry.load().datasets["a"].hub == "me/other"


def test_an_installed_wheel_has_it_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "zoo"
    package.mkdir()
    (package / "registry.yaml").write_text("datasets: {inside: {summary: s, hub: me/inside}}")
    monkeypatch.setattr(registry.resources, "files", lambda name: package)
    assert set(registry.load().datasets) == {"inside"}


def test_reading_it_imports_nothing_heavy() -> None:
    heavy = ["torch", "timm", "torchvision", "datasets", "accelerate", "numpy", "PIL", "huggingface_hub"]
    code = (
        f"import sys; from zoo.base import registry; registry.load(); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
