"""The report of a run with unlabelled images."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tests.runs.report.fixture import make_run, pictures
from tests.runs.report.html_reader import read
from zoo.base.text import DASH
from zoo.runs.report.page import write_report
from zoo.runs.report.sentences import unlabelled_role

POINTS = {"source": [[0.0, 1.0], [2.0, 3.0]], "target": [[4.0, 5.0]], "share": 0.8}
TARGET: dict[str, Any] = {
    "name": "<b>drawings</b>", "n": 500, "align": "daan", "semi": "none", "select_by": "information",
    "validators": {"entropy": 0.5, "information": 1.2, "density": 3.0},
    "result": {"accuracy": 0.625, "interval": [0.6, 0.65], "n": 400, "split": "test"},
    "chosen": {"phase": "finetune", "epoch": 3, "accuracy": 0.61},
    "oracle": {"phase": "finetune", "epoch": 5, "accuracy": 0.66},
    "domains": {"before": POINTS, "after": POINTS},
    "tried": {"by": "information", "left_out": {"adabn": "no norms"}, "rows": [
        {"align": "none", "score": 0.4, "source": 0.9, "accuracy": 0.31, "chosen": False},
        {"align": "daan", "score": 1.2, "source": 0.88, "accuracy": 0.625, "chosen": True},
    ]},
}  # fmt: skip


def test_choice_oracle_source_only_and_both_plots_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path, target=TARGET, resolved={"select_by": "information"})
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    for line in lines:
        if line["event"] == "step":
            line["parts"] = {"supervised": line["loss"] / 2, "daan": line["loss"] / 2, "omega": 0.3}
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = write_report(run, pictures(run.record))
    words = read(path).words("target")
    assert "Accuracy on test 62.5%" in words and "400 images" in words and "<b>drawings</b>" in words
    assert "Epoch chosen by information 61.0% finetune 3" in words
    assert "Epoch that its labels would have chosen 66.0% finetune 5" in words
    assert "Source only 31.0%" in words and "daan (chosen)" in words
    assert "not for training or choosing" in words
    assert "500 images trained on without labels" in words and "adabn was not tried: no norms." in words
    page = read(path)
    chosen = "the epoch was chosen by information on unlabelled images of <b>drawings</b>"
    assert f"Validation is val (cut from train): {chosen}" in page.words("training")
    assert "is measured after every epoch" in page.words("data") and "chooses the best epoch" not in page.words("data")
    html = path.read_text(encoding="utf-8")
    for title in ("both domains before training", "both domains after training", "omega over the steps"):
        assert title in html
    assert "0: the domains as a whole count, 1: their classes" in read(path).words("objective")


def test_guesses_that_counted_are_drawn_and_none_is_said(tmp_path: Path) -> None:
    def shown(folder: str, sure: float) -> tuple[str, str, str]:
        beside = {"unlabelled": {"name": "more", "n": 160}}
        run = make_run(tmp_path / folder, **beside)
        record = run.record
        record["recipe"]["semi"] = "fixmatch"
        record["plan"]["phases"][-1] |= {
            "unlabelled": 112, "views": 2, "extra": {**record["plan"]["phases"][-1]["groups"][-1], "name": "fixmatch"},
        }  # fmt: skip
        run.write_record(record)
        lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
        for line in lines:
            if line["event"] == "step":
                line["parts"] = {"supervised": line["loss"], "fixmatch": 0.0, "sure": sure}
        run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        page = read(write_report(run, {}))
        return page.words("unlabelled"), page.words("objective"), page.words("plan")

    named, objective, plan = shown("a", 0.4)
    assert "more: 160 images trained on without labels, pseudo-labels by fixmatch" in named
    assert (
        "In the last tenth of the steps, 40.0% were above the threshold" in objective
        and "almost nothing" not in objective
    )
    assert "56 unlabelled images alongside each batch, in 2 views each" in plan and "fixmatch not published" in plan
    assert "the model learned almost nothing from them" in shown("b", 0.001)[1]


def test_a_method_that_hurts_is_said_to(tmp_path: Path) -> None:
    tried = copy.deepcopy(TARGET["tried"])
    tried["rows"].append({"align": "cdan", "score": 0.1, "source": 0.9, "accuracy": 0.25, "chosen": False})
    rows = read(write_report(make_run(tmp_path / "a", target=TARGET | {"tried": tried}, curves=False), {})).rows[
        "target"
    ]
    tried["rows"][-1]["accuracy"] = 0.2
    worse = read(write_report(make_run(tmp_path / "b", target=TARGET | {"tried": tried}, curves=False), {}))
    assert worse.rows["target"][-1][-1] == "-11.0 points (hurts)"
    assert [row[-1] for row in rows] == ["against none", DASH, "+31.5 points", "-6.0 points (within noise)"]


def test_without_labels_there_is_no_accuracy_and_without_a_target_no_section(tmp_path: Path) -> None:
    bare = {name: TARGET[name] for name in ("name", "n", "align", "semi", "validators")} | {"domains": {"before": None}}
    words = read(write_report(make_run(tmp_path / "a", target=bare, curves=False), {})).words("target")
    assert "Its labels are not known" in words and "Accuracy" not in words
    guessed = TARGET | {"semi": "fixmatch", "align": "none"}
    run = make_run(tmp_path / "c", target=guessed, curves=False)
    words = read(write_report(run, {})).words("target")
    assert "Without alignment 31.0%" in words and "Source only" not in words, "guesses were learnt there too"
    for align, role in (("adabn", "used for norm statistics"), ("none", "looked at without labels")):
        assert unlabelled_role({"target": bare | {"align": align}, "recipe": {}}) == role
    plain = write_report(make_run(tmp_path / "b", curves=False), {}).read_text(encoding="utf-8")
    assert 'id="target"' not in plain and 'id="objective"' not in plain
