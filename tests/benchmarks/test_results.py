from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

import pytest

from benchmarks import results

HERE = {"cpu": "one", "cores": 2, "packages": {"torch": "2.9"}}
ROW = {"accuracy": 0.5, "seconds": {"whole": 1.0}}


def asked(tmp_path, *more: str) -> Namespace:
    parser = ArgumentParser()
    results.add_arguments(parser)
    return parser.parse_args(["--results", str(tmp_path / "runs.jsonl"), *more])


def fail() -> dict:
    raise AssertionError("it is finished already")


def test_a_try_with_few_images_has_a_file_of_its_own():
    few = Namespace(results=None, again=False, only_table=False, limit=5)
    assert results.Results("x", HERE, few).path.name == "x-limit-5.jsonl"
    assert results.Results("x", HERE, few, timed=False).path.name == "x.jsonl", "there it is a choice like others"


def test_what_is_finished_is_not_run_again(tmp_path):
    first = results.Results("x", HERE, asked(tmp_path))
    first.get({"seed": 0}, lambda: dict(ROW))
    with pytest.raises(RuntimeError, match="stopped"):
        first.get({"seed": 1}, lambda: (_ for _ in ()).throw(RuntimeError("stopped")))
    again = results.Results("x", HERE, asked(tmp_path))
    again.get({"seed": 0}, fail)
    again.get({"seed": 1}, lambda: ROW | {"accuracy": 0.6})
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(line["key"], line["accuracy"]) for line in lines] == [({"seed": 0}, 0.5), ({"seed": 1}, 0.6)]
    assert lines == again.rows


def test_starting_anew_forgets_what_is_finished(tmp_path):
    results.Results("x", HERE, asked(tmp_path)).get({"seed": 0}, lambda: dict(ROW))
    assert results.Results("x", HERE, asked(tmp_path, "--again")).rows == []


def test_results_of_two_machines_are_not_mixed(tmp_path):
    results.Results("x", HERE, asked(tmp_path)).get({"seed": 0}, lambda: dict(ROW))
    elsewhere = HERE | {"cores": 64}
    with pytest.raises(SystemExit, match=r"from another machine \(one, 2 cores, torch 2.9, this is one, 64 cores"):
        results.Results("x", elsewhere, asked(tmp_path))
    # A table of them can be made anywhere; it names the machine that they are from.
    table = results.Results("x", elsewhere, asked(tmp_path, "--only-table"))
    table.get({"seed": 5}, fail)
    assert table.machine == HERE


def test_results_that_are_not_timed_may_be_of_several_machines(tmp_path, capsys):
    results.Results("x", HERE, asked(tmp_path), timed=False).get({"seed": 0}, lambda: {"target": 0.5})
    assert capsys.readouterr().err == "0: 0 s\n"
    elsewhere = HERE | {"cores": 64}
    both = results.Results("x", elsewhere, asked(tmp_path), timed=False)
    both.get({"seed": 0}, fail)
    both.get({"seed": 1}, lambda: dict(ROW))
    assert both.machines == [HERE, elsewhere]


def test_a_table_of_nothing_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="has no finished run to make a table of"):
        results.Results("x", HERE, asked(tmp_path, "--only-table"))
