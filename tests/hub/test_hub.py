"""Downloads from the local Hub. Its address is read when libraries are imported: each test is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.record import AS_WITHOUT, ONE_ERROR, Try
from tests.hub import contents
from tests.hub.server import Server

ROOT = Path(__file__).resolve().parents[2]

OPEN = """
import json, sys
from zoo.data import DataOptions, open_dataset
from zoo.errors import DataError
results = {}
for ref in sys.argv[1:]:
    try:
        found = open_dataset(ref, DataOptions(config="fine" if "eyes" in ref else None), None)
        results[ref] = {
            "name": found.name, "classes": found.classes, "license": found.license, "hflip": found.hflip,
            "sizes": [len(found.train), len(found.val), len(found.test)], "notes": found.notes,
            "roles": [found.selected_on, found.reported_on], "fingerprint": found.fingerprint,
            "size": found.train.image(0).size, "mode": found.train.image(0).mode, "id": found.train.samples[0].id,
        }
    except DataError as error:
        results[ref] = error.record()
print(json.dumps(results))
"""


def run(code: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def opened(hub: Server, *refs: str, **environment: str) -> dict[str, Any]:
    done = run(OPEN, *refs, environment={**hub.environment(), **environment})
    assert "%|" not in done.stderr  # no other library's progress bars
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_data_sets_by_name_and_by_reference(hub: Server) -> None:
    contents.put_cifar10(hub.root)
    contents.put_dataset(hub.root, "somebody/eyes", ["left", "right"], {"train": 12}, config="fine", label="side")
    contents.put_dataset(hub.root, "ILSVRC/imagenet-1k", ["a", "b"], {"train": 1})
    (hub.root / "datasets/ILSVRC/imagenet-1k/.gated").write_text("")
    found = opened(hub, "cifar10", "hf:somebody/eyes", "hf:somebody/eyes@gone", "hf:somebody/nothing", "imagenet-1k")
    cifar = found["cifar10"]
    assert cifar["classes"][:3] == ["airplane", "automobile", "bird"]
    assert cifar["sizes"] == [160, 40, 50]
    assert cifar["roles"] == ["val (cut from train)", "test"]
    assert (cifar["size"], cifar["mode"], cifar["license"], cifar["name"]) == ([32, 32], "RGB", "unknown", "cifar10")
    eyes = found["hf:somebody/eyes"]
    assert (eyes["classes"], eyes["sizes"], eyes["name"]) == (["left", "right"], [16, 4, 4], "eyes")
    assert eyes["roles"] == ["val (cut from train)", "test (cut from train)"]
    assert "gone" in found["hf:somebody/eyes@gone"]["what"]
    assert "there is no data set somebody/nothing on the Hub, or it is private" in found["hf:somebody/nothing"]["what"]
    gated = found["imagenet-1k"]
    assert gated["what"] == "the data set imagenet-1k (ILSVRC/imagenet-1k) is gated: its terms must be accepted first"
    assert gated["fix"] == (
        "accept them on https://huggingface.co/datasets/ILSVRC/imagenet-1k, then log in with: hf auth login"
    )
    # What was fetched is there without a network; what was not says how to bring it.
    offline = opened(hub, "cifar10", "mnist", HF_HUB_OFFLINE="1")
    assert offline["cifar10"] == cifar
    missing = offline["mnist"]
    assert missing["what"] == "the data set mnist (ylecun/mnist) is not on this machine and cannot be fetched"
    assert missing["why"] == "HF_HUB_OFFLINE is set, and it is not in the cache"
    assert "unset HF_HUB_OFFLINE" in missing["fix"]
    assert "hf download --repo-type dataset ylecun/mnist" in missing["fix"]


def test_a_dead_endpoint_is_named(hub: Server) -> None:
    dead = opened(hub, "cifar10", HF_ENDPOINT="http://127.0.0.1:9")["cifar10"]
    assert "is not on this machine and cannot be fetched" in dead["what"]
    assert "http://127.0.0.1:9 (HF_ENDPOINT) does not give it: " in dead["why"]


def test_timms_weights_come_from_there(hub: Server) -> None:
    contents.put_timm_weights(hub.root, "test_resnet.r160_in1k", seed=3)
    code = """
import timm, torch
from safetensors.torch import load_file
import sys
network = timm.create_model("test_resnet.r160_in1k", pretrained=True)
ours = load_file(sys.argv[1])
assert all(torch.equal(value, ours[name]) for name, value in network.state_dict().items())
"""
    weights = hub.root / "models/timm/test_resnet.r160_in1k/model.safetensors"
    run(code, str(weights), environment=hub.environment())
    assert any(
        line.startswith("GET /timm/test_resnet.r160_in1k/resolve/main/model.safetensors") for line in hub.requests
    )


def test_the_server_speaks_tree_info_ranges_and_refusals(hub: Server) -> None:
    folder = hub.root / "models/me/net"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep" / "x.bin").write_bytes(bytes(range(100)))
    code = """
import sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
api = HfApi()
info = api.model_info("me/net")
assert [row.rfilename for row in info.siblings] == ["config.json", "deep/x.bin"], info
assert sorted(row.path for row in api.list_repo_tree("me/net", recursive=True)) == ["config.json", "deep", "deep/x.bin"]
assert [row.path for row in api.list_repo_tree("me/net")] == ["config.json", "deep"]
assert api.get_paths_info("me/net", ["deep/x.bin"])[0].size == 100
folder = snapshot_download("me/net", revision=info.sha)
assert open(folder + "/deep/x.bin", "rb").read() == bytes(range(100))
for arguments, error in (
    (("me/none", "a"), RepositoryNotFoundError), (("me/net", "none.bin"), EntryNotFoundError),
):
    try:
        hf_hub_download(*arguments)
    except error:
        continue
    raise SystemExit(f"no {error} for {arguments}")
try:
    api.model_info("me/net", revision="none")
except RevisionNotFoundError:
    pass
"""
    run(code, environment=hub.environment())


@pytest.mark.heavy
def test_every_fault_of_fetching_a_data_set(faults: Try, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.data_faults", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({row["line"] for row in rows}) >= 10
    for row in rows:
        times = "once" if row["times"] else "lasting"
        with faults("hub, data set", row["line"].replace("somebody/eyes/", ""), f"{row['kind']}, {times}") as fault:
            assert row["hits"], f"the fault struck nothing: {row}"
            assert row["clean"]["waits"] == [], "a good Hub is not waited for"
            if "error" in row:
                error = row["error"]
                assert row["times"] is None, f"one {row['kind']} is no reason to give up: {error}"
                assert "is not on this machine and cannot be fetched" in error["what"] and "hf download" in error["fix"]
            else:
                assert row["fingerprint"] == row["clean"]["fingerprint"]
            assert row["told"] or max(row["waits"], default=0) <= 1, "a wait that nobody was told about"
            assert row["again"]["fingerprint"] == row["clean"]["fingerprint"], "the same command mends it"
            fault.survived(ONE_ERROR if "error" in row else AS_WITHOUT)
