from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from zoo.errors import PluginError, RecipeError, RunError, WeightsError, ZooError
from zoo.models import lookup, preprocessing
from zoo.models import saved as models
from zoo.models.preprocessing import DataConfig
from zoo.models.spec import BackboneSpec, Weights

NANO = lookup.get("resnet/resnet_nano")
EMBEDDED = models.resolve_weights(NANO, "default")


def spec(arch: str, **changes: Any) -> BackboneSpec:
    fields: dict[str, Any] = {
        "name": arch,
        "plugin": "sample",
        "arch": arch,
        "params": None,
        "input": None,
        "weights": (),
        "groups": (),
        "module": None,
        "distribution": "sample-plugin",
        "version": "1.0",
    }
    return BackboneSpec(**{**fields, **changes})


def logits(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        result: torch.Tensor = model(images)
    return result


def save(model: Any, folder: Path, **extra: Any) -> None:
    names = [f"class {index}" for index in range(model.num_classes)]
    models.save(model, folder, class_names=names, data_config=preprocessing.data_config(model), zoo=extra)


# --- build ---


def test_manifest_weights_are_what_timm_loads_by_hand() -> None:
    assert EMBEDDED is not None and EMBEDDED.path is not None
    by_hand = timm.create_model("test_resnet", num_classes=200)
    by_hand.load_state_dict(load_file(EMBEDDED.path))
    images = torch.randn(2, 3, 64, 64)
    model = models.build(NANO, weights=EMBEDDED)
    assert torch.equal(logits(model, images), logits(by_hand, images))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert preprocessing.data_config(model) == DataConfig(
        input_size=(3, 64, 64),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bilinear",
        crop_pct=1.0,
    )


def test_a_new_head_leaves_the_body_alone() -> None:
    own, new = (models.build(NANO, weights=EMBEDDED, num_classes=classes).state_dict() for classes in (None, 3))
    assert own["fc.weight"].shape[0] == 200
    assert new["fc.weight"].shape[0] == 3
    for name in own.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(own[name], new[name]), name


def test_nothing_of_the_loading_stays_in_the_configuration() -> None:
    config = models.build(NANO, weights=EMBEDDED, num_classes=3).pretrained_cfg
    assert not {"state_dict", "file", "url", "hf_hub_id", "source"} & {key for key, value in config.items() if value}
    assert (config["num_classes"], config["architecture"], config["tag"]) == (3, "test_resnet", "tiny_imagenet")


def test_random_weights_see_the_images_that_the_default_weights_would() -> None:
    scratch = models.build(NANO, weights=None, num_classes=10)
    pretrained = models.build(NANO, weights=EMBEDDED, num_classes=10)
    assert preprocessing.data_config(scratch) == preprocessing.data_config(pretrained)
    assert not torch.equal(
        scratch.state_dict()["layer1.0.conv1.weight"], pretrained.state_dict()["layer1.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("layer3.0.conv2.weight"), "missing: layer3.0.conv2.weight"),
        (lambda tensors: tensors.update(surplus=torch.ones(1)), "unexpected: surplus"),
        (
            lambda tensors: tensors.update({"layer4.0.bn1.weight": torch.ones(5)}),
            "other shape: layer4.0.bn1.weight [5] instead of [",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("layer1.")],
            "missing: layer1.0.conv1.weight, layer1.0.bn1.weight, layer1.0.bn1.bias, layer1.0.bn1.running_mean and ",
        ),
    ],
)
@pytest.mark.parametrize("num_classes", [None, 3])  # timm alone would not be strict for another class count
def test_every_tensor_of_the_body_must_fit(tmp_path: Path, change: Any, message: str, num_classes: int | None) -> None:
    tensors = timm.create_model("test_resnet", num_classes=4).state_dict()
    change(tensors)
    save_file(tensors, tmp_path / "odd.safetensors")
    weights = models.resolve_weights(NANO, str(tmp_path / "odd.safetensors"))
    with pytest.raises(WeightsError, match="the weights 'odd' do not fit the architecture test_resnet") as raised:
        models.build(NANO, weights=weights, num_classes=num_classes)
    assert message in raised.value.why


