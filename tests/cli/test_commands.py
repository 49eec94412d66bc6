"""What each command prints, for people and as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import PLAN, RECORD, RESULT, Terminal
from zoo.cli import render
from zoo.models import lookup
from zoo.models.lookup import Discovery, PluginFault
from zoo.models.plugins import discovery
from zoo.runs.run_folder import Run


@pytest.fixture
def broken_plugin(monkeypatch):
    found = discovery.scan()
    fault = PluginFault("bad", "adaptzoo-bad", "2.0", "error", "zoo.yaml is not valid YAML", "reinstall it")
    for module, name in ((lookup, "discover"), (discovery, "scan")):
        monkeypatch.setattr(module, name, lambda: Discovery(found.plugins, (*found.faults, fault)))


def test_list_json_has_the_promised_keys(zoo_):
    rows = zoo_("list", "--json").json
    row = next(row for row in rows if row["name"] == "resnet_nano")
    assert {"name", "plugin", "arch", "params", "input", "weights", "groups"} <= row.keys()
    assert row["plugin"] == "resnet" and row["arch"] == "test_resnet" and row["input"] == 64
    assert row["weights"] == ["tiny_imagenet"] and row["groups"][-1] == "head"
    assert [row["plugin"] for row in rows].count("timm") == 1
    assert rows[-1]["name"] == "timm/<architecture>" or any(row["name"] == "timm/<architecture>" for row in rows)


def test_list_prints_a_plain_line_for_each_backbone_in_a_pipe(zoo_):
    lines = zoo_("list").out.splitlines()
    assert lines[0].split() == ["backbone", "plugin", "params", "input", "groups", "weights"]
    line = next(line for line in lines if line.startswith("resnet50 "))
    assert line.split()[:6] == ["resnet50", "resnet", "25.6", "M", "224", "6"]
    assert not any(sign in "\n".join(lines) for sign in "\x1b\t│─")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("vgg1?_bn", {"vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"}),
        ("legacy/*", {"alexnet", "googlenet"}),
        ("*/alexnet", {"alexnet"}),
        ("wide", {"wide_resnet50_2"}),
    ],
)
def test_list_filters_by_short_and_full_names(zoo_, pattern, names):
    assert {row["name"] for row in zoo_("list", pattern, "--json").json} == names


def test_list_searches_timm_when_asked(zoo_):
    rows = zoo_("list", "timm/mobilenetv2_1?0", "--json").json
    assert [row["full_name"] for row in rows] == ["timm/mobilenetv2_100", "timm/mobilenetv2_140"]
    assert rows[0]["weights"][0] == "ra_in1k" and rows[0]["input"] == 224


def test_list_without_a_match_says_where_to_look(zoo_):
    done = zoo_("list", "*convnext*")
    assert done.code == 1
    assert "no backbone matches '*convnext*'\n  fix: search all of timm: zoo list 'timm/*convnext*'" in done.err
    assert zoo_("list", "*convnext*", "--json").json["error"]["what"] == "no backbone matches '*convnext*'"


def test_a_broken_plugin_is_one_line_on_stderr(zoo_, broken_plugin):
    done = zoo_("list", "--json")
    assert done.code == 0
    assert len(done.json) > 30
    assert done.err.splitlines() == [
        "plugin 'bad' from adaptzoo-bad 2.0 is not usable: zoo.yaml is not valid YAML (reinstall it)"
    ]


def test_plugins_list(zoo_, broken_plugin):
    rows = {row["name"]: row for row in zoo_("plugins", "list", "--json").json}
    assert {"name", "distribution", "version", "status", "error", "backbones"} <= rows["bad"].keys()
    assert (rows["bad"]["status"], rows["bad"]["error"]) == ("error", "zoo.yaml is not valid YAML")
    assert rows["legacy"]["status"] == "ok" and rows["legacy"]["error"] is None
    assert set(rows["legacy"]["backbones"]) == {"alexnet", "googlenet"}
    shown = zoo_("plugins", "list").out
    assert "bad (adaptzoo-bad): reinstall it" in shown


def test_show_tells_groups_weights_and_licences(zoo_):
    facts = zoo_("show", "resnet50", "--json").json
    assert (facts["full_name"], facts["distribution"], facts["params"]) == (
        "resnet/resnet50", "adaptzoo-resnet", 25_557_032)  # fmt: skip
    assert facts["groups"][0]["name"] == "stem" and "match" in facts["groups"][0]
    restricted = [weights["name"] for weights in facts["weights"] if weights["non_commercial"]]
    assert restricted and all(
        "-nc-" in weights["license"] for weights in facts["weights"] if weights["name"] in restricted
    )
    shown = zoo_("show", "resnet50").out
    assert "zoo adapt resnet50 --dataset FOLDER" in shown
    assert shown.count("(NOT for commercial use)") == len(restricted)
    assert "group\nstem\nlayer1\n" in shown and "\\" not in shown, "no regular expressions"


def test_show_builds_a_timm_architecture_to_know_its_groups(zoo_):
    facts = zoo_("show", "timm/mobilenetv2_100", "--json").json
    assert facts["params"] == sum(group["params"] for group in facts["groups"]) == 3_504_872
    assert facts["groups"][-1] == {"name": "head", "params": 1_281_000}


def test_show_of_an_unknown_name_suggests(zoo_):
    done = zoo_("show", "resnet5")
    assert done.code == 1
    assert "resnet50" in done.err


def test_datasets(zoo_):
    rows = {row["name"]: row for row in zoo_("datasets", "--json").json}
    assert rows["digits"]["source"] == "builtin:digits"
    shown = zoo_("datasets").out
    assert "digits" in shown
    assert "imagenet-1k is gated: accept its terms at https://huggingface.co/datasets/ILSVRC/imagenet-1k" in shown


def test_plan_prints_a_line_for_each_phase_and_group(zoo_, api):
    done = zoo_("plan", "resnet_nano", "-d", "digits")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["phase", "group", "parameters", "rate", "decay", "frozen", "norm"] in lines
    assert ["probe", "stem", "1,200", "-", "-", "yes", "frozen"] in lines
    assert ["finetune", "stem", "1,200", "0.0005", "0.05", "no", "live"] in lines
    assert "finetune: 2 epochs, 6 steps, one-cycle; trains 1.53 k parameters" in done.out
    assert "about 1 min 23 s of training, about 210 MB of memory" in done.out
    assert "note: val is cut from train" in done.out


@pytest.mark.parametrize(("waiting", "words"), [(8.3, " (10% of it waiting for images)"), (1.0, ""), (None, "")])
def test_a_plan_speaks_of_waiting_where_it_matters(capsys, waiting, words):
    render.plan(replace(PLAN, data_wait=waiting).record())
    assert f"about 1 min 23 s of training{words}, about 210 MB" in capsys.readouterr().out


def test_plan_json(zoo_, api):
    document = zoo_("plan", "resnet_nano", "-d", "digits", "--json").json
    assert {"phases", "seconds", "memory_bytes"} <= document.keys()
    assert {"name", "params", "lr", "weight_decay", "frozen", "norm"} <= document["phases"][0]["groups"][0].keys()


def test_adapt_prints_the_plan_and_epochs_on_stderr_and_the_result_on_stdout(zoo_, api):
    done = zoo_("adapt", "resnet_nano", "-d", "digits", "--out", "runs/made")
    assert done.code == 0
    assert api.calls[0][2]["out"] == "runs/made"
    assert done.out.splitlines() == [
        "accuracy  97.2% (95.0 to 98.4%) of 360 images from test",
        "chosen    finetune epoch 2, by val (cut from train)",
        "baseline  10.0% (always guessing the commonest class)",
        "run       runs/made",
        "report    runs/made/report.html",
        "",
        "next:",
        "  zoo eval runs/made",
        "  zoo predict runs/made IMAGE...",
    ]
    assert "Plan: resnet/resnet_nano on digits" in done.err
    assert "note: [bold] is no markup" in done.err
    assert "finetune 2/2  train loss 0.500  val loss 0.400  val accuracy 92.0%  1.5 s  best so far" in done.err
    assert not any(sign in done.err for sign in "\x1b\r")


def test_adapt_json(zoo_, api):
    document = zoo_("adapt", "resnet_nano", "-d", "digits", "--json").json
    assert document["run"] == "runs/made"
    assert {"accuracy", "loss", "n", "split", "selected_on"} <= document["result"].keys()
    assert document["seconds"] == {"setup": 1.0, "train": 2.0, "total": 3.5}


def test_adapt_on_a_terminal_shows_bars_and_puts_the_terminal_back(zoo_, api, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    assert zoo_("adapt", "resnet_nano", "-d", "digits").code == 0
    drawn = screen.getvalue()
    assert "━" in drawn and "note: [bold] is no markup" in drawn
    assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l") >= 0  # the cursor is visible again


def test_eval(zoo_, api):
    done = zoo_("eval", "runs/made", "--dataset", "more", "--split", "val", "--label-column", "kind", "--json")
    assert done.json == RESULT
    assert api.calls == [("evaluate", ("runs/made", "more"), {
        "split": "val", "batch_size": 32, "path_column": None, "label_column": "kind", "label_separator": None,
        "dataset_config": None,
        "on_bad_image": "error"})]  # fmt: skip
    shown = zoo_("eval", "runs/made").out
    assert "97.2% (95.0 to 98.4%) accuracy of 360 images from test" in shown
    for name, value in (("top-5 accuracy", "99.9%"), ("loss", "0.1234"), ("macro F1", "0.9700"),
                        ("calibration error", "0.0210")):  # fmt: skip
        assert any(line.startswith(name) and line.endswith(value) for line in shown.splitlines())
    assert ["1", "36", "50.0%"] in [line.split() for line in shown.splitlines()]


def test_predict_reports_what_it_cannot_read_after_the_rest(zoo_, api):
    done = zoo_("predict", "runs/made", "a.png", "broken.png", "b [x].png", "--top", 2)
    assert done.code == 1
    assert "b [x].png  seven        91.0%  one 6.0%" in done.out
    assert "broken.png" not in done.out
    assert "cannot read broken.png: cannot identify image" in done.err
    rows = zoo_("predict", "runs/made", "a.png", "broken.png", "--json").json
    assert rows[0]["top"][0] == {"label": "seven", "probability": 0.91}
    assert rows[1] == {"path": "broken.png", "error": "cannot identify image"}


def test_predict_takes_paths_from_stdin(zoo_, api):
    done = zoo_("predict", "runs/made", "-", "z.png", stdin="a b.png\n\nc.png\n")
    assert done.code == 0
    assert api.calls[0][1] == ("runs/made", ["a b.png", "c.png", "z.png"])
    empty = zoo_("predict", "runs/made", "-", stdin="\n")
    assert empty.code == 2
    assert "no images were named" in empty.err


def test_control_characters_in_names_do_not_reach_the_terminal(zoo_, api):
    done = zoo_("predict", "runs/made", "evil\x1b[2J.png", "broken\x1b[2J.png")
    assert "\x1b" not in done.out + done.err


def test_runs(zoo_, api):
    assert "no runs under runs; make one: zoo adapt" in zoo_("runs").out
    assert zoo_("runs", "--json").json == []
    for name, changes in (("good", {}), ("half", {"status": "interrupted", "result": None})):
        run = Run(Path("runs") / name)
        run.path.mkdir(parents=True)
        run.write_record({**RECORD, **changes})
    (Path("runs") / "odd").mkdir()
    (Path("runs") / "odd" / "run.json").write_text("{")
    done = zoo_("runs", "--json")
    rows = {row["name"]: row for row in done.json}
    assert rows["good"] == {
        "run": "runs/good", "name": "good", "status": "finished", "kind": "classifier",
        "backbone": "resnet/resnet_nano", "dataset": "digits", "strategy": "lp-ft", "problem": "single-label",
        "score": 0.972, "accuracy": 0.972, "n": 360, "split": "test", "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    assert rows["half"]["status"] == "interrupted" and rows["half"]["accuracy"] is None
    assert rows["odd"]["status"] == "damaged" and "run.json cannot be read" in done.err
    shown = zoo_("runs").out
    assert "97.2%" in shown and "half is not finished: go on with it: zoo adapt --resume runs/half" in shown


def test_tables_on_a_terminal_fit_it(zoo_, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    zoo_("list", "resnet5*")
    import re

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "resnet50" in plain
    assert max(map(len, plain.splitlines())) <= 60


def test_json_is_plain_json_even_on_a_terminal(zoo_, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    zoo_("datasets", "--json")
    assert json.loads(screen.getvalue())
