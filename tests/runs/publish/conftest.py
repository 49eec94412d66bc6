"""A run to publish, and this process as a client of the local Hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

import zoo
from tests.forks import Forks
from tests.hub.fixture import hub
from tests.hub.server import Server
from tests.pictures import make_images
from zoo.cli import main
from zoo.models import hub_client
from zoo.models.tensor_files import file_sha256
from zoo.runs.publish import push as publish
from zoo.runs.publish import verify
from zoo.runs.publish.verify import Proof
from zoo.runs.run_folder import Run, seal

__all__ = ["hub"]

RECIPE = zoo.Recipe(strategy="probe", epochs=1, batch_size=8, image_size=32, precision="fp32", threads=1, workers=0)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run for all of these tests; `run` is a copy of it that may be spoiled."""
    root = tmp_path_factory.mktemp("pushed")
    splits = {"train": dict.fromkeys(("amber", "blue"), 8), "test": dict.fromkeys(("amber", "blue"), 5)}
    make_images(root / "secret-place" / "photos", splits)
    return zoo.adapt("resnet_nano", str(root / "secret-place" / "photos"), RECIPE, out=root / "tints")


@pytest.fixture(scope="session")
def rebuilders() -> Iterator[Forks]:
    parent = Forks()
    yield parent
    parent.close()


@pytest.fixture
def rebuilt_at_once(rebuilders: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifying waits for no import of torch: its process is still one of its own, with the environment it is given."""

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:2] == [sys.executable, "-P"]
        return rebuilders.run(command[2:], env, tmp_path)

    monkeypatch.setattr(verify, "subprocess", SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL))


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(finished.path, tmp_path / "tints")))


def rewrite(run: Run, **changes: Any) -> None:
    """Change a run's record as if it had been finished so."""
    record = run.record | changes
    record["files"] = record["files"] | {"run.json": seal(record)}
    run.write_record(record)


def adapted_again(
    run: Run, folder: Path, *, name: str | None = None, created: str = "2099-01-01T00:00:00+00:00"
) -> Run:
    """What adapting anew leaves behind: another id, and what else is given."""
    again = Run(Path(shutil.copytree(run.path, folder)))
    identity = {"id": folder.name.encode().hex(), "name": name or run.record["name"], "created": created}
    config = json.loads((again.path / "config.json").read_text())
    config["zoo"] |= {"run": identity["id"], "name": identity["name"], "created": created}
    (again.path / "config.json").write_text(json.dumps(config))
    files = again.record["files"] | {"config.json": file_sha256(again.path / "config.json")}
    rewrite(again, **identity, files=files)
    return again


@dataclass(frozen=True)
class Client:
    """This process, logged in to the local Hub."""

    hub: Server
    zoo: Callable[..., Outcome]  # `zoo …`
    push: Callable[..., Outcome]  # `zoo push …`
    be: Callable[[str], None]  # use another token; "" is none


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def turn_to(hub: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process a client of that Hub, with a cache of its own in the folder and nobody logged in."""
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(folder / "hub-cache"),
        "HF_TOKEN_PATH": str(folder / "no-token"),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def client(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Client]:
    """The account `tester` of the organisation `acme`; waits are short, and no copy is loaded back."""
    hub.people.add_user("tester", orgs={"acme": "write", "school": "read"})
    turn_to(hub, tmp_path, monkeypatch)
    monkeypatch.setattr(hub_client, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(publish, "verify", lambda *_args, **_named: Proof(8, 0.0, 1e-4, None))
    tokens = [hub.token]

    def be(token: str) -> None:
        tokens.append(token)
        monkeypatch.setenv("HF_TOKEN", token)

    def command(*words: object) -> Outcome:
        capsys.readouterr()
        code = main.run([str(word) for word in words])
        out, err = capsys.readouterr()
        for token in filter(None, tokens):
            assert token not in out and token not in err, "the token was shown"
        return Outcome(code, out, err)

    be(hub.token)
    close_session()
    yield Client(hub, command, partial(command, "push"), be)
    close_session()
