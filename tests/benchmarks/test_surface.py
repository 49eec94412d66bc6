from __future__ import annotations

import pytest

from benchmarks import revisions, surface
from benchmarks.revisions import Tree
from tests.benchmarks import toy

ERRORS = """
class ZooError(Exception): ...
class DataError(ZooError): ...
class Empty(DataError):
    def __init__(self, path):
        super().__init__(f"{path} is empty", fix=FIX)
"""
CODE = '''
"""A docstring that nobody meets."""
FIX = "put something in"
def read(path, deep):
    why = "it is too deep"
    if deep:
        why, fix = f"it has {deep} levels", "use " + ("less" if deep else "more")
    if path:
        raise DataError(f"cannot read {path!r}", why=why, fix=fix)
    print("nothing was read")
    sys.exit(3)
    return Answer(None, exit_code=1 if path else 0)
'''


def of(**sources: str) -> surface.Surface:
    return surface.Code({f"zoo/{name}.py": text for name, text in sources.items()}).surface()


def test_errors_are_read_from_the_code_wherever_it_stands():
    found = of(errors=ERRORS, code=CODE)
    assert list(found["errors"]) == [
        "DataError  what: cannot read {}  why: it has {} levels | it is too deep  fix: use less | use more",
        "Empty  what: {} is empty  fix: put something in",
    ]
    assert list(found["texts"]) == ["nothing was read"]
    assert list(found["exit codes in the code"]) == ["1 if path else 0", "sys.exit(3)"]
    assert of(one=CODE, two=ERRORS) == of(other=ERRORS + CODE) == found


def test_the_difference_is_what_went_what_came_and_what_changed():
    after = CODE.replace("cannot read", "could not read").replace("sys.exit(3)", "sys.exit(4)")
    after = after.replace('print("nothing was read")', 'raise DataError("a wholly different thing")')
    found = surface.difference(of(errors=ERRORS, code=CODE), of(code=after, errors=ERRORS))
    rest = "read {}  why: it has {} levels | it is too deep  fix: use less | use more"
    assert found["errors"] == {
        "removed": [],
        "added": ["DataError  what: a wholly different thing"],
        "changed": [(f"DataError  what: cannot {rest}", f"DataError  what: could not {rest}")],
    }
    assert found["texts"]["removed"] == ["nothing was read"]
    assert found["exit codes in the code"]["changed"] == [("sys.exit(3)", "sys.exit(4)")]
    text = surface.readable(found)
    assert "errors: 0 removed, 1 added, 1 changed\n  + DataError  what: a wholly different thing\n  < DataError" in text
    assert "\n  - nothing was read\n" in text


def test_an_option_that_changed_is_told_by_its_name():
    old = {"options": {"zoo adapt --lr": '{"default": 1}', "zoo adapt --out": "{}"}}
    new = {"options": {"zoo adapt --lr": '{"default": 2}', "zoo adapt --out": "{}"}}
    assert surface.difference(old, new)["options"] == {
        "removed": [], "added": [], "changed": [('zoo adapt --lr: {"default": 1}', 'zoo adapt --lr: {"default": 2}')],
    }  # fmt: skip
    assert surface.difference(old, {"options": {}})["options"]["removed"] == [
        'zoo adapt --lr: {"default": 1}',
        "zoo adapt --out: {}",
    ]


def test_keys_are_paths_with_the_kind_of_what_they_hold():
    document = {"a": [{"b": 1}, {"c": None}], "d": {}, "e": 0.5}
    assert dict(surface._keys(document)) == {".a.[].b": "int", ".a.[].c": "NoneType", ".d": "dict", ".e": "float"}


def test_the_program_is_asked_for_options_and_exit_codes():
    found = surface._asked(Tree("after", "", revisions.ROOT))
    assert '"opts": ["--dataset", "-d"]' in found["options"]["zoo adapt --dataset"]
    assert '"required": true' in found["options"]["zoo show backbone"]
    assert "zoo plugins list --json" in found["options"]
    codes = found["exit codes"]
    assert [codes[f"{kind}('x',)"] for kind in ("DataError", "WrongUsage", "TrainingInterrupted")] == ["1", "2", "130"]


PROGRAM = """
import json, os, pathlib, sys
if sys.argv[1] == "nonsense":
    print(json.dumps({"error": os.path.abspath("nonsense")}, indent=2))
    sys.exit(2)
run = pathlib.Path("runs/one")
run.mkdir(parents=True)
(run / "run.json").write_text('{"schema": 1}')
(run / "metrics.jsonl").write_text('{"loss": 0.5}\\n{"accuracy": 0.5}\\n')
(run / "report.html").write_text("")
print(json.dumps([{"name": "one"}]))
"""


def test_small_runs_give_keys_and_refusals(tmp_path, monkeypatch):
    toy.commit(tmp_path / "project", {"zoo/__init__.py": "", "zoo/__main__.py": PROGRAM})
    tree = Tree("after", "", tmp_path / "project")
    monkeypatch.setattr(surface, "WORKING", ("adapt",))
    monkeypatch.setattr(surface, "REFUSED", ("nonsense",))
    assert surface._ran(tree) == {
        "JSON keys": {
            "zoo adapt: .[].name": "str",
            "runs/one/run.json": "file",
            "runs/one/run.json: .schema": "int",
            "runs/one/metrics.jsonl": "file",
            "runs/one/metrics.jsonl: .loss": "float",
            "runs/one/metrics.jsonl: .accuracy": "float",
            "runs/one/report.html": "file",
        },
        "refusals": {"zoo nonsense": '2 { "error": "FOLDER/nonsense" }'},
    }
    monkeypatch.setattr(surface, "WORKING", ("nonsense",))
    monkeypatch.setattr(surface, "REFUSED", ())
    with pytest.raises(SystemExit, match="zoo nonsense failed after"):
        surface._ran(tree)


def test_both_revisions_are_read_and_the_difference_is_printed(tmp_path, capsys):
    before = toy.commit(tmp_path / "project", {"zoo/errors.py": ERRORS, "zoo/page.html.jinja": "<b>one</b>\n"})
    toy.commit(
        tmp_path / "project", {"zoo/errors.py": None, "zoo/base.py": ERRORS.replace("is empty", "holds nothing")}
    )
    record = surface.measure(toy.asked(surface, tmp_path, "--before", before, "--static"))
    changed = [
        "Empty  what: {} is empty  fix: {}",
        "Empty  what: {} holds nothing  fix: {}",
    ]
    assert [list(pair) for pair in record["difference"]["errors"]["changed"]] == [changed]
    assert capsys.readouterr().err == (
        f"errors: 0 removed, 0 added, 1 changed\n  < {changed[0]}\n  > {changed[1]}\n"
        "exit codes in the code: 0 removed, 0 added, 0 changed\n"
        "templates: 0 removed, 0 added, 0 changed\ntexts: 0 removed, 0 added, 0 changed\n"
    )
