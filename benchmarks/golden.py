"""Whether a change left everything as it was, to the bit: the same commands at two revisions, on this machine.

Small runs of every kind are done at the older revision and then at the newer one, each with a home and caches of its
own. Every tensor, every line of metrics and all JSON are compared, except for what `golden_compare.IGNORED` lists. With
`--kill`, each kind is also started at the older revision, killed in the middle, and resumed by the newer one; with
`--read`, the newer one also evaluates the older one's runs and predicts with them. Finished work stays in its folder;
it is done again only if the revision, the case or the machine changes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import golden_images
from benchmarks.golden_cases import Case, cases
from benchmarks.golden_compare import (
    IGNORED,
    Difference,
    Files,
    differences,
    read,
    read_checkpoints,
    worded,
    write_checkpoints,
)
from benchmarks.golden_runs import ROOT, Ended, Failed, Folder, Kill, Tree, check, run, tree
from benchmarks.machine import describe_machine, named

SIGNALS = (signal.SIGKILL, signal.SIGTERM)  # they take turns
DONE = "done.json"  # in a folder: what was done there, and how it ended
CHECKPOINTS = "checkpoints.json"  # beside it: what was in them
SHOWN = 3  # differences of a kind of file that are printed
LISTED = 1000  # differences of a case that the JSON has


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [*cases(Path())]
    parser.add_argument("--before", required=True, metavar="REVISION", help="the older one, or a checkout's folder")
    parser.add_argument("--after", default=str(ROOT), metavar="REVISION",
                        help="the newer one (default: this checkout as it is)")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="CASE",
                        help=f"these cases: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--kill", action="store_true", help="also resume runs that were killed at the older revision")
    parser.add_argument("--read", action="store_true", help="also use runs that were finished at the older revision")
    parser.add_argument("--work", type=Path, default=Path("runs/golden"),
                        help="folder of images and runs; goes on there (default: runs/golden)")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="do what is finished there once more")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    work = arguments.work.resolve()
    if arguments.again:
        for name in arguments.only:
            for folder in work.glob(f"*/{name}"):
                shutil.rmtree(folder)
    known = cases(golden_images.make(work))
    before, after = (tree(asked, work / "trees") for asked in (arguments.before, arguments.after))
    for role, each in (("before", before), ("after", after)):
        folder = Folder(work / "check" / role)
        folder.empty()
        check(each, folder)
    turns = [name for name, case in known.items() if case.killed]
    rows = {}
    for name in arguments.only:
        number = SIGNALS[turns.index(name) % len(SIGNALS)] if arguments.kill and name in turns else None
        rows[name] = _compared(work, name, known[name], before, after, number, read_old=arguments.read)
        _tell(name, rows[name])
    unlike = [name for name, row in rows.items() if row["different"] or row["failed"]]
    sys.stderr.write(f"{len(rows) - len(unlike)} of {len(rows)} cases are the same to the bit"
                     f"{'; not ' + ', '.join(unlike) if unlike else ''}\n")  # fmt: skip
    return {
        "before": {"name": before.name, "id": before.id},
        "after": {"name": after.name, "id": after.id},
        "ignored": [{"where": where, "reason": reason} for where, reason in IGNORED],
        "cases": rows,
        "failed": bool(unlike),
    }


def _compared(
    work: Path,
    name: str,
    case: Case,
    before: Tree,
    after: Tree,
    number: signal.Signals | None,
    *,
    read_old: bool,
) -> dict[str, Any]:
    """Do a case at both revisions, and say where they differ.

    Args:
        work: The folder of the work.
        name: The case's.
        case: The case.
        before: The older revision.
        after: The newer one.
        number: The signal that a run of the older revision gets before the newer one goes on with it; None: there is
            no such run.
    """
    row: dict[str, Any] = {"seconds": {}, "values": 0, "killed": None, "failed": None}
    found: list[Difference] = []
    try:
        files, ended = {}, {}
        for role, each in (("before", before), ("after", after)):
            folder = Folder(work / role / name)
            ended[role] = _whole(folder, case, each)
            row["seconds"][role] = round(sum(one.seconds for one in ended[role].values()), 1)
            files[role] = _left(folder, before, after)
        row["values"] = sum(map(len, files["before"].values()))
        found += differences(files["before"], files["after"])
        if number is not None and case.killed is not None:
            whole, folder = ended["before"][case.killed.name], Folder(work / "killed" / name)
            kill = Kill(number, max(1, whole.steps // 2 - 1))  # not where one of two equal halves ends
            seconds = sum(one.seconds for one in _stopped(folder, case, before, after, kill).values())
            row["seconds"]["killed"] = round(seconds, 1)
            row["killed"] = f"zoo {case.killed.words[0]} by {number.name} at step {kill.steps} of {whole.steps}"
            mine, theirs = _in_common(case, files["before"], _left(folder, before, after))
            found += [{**one, "where": f"killed and resumed, {one['where']}"} for one in differences(mine, theirs)]
        if read_old and any(command.reads for command in case.commands):
            folder = Folder(work / "read" / name)
            seconds = sum(one.seconds for one in _used(folder, Folder(work / "before" / name), case, after).values())
            row["seconds"]["read"] = round(seconds, 1)
            outputs = {Folder.output(command.name) for command in case.commands if command.reads}
            mine, theirs = ({file: side[file] for file in outputs} for side in (files["before"], _left(folder)))
            found += [{**one, "where": f"by the newer, {one['where']}"} for one in differences(mine, theirs)]
    except Failed as error:
        row["failed"] = str(error)
    words = [one for one in found if worded(one["where"])]
    found = [one for one in found if not worded(one["where"])]
    return row | {"different": len(found), "differences": found[:LISTED], "reworded": words[:LISTED]}


def _whole(folder: Folder, case: Case, at: Tree) -> dict[str, Ended]:
    """All commands of a case at one revision."""
    asked = {"tree": at.id, "commands": [asdict(command) for command in case.commands]}
    return _once(folder, asked, lambda: {command.name: run(command, at, folder) for command in case.commands})


def _stopped(folder: Folder, case: Case, before: Tree, after: Tree, kill: Kill) -> dict[str, Ended]:
    """The commands of a case up to the one that is killed, at the older revision; the newer one goes on with that."""

    def work() -> dict[str, Ended]:
        *earlier, last = case.until_killed
        ended = {command.name: run(command, before, folder) for command in earlier}
        ended[f"{last.name}, killed"] = run(last, before, folder, kill)
        return ended | {last.name: run(last, after, folder, resume=True)}

    asked = {"trees": [before.id, after.id], "commands": [asdict(command) for command in case.until_killed],
             "kill": [kill.signal.name, kill.steps]}  # fmt: skip
    return _once(folder, asked, work)


def _used(folder: Folder, old: Folder, case: Case, after: Tree) -> dict[str, Ended]:
    """The commands of a case that use a run, by the newer revision on a copy of what the older one has made."""

    def work() -> dict[str, Ended]:
        shutil.copytree(old.place, folder.place, dirs_exist_ok=True)
        return {command.name: run(command, after, folder) for command in case.commands if command.reads}

    made = json.loads((old.path / DONE).read_text(encoding="utf-8"))
    return _once(folder, {"tree": after.id, "made": made}, work)


def _once(folder: Folder, asked: Mapping[str, Any], work: Callable[[], dict[str, Ended]]) -> dict[str, Ended]:
    """Do work in a folder, unless it is done there already: the same, on this machine."""
    machine = describe_machine()
    asked = json.loads(json.dumps({**asked, "machine": named(machine), "packages": machine["packages"]}))
    done = folder.path / DONE
    if done.is_file() and (record := json.loads(done.read_text(encoding="utf-8")))["asked"] == asked:
        return {name: Ended(**one) for name, one in record["ended"].items()}
    folder.empty()
    ended = work()
    write_checkpoints(folder.kept, folder.path / CHECKPOINTS)
    for gone in (folder.kept, folder.home):
        shutil.rmtree(gone)
    record = {"asked": asked, "ended": {name: asdict(one) for name, one in ended.items()}}
    done.write_text(json.dumps(record, indent=2), encoding="utf-8")
    return ended


def _left(folder: Folder, *trees: Tree) -> Files:
    """What commands have left in a folder, and the checkpoints that are gone."""
    roots = {str(folder.place): "<place>", str(folder.home): "<home>", **{str(each.path): "<zoo>" for each in trees}}
    return read(folder.place, roots) | read_checkpoints(folder.path / CHECKPOINTS)


def _in_common(case: Case, whole: Files, stopped: Files) -> tuple[Files, Files]:
    """What a killed run and one that was not should both have: all that was made until then, and the same checkpoints.

    A process that goes on need not save every state again that was there already.
    """
    outputs = {Folder.output(command.name) for command in case.until_killed}
    made = tuple(f"{command.makes}/" for command in case.until_killed if command.makes)

    def kept(files: Files, other: Files) -> Files:
        here = {name: values for name, values in files.items() if name in outputs or name.startswith(made)}
        return {name: values for name, values in here.items() if name in other or "checkpoints" not in name}

    return kept(whole, stopped), kept(stopped, whole)


def _tell(name: str, row: Mapping[str, Any]) -> None:
    seconds = ", ".join(f"{role} {time:.0f} s" for role, time in row["seconds"].items())
    killed = f"; killed: {row['killed']}" if row["killed"] else ""
    said = f", {len(row['reworded'])} notes are worded differently" if row["reworded"] else ""
    sys.stderr.write(f"{name}: {row['values']} values, {row['different']} differ{said} ({seconds}){killed}\n")
    kinds: dict[str, list[Difference]] = {}
    for one in [*row["differences"], *row["reworded"]]:  # a checkpoint after each step is one kind of file
        kinds.setdefault(re.sub(r"\d+", "N", one["where"].partition(": ")[0]), []).append(one)
    for file, found in kinds.items():
        for one in found[:SHOWN]:
            sys.stderr.write(f"  {one['where']}: {one['before']} -> {one['after']}\n")
        if len(found) > SHOWN:
            sys.stderr.write(f"  and {len(found) - SHOWN} more in {file}\n")
    if row["failed"]:
        sys.stderr.write(f"  {row['failed']}\n")
