"""Every way in which a command can end: streams, codes, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import Terminal
from zoo.errors import DataError, TrainingError, TrainingInterrupted

ZOO = [sys.executable, "-m", "zoo"]


def test_a_failure_is_one_message_without_a_traceback(zoo_, api):
    api.fault = DataError("photos is empty", why="it has no image", fix="name another folder")
    done = zoo_("adapt", "resnet_nano", "-d", "photos")
    assert done.code == 1
    assert done.out == ""
    assert done.err.endswith("error: photos is empty\n  why: it has no image\n  fix: name another folder\n")
    assert "Traceback" not in done.err


def test_json_has_one_document_on_stdout_whatever_happens(zoo_, api):
    assert zoo_("plan", "resnet_nano", "-d", "digits", "--json").json["phases"][0]["groups"][0]["frozen"] is True
    api.fault = DataError("photos is empty", fix="name another folder")
    failed = zoo_("plan", "resnet_nano", "-d", "photos", "--json")
    assert (failed.code, failed.json) == (1, {"error": {"what": "photos is empty", "why": "",
                                                        "fix": "name another folder"}})  # fmt: skip
    wrong = zoo_("plan", "--json", "--lr", "x")
    assert wrong.code == 2
    assert wrong.json["error"]["what"] == "--lr takes a number or auto, not 'x'"
    unknown = zoo_("plan", "--nonsense", "--json")
    assert unknown.code == 2
    assert unknown.json["error"]["fix"] == "see: zoo plan --help"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_gives_the_signals_code_and_the_command_to_go_on(zoo_, api, number):
    api.fault = TrainingInterrupted(
        "stopped at step 12; its state is saved", fix="zoo adapt --resume runs/a", signal_number=int(number)
    )
    done = zoo_("adapt", "resnet_nano", "-d", "digits")
    assert done.code == 128 + number
    assert "\nstopped at step 12; its state is saved\n  fix: zoo adapt --resume runs/a" in done.err
    api.fault = KeyboardInterrupt()
    done = zoo_("plan", "resnet_nano", "-d", "digits", "--json")
    assert (done.code, done.json["error"]["what"]) == (130, "interrupted")


def test_a_bug_is_called_one(zoo_, api, monkeypatch):
    api.fault = IndexError("list index out of range")
    done = zoo_("plan", "resnet_nano", "-d", "digits")
    assert done.code == 1
    assert (
        "this is a bug in zoo: IndexError: list index out of range\n  fix: run the same command with --debug"
        in done.err
    )
    assert "Traceback" not in done.err
    assert "Traceback" in zoo_("plan", "resnet_nano", "-d", "digits", "--debug").err
    assert "Traceback" in zoo_("--debug", "plan", "resnet_nano", "-d", "digits").err
    monkeypatch.setenv("ZOO_DEBUG", "1")
    debugged = zoo_("plan", "resnet_nano", "-d", "digits", "--json")
    assert "Traceback" in debugged.err
    assert debugged.json["error"]["what"].startswith("this is a bug")


def test_of_several_processes_only_the_first_prints(zoo_, api, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    done = zoo_("adapt", "resnet_nano", "-d", "digits")
    assert (done.code, done.out, done.err) == (0, "", "")
    api.fault = DataError("photos is empty")
    done = zoo_("adapt", "resnet_nano", "-d", "photos", "--json")
    assert (done.code, done.out, done.err) == (1, "", "")
    api.fault = TrainingError("memory ran out")  # which can befall one process alone
    done = zoo_("adapt", "resnet_nano", "-d", "photos")
    assert (done.code, done.err) == (1, "[process 1] error: memory ran out\n")
    monkeypatch.setenv("RANK", "0")
    assert "memory ran out" in zoo_("adapt", "resnet_nano", "-d", "photos").err


def test_help_and_version(zoo_):
    helped = zoo_("--help")
    assert helped.code == 0
    for name in ("list", "show", "plan", "adapt", "eval", "predict", "datasets", "plugins", "runs"):
        assert f" {name} " in helped.out
    assert zoo_("--version").out == "zoo 0.1.0\n"
    alone = zoo_()
    assert alone.code == 2
    assert "Usage: zoo" in alone.out


@pytest.mark.parametrize(
    "name", ["list", "show", "plan", "adapt", "eval", "predict", "datasets", "plugins list", "runs"]
)
def test_each_commands_help_has_a_worked_example(zoo_, name):
    done = zoo_(*name.split(), "--help")
    assert done.code == 0
    assert re.search(rf"For example:\s+(?:.*\n)*?\s*(?:.* \| )?zoo {name}", done.out)


def test_errors_are_red_on_a_terminal_unless_colours_are_unwanted(zoo_, api, monkeypatch):
    api.fault = DataError("photos is empty")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    zoo_("show", "nonexistent_thing_x")
    assert "\x1b[1;31merror:\x1b[0m" in screen.getvalue()
    plain = Terminal()
    monkeypatch.setattr(sys, "stderr", plain)
    monkeypatch.setenv("NO_COLOR", "1")
    zoo_("runs", __file__)
    assert plain.getvalue().startswith("error: ")


def test_a_reader_that_leaves_early_is_no_fault():
    shell = f"{' '.join(ZOO)} list --json | head -n 1; echo code ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[")
    assert done.stderr == ""
    closed = subprocess.run(["bash", "-c", f"{' '.join(ZOO)} list >&-"], capture_output=True, text=True)
    assert "Traceback" not in closed.stderr


def test_a_terminal_that_cannot_write_every_letter():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*ZOO, "adapt", "--resume", "läufe", "--out", "b"], capture_output=True, env=env)
    assert done.returncode == 2
    assert rb"zoo adapt --resume l\xe4ufe" in done.stderr
    listed = subprocess.run([*ZOO, "list", "läufe", "--json"], capture_output=True, env=env)
    assert "läufe" in json.loads(listed.stdout)["error"]["what"]


def test_ctrl_c_in_a_real_process_is_code_130():
    slow = "import sys, time, zoo.models.lookup; sys.argv = ['zoo', 'list', '--json']\n"
    slow += "zoo.models.lookup.discover = lambda: (print('ready', file=sys.stderr, flush=True), time.sleep(30))\n"
    slow += "from zoo.cli.main import main; main()"
    with subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None and process.stdout is not None
        assert process.stderr.readline() == b"ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out) == {"error": {"what": "interrupted", "why": "", "fix": ""}}
    assert b"Traceback" not in err
