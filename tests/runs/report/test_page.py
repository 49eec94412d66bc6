from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.runs.report.fixture import make_run, pictures
from tests.runs.report.html_reader import Page, read
from zoo.base.text import DASH
from zoo.runs.report.page import write_report
from zoo.runs.run_folder import Run

NASTY = [
    "<script>alert(1)</script>",
    "a|b",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{$ & co",
    "{{ 7 * 7 }}",
    "日本語",
    "'",
]


def report(run: Run, **options: Any) -> Page:
    return read(write_report(run, pictures(run.record, **options)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    return report(run)


def test_headline_says_what_was_measured_and_on_what(page: Page, run: Run) -> None:
    words, result = page.words("result"), run.record["result"]
    assert f"{100 * result['accuracy']:.1f}" in words
    assert f"{result['n']} images of test" in words
    low, high = result["interval"]
    assert f"95% interval {100 * low:.1f} to {100 * high:.1f}%" in words
    assert "Best epoch chosen on val (cut from train)" in words
    assert "always guessing the commonest class: 10.0%" in words
    assert "Training took 1 min 09 s of 1 min 18 s" in words
    assert "Waiting for images 5.1% of training" in words
    assert "Parameters trained 492 k of 492 k" in words
    assert f"Macro-F1 {result['macro_f1']:.3f}" in words
    head = " ".join(page.text[""].split())
    assert "resnet_nano on flowers" in head and "finished" in head and "not finished" not in head


def test_notes_of_the_data_and_limits_of_the_result_are_shown(page: Page) -> None:
    words = page.words("result")
    assert "1 unreadable image left out." in words
    assert "3 exact duplicates were kept on one side of the split" in words
    assert "biases and norm layers get no weight decay" in words


def test_plan_lists_every_phase_and_group(page: Page) -> None:
    rows = page.cells("plan")
    groups = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert [row[0] for row in rows] == ["Layer group", "probe", *groups, "finetune", *groups]
    assert rows[2] == ["stem", "9,408", DASH, DASH, "no", "frozen"]
    assert rows[7] == ["head", "2,570", "0.003", "0.05", "yes", "no norm layers"]
    assert rows[9] == ["stem", "9,408", "3.13e-5", "0.05", "yes", "updated from the batches"]
    assert "3 epochs · 120 steps · one-cycle" in page.words("plan")


def test_confusion_matrix_and_class_table_agree_with_the_record(page: Page, run: Run) -> None:
    record, rows = run.record, page.cells("classes")
    names, matrix = record["dataset"]["classes"], record["result"]["confusion"]
    written = [[int(cell or 0) for cell in row[1:]] for row in rows[1 : 1 + len(names)]]
    assert written == matrix
    table = [row for row in rows if len(row) == 7]
    assert {row[0] for row in table[1:]} == set(names)
    shares = [float(row[3].removesuffix("%")) for row in table[1:]]
    assert shares == sorted(shares), "the weakest class comes first"
    row = next(row for row in table if row[0] == "iris")
    index = names.index("iris")
    called = sum(line[index] for line in matrix)
    assert row[4] == f"{100 * matrix[index][index] / called:.1f}%"


def test_mistakes_come_with_their_pictures(page: Page, run: Run) -> None:
    mistakes = run.record["result"]["mistakes"]
    first = mistakes[0]
    assert f"predicted {first['predicted']} {100 * first['probability']:.0f}%" in page.words("mistakes")
    assert f"is {first['label']}" in page.words("mistakes")
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(images) == len(mistakes) == 24
    assert all(value.startswith("data:image/jpeg;base64,") for value in images)


def test_a_missing_picture_leaves_a_frame(tmp_path: Path) -> None:
    run = make_run(tmp_path, curves=False)
    words = read(write_report(run, {})).words("mistakes")
    assert words.count("no picture") == 24


def test_curves_show_phases_and_the_kept_epoch(page: Page) -> None:
    words = page.words("training")
    assert words.count("finetune") >= 3 and "kept: " in words and "learning rate" in words
    labels = {value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")}
    assert "Learning rate of each layer group over the steps" in labels
    assert "Reliability diagram: accuracy against confidence" in labels
    assert "Learning-rate range test" not in labels


def test_range_test_is_drawn_when_there_was_one(tmp_path: Path) -> None:
    finder = {"lr": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], "loss": [2.3, 2.2, 1.6, 1.1, 4.0], "chosen": 2.5e-3}
    words = report(make_run(tmp_path, lr_finder=finder)).words("training")
    assert "Learning-rate range test" in words and "chosen: 0.0025" in words


def test_recipe_puts_changed_choices_first_and_has_all(page: Page, run: Run) -> None:
    words, rows = page.words("recipe"), page.cells("recipe")
    assert "epochs 8 augment strong seed 7" in words
    assert {row[0] for row in rows[1:]} == set(run.record["recipe"])
    assert next(row for row in rows if row[0] == "precision")[1:4] == ["auto", "auto", "bf16"]


def test_commands_quote_the_path(tmp_path: Path) -> None:
    run = make_run(tmp_path / "it's here", curves=False)
    words = report(run).words("use")
    assert f"""zoo predict '{str(run.path).replace("'", chr(39) + '"' + chr(39) + '"' + chr(39))}' image.jpg""" in words
    assert f'create_model("local-dir:{run.path}", pretrained=True)' in words


def test_plugin_module_is_imported_before_timm_needs_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, curves=False)
    backbone = {**run.record["backbone"], "module": "adaptzoo_legacy.models", "arch": "alexnet"}
    run.write_record({**run.record, "backbone": backbone})
    assert "import timm import adaptzoo_legacy.models # registers alexnet model = timm" in report(run).words("use")


def test_local_path_of_the_data_is_not_on_the_page(run: Run, page: Page) -> None:
    assert "secret place" not in run.report.read_text()


def test_nothing_is_loaded_from_outside(run: Run, page: Page) -> None:
    source = run.report.read_text()
    assert "http" not in source.replace('http-equiv="Content-Security-Policy"', "")
    assert "@import" not in source
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    loading = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
    assert all(value.startswith(("#", "data:")) for _, name, value in page.attributes if name in loading)
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe-inline'; script" in policy


def test_ids_are_unique(page: Page) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_references_inside_plots_resolve(run: Run, page: Page) -> None:
    ids = {value for _, name, value in page.attributes if name == "id"}
    source = run.report.read_text()
    used = set(re.findall(r"url\(#([^)]+)\)", source)) | set(re.findall(r'href="#([^"]+)"', source))
    assert used and used <= ids


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    record_changes: dict[str, Any] = {"error": "<b>boom</b>"}
    run = make_run(tmp_path, classes=NASTY, name="nasty", **record_changes)
    record = run.record
    record["name"] = record["dataset"]["name"] = record["dataset"]["license"] = NASTY[0]
    record["dataset"]["notes"] = record["plan"]["notes"] = [NASTY[0], NASTY[2]]
    record["dataset"]["bad"] = [{"path": NASTY[2], "error": NASTY[0]}]
    record["backbone"]["name"] = record["backbone"]["weights"]["name"] = NASTY[0]
    record["environment"]["cpu"] = NASTY[0]
    record["recipe"]["augment"] = NASTY[2]
    record["result"]["mistakes"][0]["id"] = NASTY[2]
    record["plan"]["phases"][0]["groups"][0]["name"] = NASTY[0]
    run.write_record(record)
    lines = run.metrics_path.read_text().replace('"probe"', json.dumps("<script>$x^$</script>"))
    run.metrics_path.write_text(lines)
    page = report(run)
    assert page.tags.count("script") == 1, "only the page's own script"
    assert not [value for _, name, value in page.attributes if name.startswith("on")]
    for name in NASTY:
        assert name in page.text["classes"]
    assert "49" not in [cell for row in page.cells("classes") for cell in row]
    assert "<script>$x^$</script>" in page.text["training"], "a phase's name is neither markup nor mathematics"


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_is_not_reported_as_finished(tmp_path: Path, status: str) -> None:
    run = make_run(tmp_path, status=status)
    page = report(run)
    words = page.words("result")
    assert "This run is not finished" in words and status in words
    assert f"zoo adapt --resume {run.path}" in words
    assert "Its accuracy on the validation images 92.4% val (cut from train)" in words
    assert f"not finished: {status}" in page.words("")
    assert "classes" not in page.text and "mistakes" not in page.text and "calibration" not in page.text
    assert "zoo predict" not in page.words("use")
    assert "plan" in page.text and "training" in page.text


def test_a_result_under_another_status_is_not_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.write_record({**run.record, "status": "running"})
    page = report(run)
    assert "95% interval" not in page.words("result") and "classes" not in page.text


def test_a_run_that_stopped_at_once_still_has_a_page(tmp_path: Path) -> None:
    run = Run(tmp_path / "early")
    run.path.mkdir()
    run.write_record({"schema": 1, "status": "failed", "error": "the loss is not finite"})
    words = read(write_report(run, {})).words("result")
    assert "not finished" in words and "the loss is not finite" in words


def test_a_torn_metrics_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="interrupted")
    with run.metrics_path.open("a") as file:
        file.write('{"event":"step","phase":"finetune","ep')
    assert "finetune" in report(run).words("training")


def test_diverged_losses_do_not_break_the_curves(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed")
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    for line in lines[-50:]:
        line.update(loss=float("nan"), val_loss=float("inf"), train_loss=float("nan"))
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "loss (nats)" in report(run).words("training")


def test_two_classes(tmp_path: Path) -> None:
    page = report(make_run(tmp_path, curves=False, classes=["ant", "bee"], per_class=30))
    assert [len(row) for row in page.cells("classes")[:3]] == [3, 3, 3]
    assert "Top-5" not in page.words("result")
    assert "Measured on only 60 images" in page.words("result")


def test_a_thousand_classes_stay_readable_and_small(tmp_path: Path) -> None:
    run = make_run(tmp_path, curves=False, classes=[f"class {i}" for i in range(1000)], per_class=5, skill=0.7)
    page = report(run)
    assert run.report.stat().st_size < 5_000_000
    assert "All 1,000 classes at once" in page.words("classes") and "Most often confused" in page.words("classes")
    assert "Show all 1,000" in page.words("classes")
    table = [row for row in page.cells("classes") if len(row) == 7]
    assert len(table) == 1001
    assert max(len(row) for row in page.cells("classes")) == 7, "no table with a column for every class"


def test_small_pictures_keep_their_pixels(tmp_path: Path) -> None:
    page = report(make_run(tmp_path, curves=False), side=16)
    classes = [value for tag, name, value in page.attributes if (tag, name) == ("img", "class")]
    assert classes == ["pixels"] * 24


def test_the_same_record_gives_the_same_page(run: Run, page: Page) -> None:
    before = run.report.read_bytes()
    report(run)
    assert run.report.read_bytes() == before
