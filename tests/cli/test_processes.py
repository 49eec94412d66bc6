"""Several processes that look like one: small scripts stand in for `zoo`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from zoo.cli import processes
from zoo.cli.output import WrongUsage
from zoo.errors import TrainingInterrupted, ZooError
from zoo.runs.run_folder import Run

SCRIPT = """
import json, os, signal, sys, time
rank = int(os.environ["RANK"])
def fault(what, code):
    record = {"what": what, "why": "", "fix": "", "code": code, "at": time.time()}
    with open(os.path.join(os.environ["ZOO_FAULTS"], f"{rank}.json"), "w") as file:
        json.dump(record, file)
    sys.exit(code)
"""


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-I", "-S", "-c"))
    for name in ("WORLD_SIZE", "RANK", "ZOO_FAULTS"):
        monkeypatch.delenv(name, raising=False)


def started(script: str, count: int = 2) -> None:
    processes.launch([SCRIPT + script], count)


def test_each_has_its_number_and_the_first_alone_prints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"]
    started(f"""
words = [os.environ[name] for name in {names}]
print(*words)
open(os.path.join({str(tmp_path)!r}, str(rank)), "w").write(" ".join(words) + os.environ["MASTER_PORT"])
""", 3)  # fmt: skip
    assert capfd.readouterr().out == "0 0 3 3 127.0.0.1\n"
    texts = [(tmp_path / str(number)).read_text() for number in range(3)]
    assert [text[:5] for text in texts] == ["0 0 3", "1 1 3", "2 2 3"]
    assert len({text[5:] for text in texts}) == 1, "they meet at one address"


def test_the_first_fault_is_told_and_not_what_follows_from_it() -> None:
    with pytest.raises(ZooError) as caught:
        started("""
if rank == 0:
    while not os.path.exists(os.path.join(os.environ["ZOO_FAULTS"], "1.json")):
        time.sleep(0.01)
fault("broken image" if rank else "a neighbour is gone", 1)
""")
    assert type(caught.value) is ZooError and caught.value.what == "broken image"


def test_wrong_usage_stays_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="no such option"):
        started("fault('no such option', 2)")


def test_one_that_dies_takes_the_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE", 0.1)
    with pytest.raises(ZooError) as caught:
        started("time.sleep(3600) if rank == 0 else os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.what == "process 1 was ended by SIGKILL" and "memory" in caught.value.why
    with pytest.raises(ZooError, match="process 0 ended with code 3 and gave no reason"):
        started("sys.exit(3 if rank == 0 else 0)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_and_each_has_the_time_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(processes, "_GRACE", 0.1)
    script = f"""
told = []
signal.signal({int(number)}, lambda *_: told.append(1))
open(os.path.join({str(tmp_path)!r}, f"ready {{rank}}"), "w").close()
while not told:
    time.sleep(0.01)
time.sleep(0 if rank else 1)  # longer than others get after a failure
open(os.path.join({str(tmp_path)!r}, f"saved {{rank}}"), "w").close()
fault("stopped at step 7", {128 + number})
"""

    def send() -> None:
        while len(list(tmp_path.glob("ready *"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    before = signal.getsignal(number)
    sender.start()
    with pytest.raises(TrainingInterrupted, match="stopped at step 7") as caught:
        started(script)
    sender.join()
    assert caught.value.signal_number == number
    assert len(list(tmp_path.glob("saved *"))) == 2
    assert signal.getsignal(number) == before


def test_a_third_signal_ends_what_did_not_stop(tmp_path: Path) -> None:
    def send() -> None:
        while len(list(tmp_path.glob("ready *"))) < 2:
            time.sleep(0.01)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(TrainingInterrupted, match="interrupted") as caught:
        started(f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.path.join({str(tmp_path)!r}, f"ready {{rank}}"), "w").close()
time.sleep(3600)
""")
    sender.join()
    assert caught.value.signal_number == signal.SIGTERM


def test_how_many_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "old")
    run.path.mkdir()
    run.write_record({"schema": 1, "resolved": {"processes": 3}})
    assert processes.number_to_start(None, None, None) == 1
    assert processes.number_to_start(4, None, None) == 4
    for source in (str(run.path), str(run.record_path)):
        assert processes.number_to_start(None, None, source) == 3
    assert processes.number_to_start(None, str(run.path), None) == 3
    assert processes.number_to_start(1, None, str(run.path)) == 1, "what is typed wins"
    assert processes.number_to_start(None, "no such run", None) == 1, "which the work itself will say"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.number_to_start(None, None, str(run.path)) == 1
    with pytest.raises(WrongUsage, match="a launcher has started this one already"):
        processes.number_to_start(2, None, None)
    monkeypatch.setenv("ZOO_FAULTS", str(tmp_path))
    assert processes.number_to_start(2, None, None) == 1, "one of those that --processes started"


def test_a_process_of_several_leaves_its_fault_to_be_told(zoo_, api, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_FAULTS", str(tmp_path))
    api.fault = ZooError("photos is empty", fix="put some in")
    done = zoo_("adapt", "resnet_nano", "-d", "photos", "--processes", 2, "--json")
    assert (done.code, done.out) == (1, "") and "photos is empty" not in done.err
    left = json.loads((tmp_path / "0.json").read_text())
    assert (left["what"], left["fix"], left["code"]) == ("photos is empty", "put some in", 1)


def test_adapt_starts_them_and_passes_its_words_on(zoo_, api, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(processes, "launch", lambda words, count: seen.append((list(words), count)))
    monkeypatch.setattr(sys, "argv", ["zoo", "adapt", "resnet_nano", "-d", "digits", "--processes", "2"])
    done = zoo_("adapt", "resnet_nano", "-d", "digits", "--processes", 2)
    assert (done.code, done.out) == (0, "") and not api.calls
    assert seen == [(["adapt", "resnet_nano", "-d", "digits", "--processes", "2"], 2)]
