"""`zoo push`: publish a run on the Hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.base.text import plural, size
from zoo.cli import progress
from zoo.cli.options import argument, option
from zoo.cli.output import Answer, Json, say

_RUN = "A finished run: its folder, or its name under runs/."
_TASK = "Publish this task of a multi-task run as an ordinary model; all tasks in one model if left out."
_OVERWRITE = "Replace another run, or whatever else the repository holds."
_LICENSE = "Publish under this licence, which must be as strict as the weights' own; the weights' own if left out."
_DRY_RUN = "Write the files to a new folder, and push nothing; needs no token."


def command(
    run: Annotated[str, argument("RUN", _RUN)],
    repo: Annotated[str, argument("ORG/NAME", "The repository; created if it does not exist.")],
    task: Annotated[str | None, option("--task", metavar="NAME", help=_TASK)] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE)] = False,
    license_: Annotated[str | None, option("--license", metavar="ID", help=_LICENSE)] = None,
    dry_run: Annotated[str | None, option("--dry-run", metavar="FOLDER", help=_DRY_RUN)] = None,
    as_json: Json = False,
) -> Answer:
    """Publish a run on the Hugging Face Hub, in a form that timm and transformers load.

    All files go in one commit, which is then loaded in a fresh process with plain timm and compared with the run.
    The token is that of `hf auth login`, or HF_TOKEN.

    For example:

        zoo push runs/resnet50-photos me/resnet50-photos
        zoo push resnet50-photos me/resnet50-photos --private --license cc-by-nc-4.0
        zoo push resnet50-photos me/resnet50-photos --dry-run to-look-at/
        zoo push resnet50-pets me/resnet50-pet-kinds --task kind
    """
    with progress.shown("loading torch and timm") as listen:
        from zoo import api

        chosen = {"task": task, "license": license_, "dry_run": dry_run}
        record = api.push(run, repo, private=private, overwrite=overwrite, **chosen, on_event=listen).record()
    return Answer(record, lambda: _show(record), as_json)


def _show(record: dict[str, Any]) -> None:
    dry = record["folder"] is not None
    say(f"{'would go' if dry else 'pushed'} to {record['url']}" + (" (private)" if record["private"] else ""))
    names, sizes = zip(*((file["path"], file["bytes"]) for file in record["files"]), strict=True)
    say(f"files     {', '.join(names)} ({size(sum(sizes))})")
    say(f"licence   {record['license'] or 'not known: the card states none'}")
    if dry:
        say(f"written   {record['folder']}")
        say("nothing was pushed")
        return
    say(f"commit    {record['commit']}")
    if record["replaced"]:
        say(f"replaced  {record['replaced']}")
    proof = record["proof"]
    loaded = f"with {proof['module']} imported" if proof["module"] else "with plain timm"
    say(
        f"verified  loaded in a fresh process {loaded}: preprocessing, labels and logits of "
        f"{plural(proof['images'], 'image')} (largest difference {proof['difference']:.1g})"
    )
    if any(file["path"].startswith("members/") for file in record["files"]):
        say(f"use it    zoo predict hf-hub:{record['repo']} IMAGE")
        say('          timm.create_model("local-dir:FOLDER/members/0", pretrained=True) for each member alone')
        return
    say(f'load it   timm.create_model("hf-hub:{record["repo"]}", pretrained=True)')
    say(f"          zoo predict hf-hub:{record['repo']} IMAGE")