def test_the_class_count_is_read_from_a_file_that_does_not_say_it(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=6).state_dict(), tmp_path / "six.pth")
    model = models.build(NANO, weights=models.resolve_weights(NANO, str(tmp_path / "six.pth")))
    assert model.num_classes == 6


def test_a_file_without_a_head_serves_for_adapting_only(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=0)
    save_file(source.state_dict(), tmp_path / "body.safetensors")
    weights = models.resolve_weights(NANO, str(tmp_path / "body.safetensors"))
    model = models.build(NANO, weights=weights, num_classes=3)
    assert torch.equal(model.state_dict()["layer4.0.conv1.weight"], source.state_dict()["layer4.0.conv1.weight"])
    assert model.state_dict()["fc.weight"].any(), "the new head must be drawn, not left at zero"
    with pytest.raises(WeightsError, match="the weights 'body' have no classifier"):
        models.build(NANO, weights=weights)


def test_a_changed_manifest_file_is_noticed(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    record = Weights(name="w", source="file", path=str(tmp_path / "w.safetensors"), sha256="f" * 64)
    with pytest.raises(WeightsError, match="is not the file it should be"):
        models.build(NANO, weights=record)


def test_a_tag_that_timm_does_not_have() -> None:
    with pytest.raises(WeightsError, match=r"resnet/resnet_nano has no weights named 'a9_in1k'"):
        models.build(NANO, weights=Weights(name="a9_in1k", source="timm"))


def test_input_channels_adapt_weights_and_normalisation() -> None:
    rgb = models.build(NANO, weights=EMBEDDED).state_dict()["conv1.0.weight"]
    grey = models.build(NANO, weights=EMBEDDED, in_chans=1)
    torch.testing.assert_close(grey.state_dict()["conv1.0.weight"], rgb.sum(1, keepdim=True))
    config = preprocessing.data_config(grey)
    assert config.input_size == (1, 64, 64)
    assert config.mean == pytest.approx((0.449,), abs=1e-6)
    four = preprocessing.data_config(models.build(NANO, weights=EMBEDDED, in_chans=4))
    assert four.mean == (0.485, 0.456, 0.406, 0.485)
    assert four.input_size[0] == 4


def test_dropout_reaches_the_model() -> None:
    assert models.build(NANO, weights=EMBEDDED, drop_rate=0.3).drop_rate == 0.3
    assert models.build(NANO, weights=EMBEDDED).drop_rate == 0.0


def test_an_argument_that_the_architecture_does_not_take() -> None:
    record = Weights(name="w", source="file", path=EMBEDDED.path, num_classes=200, model_args={"window": 3})
    with pytest.raises(RecipeError, match="resnet/resnet_nano does not take window") as raised:
        models.build(NANO, weights=record)
    assert raised.value.why == "the architecture test_resnet has no argument 'window'"


def test_an_architecture_that_nobody_registers() -> None:
    with pytest.raises(PluginError, match="timm has no architecture 'nonesuch'") as raised:
        models.build(spec("nonesuch"), weights=None)
    assert "sample-plugin 1.0" in raised.value.why


# --- image size ---


def test_a_fixed_image_size_is_built_saved_and_loaded(tmp_path: Path) -> None:
    vit = spec("vit_tiny_patch16_224")
    model = models.build(vit, weights=None, num_classes=3, image_size=96)
    assert preprocessing.data_config(model).input_size == (3, 96, 96)
    save(model, tmp_path)
    images = torch.randn(2, 3, 96, 96)
    loaded = models.load(tmp_path)
    assert torch.equal(logits(loaded, images), logits(model, images))
    assert preprocessing.data_config(loaded).input_size == (3, 96, 96)
    with pytest.raises(RecipeError, match="this model takes 96 x 96 images only, not 64 x 64"):
        preprocessing.data_config(loaded, image_size=64)

    again = models.build(vit, weights=models.resolve_weights(vit, str(tmp_path)), image_size=128)
    assert logits(again, torch.randn(1, 3, 128, 128)).shape == (1, 3)


def test_weights_that_cannot_follow_to_another_size(tmp_path: Path) -> None:
    mixer = spec("mixer_s32_224")
    save(models.build(mixer, weights=None, num_classes=3), tmp_path)
    with pytest.raises(WeightsError, match="do not fit the architecture mixer_s32_224 at 64 pixels") as raised:
        models.build(mixer, weights=models.resolve_weights(mixer, str(tmp_path)), image_size=64)
    assert raised.value.fix == "leave --image-size out"


def test_a_flexible_image_size_is_recorded(tmp_path: Path) -> None:
    model = models.build(NANO, weights=EMBEDDED, num_classes=3, image_size=32)
    assert preprocessing.data_config(model).input_size == (3, 32, 32)
    assert preprocessing.data_config(model, image_size=48).input_size == (3, 48, 48)


# --- metadata that matters ---


def test_model_arguments_survive_saving(tmp_path: Path) -> None:
    same = timm.create_model("test_efficientnet", num_classes=4, pad_type="same").eval()
    metadata = {"architecture": "test_efficientnet", "model_args": '{"pad_type": "same"}', "num_classes": "4"}
    save_file(same.state_dict(), tmp_path / "same.safetensors", metadata=metadata)
    efficient = spec("test_efficientnet")
    model = models.build(efficient, weights=models.resolve_weights(efficient, str(tmp_path / "same.safetensors")))
    save(model, tmp_path / "run")
    plain = timm.create_model("test_efficientnet", num_classes=4)
    plain.load_state_dict(same.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert not torch.allclose(logits(plain, images), logits(same, images)), "the argument must make a difference"
    assert torch.equal(logits(model, images), logits(same, images))
    assert torch.equal(logits(models.load(tmp_path / "run"), images), logits(same, images))


def test_the_shared_mobilenet_keeps_its_padding_and_normalisation(shared: Path, tmp_path: Path) -> None:
    mobilenet = lookup.get("timm/mobilenetv2_100")
    weights = models.resolve_weights(mobilenet, str(shared / "weights" / "mobilenetv2_100.in1k.safetensors"))
    model = models.build(mobilenet, weights=weights, num_classes=2)
    save(model, tmp_path)
    images = torch.randn(2, 3, 96, 96)
    loaded = models.load(tmp_path)
    assert torch.equal(logits(loaded, images), logits(model, images))
    assert preprocessing.data_config(loaded).mean == (0.5, 0.5, 0.5)
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["pad_type"] == "same"
    assert not models.has_folded_norms(model)


# --- labels ---


def test_labels_come_from_the_weights_then_imagenet_then_numbers() -> None:
    declared = Weights(name="w", source="file", path=EMBEDDED.path, num_classes=200, labels=tuple(map(str, range(200))))
    assert models.labels(models.build(NANO, weights=declared), declared)[:2] == ("0", "1")
    nameless = replace(EMBEDDED, labels=None)
    assert models.labels(models.build(NANO, weights=nameless), nameless)[:2] == ("class 0", "class 1")
    # In the order of Tiny-ImageNet's wnids.txt: photographs of each of 100 classes made it out.
    names = models.labels(models.build(NANO, weights=EMBEDDED), EMBEDDED)
    assert (names[0], names[98], names[199]) == ("Egyptian cat", "pill bottle", "African elephant")
    with torch.device("meta"):
        thousand = models.build(lookup.get("resnet18"), weights=None)
    names = models.labels(thousand, Weights(name="a1_in1k", source="timm"))
    assert names[0] == "tench, Tinca tinca"
    assert len(set(names)) == 1000, "two classes of ImageNet are called crane"
    assert models.labels(thousand, None)[999] == "class 999"


# --- folded norms ---


def test_folded_norms_are_seen() -> None:
    model = models.build(NANO, weights=EMBEDDED)
    assert not models.has_folded_norms(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1)
    assert models.has_folded_norms(model)
    assert not models.has_folded_norms(torch.nn.Linear(2, 2)), "no norms at all"


# --- save and load ---


def test_what_is_saved_is_what_both_loaders_need(tmp_path: Path) -> None:
    model = models.build(NANO, weights=EMBEDDED, num_classes=2).to(memory_format=torch.channels_last).train()
    config = DataConfig((3, 48, 48), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.9)
    models.save(model, tmp_path, class_names=["ant", "bée"], data_config=config, zoo={"schema": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert "num_classes" not in saved["model_args"], "transformers would pass it twice"
    assert saved["num_classes"] == 2
    assert saved["architecture"] == "test_resnet"
    assert saved["label_names"] == ["ant", "bée"]
    assert saved["zoo"] == {"schema": 1}
    for key, value in config.as_dict().items():
        expected = list(value) if isinstance(value, tuple) else value
        assert saved["pretrained_cfg"][key] == expected, key
    assert saved["pretrained_cfg"]["num_classes"] == 2
    assert model.training
    assert model.state_dict()["layer1.0.conv1.weight"].is_contiguous(memory_format=torch.channels_last)

    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    images = torch.randn(2, 3, 48, 48)
    assert torch.allclose(logits(loaded, images), logits(model, images), atol=1e-5)
    assert preprocessing.data_config(loaded) == config


def test_saving_again_replaces(tmp_path: Path) -> None:
    for classes in (2, 3):
        save(models.build(NANO, weights=None, num_classes=classes), tmp_path)
    assert models.load(tmp_path).num_classes == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_names_and_classes_must_agree(tmp_path: Path) -> None:
    model = models.build(NANO, weights=None, num_classes=2)
    with pytest.raises(ValueError, match="3 class names for a head of 2 classes"):
        models.save(model, tmp_path, class_names="abc", data_config=preprocessing.data_config(model), zoo={})


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ZooError, match="cannot write"):
        save(models.build(NANO, weights=None, num_classes=2), tmp_path / "taken" / "run")


def test_a_failed_save_does_not_look_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build(NANO, weights=None, num_classes=2)
    save(model, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("zoo.runs.run_folder.os.fsync", full)
    with pytest.raises(ZooError, match="the disk is full"):
        save(model, tmp_path)
    with pytest.raises(RunError, match="holds no finished model"):
        models.load(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_half_a_model(tmp_path: Path, missing: str) -> None:
    save(models.build(NANO, weights=None, num_classes=2), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(RunError, match="holds no finished model") as raised:
        models.load(tmp_path)
    assert raised.value.why == f"it has no {missing}"


def test_a_damaged_model(tmp_path: Path) -> None:
    save(models.build(NANO, weights=None, num_classes=2), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"the model in .* is damaged"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        models.load(tmp_path)


def test_a_model_whose_plugin_is_gone(tmp_path: Path) -> None:
    requires = {"distribution": "zoo-of-mars", "version": "2.0", "module": "os"}
    save(models.build(NANO, weights=None, num_classes=2), tmp_path, requires=requires)
    with pytest.raises(PluginError, match=r"needs the plugin zoo-of-mars 2\.0") as raised:
        models.load(tmp_path)
    assert raised.value.fix == "zoo plugins install zoo-of-mars"


def test_a_plugins_architecture_loads_in_a_fresh_process(tmp_path: Path) -> None:
    googlenet = lookup.get("googlenet")
    model = models.build(googlenet, weights=None, num_classes=3)
    save(model, tmp_path, requires=models.requires(googlenet))
    code = (
        "import sys, torch; from pathlib import Path; from zoo.models import saved as models\n"
        "model = models.load(Path(sys.argv[1]))\n"
        "print(type(model).__name__, tuple(model(torch.zeros(1, 3, 64, 64)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "GoogLeNet (1, 3)"
    assert models.requires(NANO) is None
