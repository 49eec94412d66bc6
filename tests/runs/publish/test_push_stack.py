"""A stack on the Hub: one repository, its members inside, each loadable with plain timm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.utils import close_session

import zoo
from tests.hub.server import Server
from tests.pictures import make_images
from tests.runs.publish.conftest import RECIPE, turn_to
from zoo.errors import HubError
from zoo.models.tensor_files import read_tensors, write_tensors
from zoo.runs.publish import verify
from zoo.runs.run_folder import Run

pytestmark = pytest.mark.usefixtures("rebuilt_at_once")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("stacked")
    splits = {"train": dict.fromkeys(("amber", "blue"), 28), "test": dict.fromkeys(("amber", "blue"), 5)}
    photos = str(make_images(root / "photos", splits))
    recipe = replace(RECIPE, val_fraction=0.4, refit="off", recalibrate="off")
    runs = [zoo.adapt("resnet_nano", photos, replace(recipe, lr=lr), out=root / f"run-{lr}") for lr in (1e-3, 1e-2)]
    return zoo.stack(runs, choice="weighted", out=root / "tints")


def test_a_stack_is_pushed_verified_and_used_from_there(
    hub: Server, stack: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_to(hub, tmp_path, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    close_session()
    done = zoo.push(stack, "tester/tints")
    assert done.verified and done.proof is not None and done.proof.images == 20, "ten of each member's"
    assert {"stack.safetensors", "zoo.json", "members/0/config.json", "members/1/model.safetensors"} <= {
        file.name for file in done.files
    }
    pictures = [stack.path.parent / "photos" / "test" / name / "001.png" for name in ("amber", "blue")]
    here, there = (zoo.predict(model, pictures) for model in (stack, "hf-hub:tester/tints"))
    for one, other in zip(here, there, strict=True):
        assert one.label == other.label and one.probability == pytest.approx(other.probability, abs=1e-5)
    found = zoo.evaluate("tester/tints", str(stack.path.parent / "photos"))
    assert found["n"] == 10 and found["accuracy"] == stack.result.accuracy
    again = zoo.push(stack, "tester/tints")
    assert again.commit == done.commit, "the same stack again changes nothing"
    with pytest.raises(HubError, match="holds another run"):
        other = Run(stack.path / "members" / "0")
        zoo.push(other, "tester/tints")
    close_session()


def test_each_model_is_compared_as_nearly_as_its_own_device_allows(tmp_path: Path) -> None:
    for number, device in enumerate(("cuda", "cpu")):
        member = Run(tmp_path / "members" / str(number))
        member.path.mkdir(parents=True)
        member.write_record({"schema": 1, "status": "finished", "resolved": {"device": device}})
    tolerances = [verify._expected(Run(tmp_path / "members" / str(n)), None)["tolerance"] for n in (0, 1)]
    assert tolerances == [verify.TOLERANCE_ELSEWHERE, verify.TOLERANCE["cpu"]], "whatever the stack was made on"
    own = verify._expected(Run(tmp_path), {"resolved": {"device": "cpu"}})
    assert own == {"kept": str(tmp_path / "verify.safetensors"), "tolerance": verify.TOLERANCE["cpu"]}


def test_a_member_that_does_something_else_is_told(
    hub: Server, stack: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run kept of its first member is not what that member says."""
    turn_to(hub, tmp_path, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    close_session()
    kept = stack.path / "members" / "1" / "verify.safetensors"
    before = kept.read_bytes()
    tensors = dict(read_tensors(kept))
    tensors["logits"] = tensors["logits"] + 1.0
    write_tensors(tensors, kept)
    record = stack.record
    from zoo.models.tensor_files import file_sha256
    from zoo.runs.run_folder import seal

    record["files"]["members/1/verify.safetensors"] = file_sha256(kept)
    record["files"]["run.json"] = seal(record)
    unspoilt = json.dumps(stack.record)
    stack.write_record(record)
    try:
        with pytest.raises(HubError) as caught:
            zoo.push(stack, "tester/spoilt")
        assert caught.value.why.startswith("members/1: its logits differ from the run's by up to 1")
    finally:
        kept.write_bytes(before)
        stack.write_record(json.loads(unspoilt))
        close_session()
