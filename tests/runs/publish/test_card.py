from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.runs.report.fixture import FLOWERS, make_run
from zoo.runs.publish import model_card


def made(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return make_run(tmp_path, **options).record


def metadata(text: str) -> dict[str, Any]:
    written: dict[str, Any] = yaml.safe_load(text.removeprefix("---\n").split("\n---\n")[0])
    assert ModelCard(text).data.to_dict() == written, "the Hub's own client reads what is written"
    return written


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def test_metadata_says_what_was_measured(tmp_path: Path) -> None:
    record = made(tmp_path)
    data = metadata(model_card(record))
    assert data["library_name"] == "timm"
    assert data["pipeline_tag"] == "image-classification"
    assert data["license"] == "apache-2.0"
    assert data["metrics"] == ["accuracy", "f1"]
    assert "base_model" not in data and "base_model_relation" not in data, "the weights came from a file"
    assert "datasets" not in data, "the data set is not on the Hub"
    (entry,) = data["model-index"][0]["results"]
    assert entry["dataset"] == {"name": "flowers", "type": "flowers", "split": "test"}
    values = {metric["type"]: metric["value"] for metric in entry["metrics"]}
    assert values == pytest.approx(
        {"accuracy": record["result"]["accuracy"], "f1": record["result"]["macro_f1"]}, abs=1e-6
    )
    results = ModelCard(model_card(record)).data.eval_results
    assert results is not None and results[0].metric_value == pytest.approx(record["result"]["accuracy"], abs=1e-6)


def test_body_has_the_measured_table(tmp_path: Path) -> None:
    record = made(tmp_path)
    text, result = body(model_card(record)), record["result"]
    low, high = (100 * bound for bound in result["interval"])
    assert f"| Accuracy | **{100 * result['accuracy']:.1f}%** (95% interval {low:.1f} to {high:.1f}%) |" in text
    assert f"| Macro-F1 | {result['macro_f1']:.3f} |" in text
    assert f"| Expected calibration error | {100 * result['ece']:.1f}% |" in text
    assert "| Images | 400, split test |" in text
    assert "| Best epoch chosen on | val (cut from train) |" in text
    assert "| trained on | train | 800 |" in text
    assert "| stem | 9,408 | frozen | \N{EN DASH} | frozen |" in text
    assert "| stem | 9,408 | 3.13e-5 | 0.05 | live |" in text
    assert "<code>epochs</code> 8, <code>augment</code> strong, <code>seed</code> 7." in text
    assert 'timm.create_model("local-dir:.", pretrained=True)' in text
    assert "3 \N{MULTIPLICATION SIGN} 64 \N{MULTIPLICATION SIGN} 64" in text and "bicubic" in text
    assert "The weights it started from are under apache-2.0, the images under cc-by-4.0." in text


def test_the_card_says_what_came_of_a_target_without_labels(tmp_path: Path) -> None:
    target: dict[str, Any] = {
        "ref": "hf:someone/drawings", "name": "drawings", "n": 500, "choosing": 300, "license": "cc0-1.0",
        "align": "dann", "semi": "none",
        "result": {"accuracy": 0.625, "interval": [0.6, 0.65], "n": 80, "split": "test"},
    }  # fmt: skip
    changes: dict[str, Any] = {"resolved": {"select_by": "entropy", "precision": "fp32", "device": "cpu"}}
    card = model_card(made(tmp_path, target=target, **changes))
    assert metadata(card)["datasets"] == ["someone/drawings"]
    text = body(card)
    assert "On test of drawings, the domain that it was adapted to, the accuracy is **62.5%** (95% interval" in text
    assert "| trained on without labels | drawings | 500 |" in text
    assert "| measured after every epoch | val (cut from train) |" in text
    assert "| best epoch chosen on (entropy), without labels | drawings | 300 |" in text
    assert "| also measured on | test of drawings | 80 |" in text
    assert "Unlabelled images: [someone/drawings](https://huggingface.co/datasets/someone/drawings)" in text
    assert "licence cc0-1.0." in text and "like those of flowers, and of drawings where stated" in text
    del target["result"]
    text = body(model_card(made(tmp_path / "bare", target=target | {"ref": None, "license": None})))
    assert "nothing was measured: its labels are not known" in text
    assert "Unlabelled images: drawings, licence unknown." in text
    assert "| best epoch chosen on | val (cut from train) |" in text, "labelled images chose it"
    more = {"ref": None, "name": "more", "n": 70, "license": None}
    text = body(model_card(made(tmp_path / "more", unlabelled=more)))
    assert "Unlabelled images: more, licence unknown." in text and "the domain" not in text


def test_tables_are_whole(tmp_path: Path) -> None:
    """Every line of a table has as many cells as its head, and a table starts after an empty line."""
    lines = body(model_card(made(tmp_path, classes=["a|b", "c"]))).splitlines()
    for index, line in enumerate(lines):
        if set(line) <= set("|-: ") and "---" in line:
            assert lines[index - 2] == ""
            width, below = line.count("|"), index - 1
            while below < len(lines) and lines[below].startswith("|"):
                assert lines[below].count("|") == width
                below += 1


@pytest.mark.parametrize(
    ("weights", "license_", "name"),
    [
        ({"name": "x", "source": "file", "license": "cc-by-nc-4.0"}, "cc-by-nc-4.0", None),
        ({"name": "x", "source": "file", "license": None}, None, None),
        ({"name": "x", "source": "file", "license": "unknown"}, None, None),
        ({"name": "x", "source": "file", "license": "House Licence"}, "other", "house-licence"),
        (None, None, None),
    ],
)
def test_licence_is_inherited_never_invented(tmp_path: Path, weights: Any, license_: Any, name: Any) -> None:
    record = made(tmp_path)
    record["backbone"]["weights"] = weights
    data = metadata(model_card(record))
    assert (data.get("license"), data.get("license_name")) == (license_, name)


@pytest.mark.parametrize("tasks", [[[]], ["kind"], 3, ["a=/home/me/secret.csv:a:b:c"]])
def test_damaged_tasks_are_shown_without_a_path(tmp_path: Path, tasks: Any) -> None:
    record = made(tmp_path)
    record["recipe"]["tasks"] = tasks
    assert "/home/me" not in model_card(record)


def test_random_weights_have_no_base_model(tmp_path: Path) -> None:
    record = made(tmp_path)
    record["backbone"]["weights"] = None
    text = model_card(record)
    assert "trained from random weights" in text and "fine-tuned from" not in text
    assert "base_model" not in metadata(text)
    assert "licence of the weights" not in text


@pytest.mark.parametrize(
    ("weights", "base"),
    [
        ({"name": "a1_in1k", "source": "timm", "license": "apache-2.0"}, "timm/resnet50.a1_in1k"),
        ({"name": "no_such_tag", "source": "timm", "license": "apache-2.0"}, None),
        ({"name": "mine", "source": "hf-hub", "repo": "me/my-net@v2", "license": None}, "me/my-net"),
        ({"name": "mine", "source": "url", "license": None}, None),
    ],
)
def test_base_model_is_a_hub_repository(tmp_path: Path, weights: dict[str, Any], base: str | None) -> None:
    record = made(tmp_path)
    record["backbone"] |= {"arch": "resnet50", "weights": weights}
    data = metadata(model_card(record))
    assert data.get("base_model") == base
    assert data.get("base_model_relation") == ("finetune" if base else None)


@pytest.mark.parametrize(
    "dataset",
    [{"ref": "hf:uoft-cs/cifar10@abc123"}, {"ref": "cifar10", "hub": "uoft-cs/cifar10", "revision": "abc123"}],
)
def test_hub_data_is_linked(tmp_path: Path, dataset: dict[str, str]) -> None:
    record = made(tmp_path)
    record["dataset"] |= {**dataset, "name": "cifar10"}
    text = model_card(record)
    data = metadata(text)
    assert data["datasets"] == ["uoft-cs/cifar10"]
    source = data["model-index"][0]["results"][0]["dataset"]
    assert source == {"name": "cifar10", "type": "uoft-cs/cifar10", "split": "test", "revision": "abc123"}
    assert "(https://huggingface.co/datasets/uoft-cs/cifar10)" in text


def test_plugin_architectures_say_what_to_install(tmp_path: Path) -> None:
    record = made(tmp_path)
    plain = model_card(record)
    record["backbone"] |= {"module": "adaptzoo_legacy.models", "distribution": "adaptzoo-legacy", "arch": "alexnet"}
    text = model_card(record)
    assert "The architecture is not part of timm itself: the plugin <code>adaptzoo-legacy</code> (0.1.0)" in text
    assert text.count("\nimport adaptzoo_legacy.models  # registers alexnet\n") == 2
    assert "plugin" not in plain


def test_python_examples_compile(tmp_path: Path) -> None:
    record = made(tmp_path)
    record["backbone"]["module"] = "adaptzoo_legacy.models"
    examples = re.findall(r"```python\n(.*?)```", model_card(record), flags=re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        compile(example, "card", "exec")


def test_paths_of_the_training_machine_stay_there(tmp_path: Path) -> None:
    record = made(tmp_path)
    record["recipe"]["weights"] = "/home/someone/secret place/start.safetensors"
    text = model_card(record)
    assert "secret" not in text and "/home" not in text
    assert "<code>weights</code> start.safetensors" in text


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    nasty = [
        "<script>alert(1)</script>",
        "a|b",
        "[x](http://evil)",
        "`c`",
        "**d**",
        "_e_",
        "www.evil.com",
        "@someone",
        "&lt;",
    ]
    record = made(tmp_path, classes=nasty)
    record["dataset"]["name"] = "x\n---\n# <img src=x onerror=alert(1)> | ```"
    record["name"] = "n: [\n---\n"
    record["backbone"]["module"] = "m\n```\n<script>"
    record["plan"]["phases"][0]["groups"][0]["name"] = "a|<b>"
    text = model_card(record)
    metadata(text)
    written = body(text)
    outside_code = re.sub(r"```python\n.*?\n```", "", written, flags=re.DOTALL)
    assert not re.search(r"<(?!/?(code|details|summary)>)", outside_code)
    for bad in ("](http://evil", "`c`", "**d**", "_e_", "www.evil", "@someone", "&lt;"):
        assert bad not in outside_code
    assert "```" not in outside_code
    assert "a&#124;b" in outside_code and "a&#124;&#60;b&#62;" in outside_code
    assert "\n# &#60;img" not in outside_code


def test_many_classes_are_not_all_written_out(tmp_path: Path) -> None:
    text = model_card(made(tmp_path, classes=[f"class{i}" for i in range(1000)], per_class=2))
    assert "Classes (1,000)" in text and "class99, … (all of them are in config.json)" in text
    assert "class100" not in text


def test_an_unfinished_run_claims_nothing(tmp_path: Path) -> None:
    text = model_card(made(tmp_path, status="interrupted"))
    data = metadata(text)
    assert "model-index" not in data and "metrics" not in data
    assert "**This run is not finished (status: interrupted): nothing has been measured yet.**" in text
    assert "## Measured" not in text and "Accuracy" not in text


def test_limits_come_from_the_numbers(tmp_path: Path) -> None:
    text = model_card(made(tmp_path, classes=FLOWERS[:2], per_class=20, skill=0.5))
    assert "- Measured on only 40 images: the 95% interval is" in text
    assert "It knows only these 2 classes" in text
