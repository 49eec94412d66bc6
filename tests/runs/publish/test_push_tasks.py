"""Several tasks on the Hub: all in one repository, or one alone as an ordinary timm model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
from huggingface_hub import hf_hub_download
from huggingface_hub.utils import close_session
from PIL import Image

import zoo
from tests.hub.server import Server
from tests.runs.publish.conftest import RECIPE, turn_to
from zoo.errors import RunError
from zoo.runs.run_folder import Run

pytestmark = pytest.mark.usefixtures("rebuilt_at_once")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A class and a quantity of small pictures; who has one of them does not always have the other."""
    root = tmp_path_factory.mktemp("tasks")
    lines = ["path,tint,light,split"]
    for number in range(40):
        light = 30 + 5 * number
        pixels = np.random.default_rng(number).integers(0, 20, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, number % 2] += np.uint8(light)
        Image.fromarray(pixels).save(root / f"{number}.png")
        tint = ("", "red" if number % 2 == 0 else "green")[number % 5 > 0]
        lines.append(f"{number}.png,{tint},{light if number % 3 else ''},{('train', 'test')[number % 4 == 3]}")
    table = root / "tints.csv"
    table.write_text("\n".join(lines) + "\n")
    asked = (f"tint={table}:tint", f"light={table}:light:regression")
    return zoo.adapt("resnet_nano", recipe=replace(RECIPE, tasks=asked), out=root / "both")


def test_all_tasks_or_one_are_pushed_verified_and_used_from_there(
    hub: Server, tasks: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_to(hub, tmp_path, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    close_session()
    try:
        table = next(tasks.path.parent.glob("*.csv"))
        pictures = [table.parent / name for name in ("3.png", "7.png")]
        here = zoo.predict(tasks, pictures)
        assert zoo.push(tasks, "tester/both").verified
        for one, other in zip(here, zoo.predict("hf-hub:tester/both", pictures), strict=True):
            assert one.tasks["tint"].label == other.tasks["tint"].label
            assert one.tasks["light"].value == pytest.approx(other.tasks["light"].value, abs=1e-3)
        found = zoo.evaluate("tester/both", str(table), split="test")
        assert found["score"] == pytest.approx(tasks.result.score) and found["tasks"]["light"]["n"] == 6

        alone = zoo.push(tasks, "tester/tint", task="tint")
        assert alone.verified and zoo.push(tasks, "tester/tint", task="tint").commit == alone.commit, "nothing changed"
        model = timm.create_model("hf-hub:tester/tint", pretrained=True)
        assert model.num_classes == 2 and model.pretrained_cfg["label_names"] == ["green", "red"]
        for one, other in zip(here, zoo.predict("tester/tint", pictures), strict=True):
            assert other.tasks is None and one.tasks["tint"].label == other.label
            assert one.tasks["tint"].probability == pytest.approx(other.probability, abs=1e-5)
        assert zoo.push(tasks, "tester/light", task="light").verified
        assert zoo.predict("tester/light", pictures)[0].value == pytest.approx(here[0].tasks["light"].value, abs=1e-3)

        for repo in ("tester/both", "tester/tint"):
            for name in ("README.md", "zoo.json", "config.json"):
                assert str(table.parent) not in Path(hf_hub_download(repo, name)).read_text()
        assert json.loads(Path(hf_hub_download("tester/both", "zoo.json")).read_text())["kind"] == "multitask"
        with pytest.raises(RunError, match="has no task 'age'"):
            zoo.push(tasks, "tester/age", task="age")
    finally:
        close_session()
