"""Python processes that start at once: a parent that has imported what is heavy forks one for each command.

Most of a short command's time goes into importing torch and what comes with it. A process of `Forks` is one of its own
in every other way: its own environment variables, folder, output and exit status; whatever reads the environment when
it is imported (zoo, timm and huggingface_hub among it) is imported in it anew, after the variables are set.

This file also is the parent: any interpreter runs it, with the modules to import as its arguments, and it then reads
jobs from stdin, a JSON line each, and answers each with the child's exit status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# What is heavy and reads nothing of a test's own environment variables.
LIGHT = ("rich.console", "typer", "yaml")
HEAVY = (*LIGHT, "torch", "torchvision", "sklearn.linear_model", "PIL.Image", "jinja2")
TIMEOUT = 900  # seconds that a child may take before it is killed as hung


class Forks:
    """A parent and how to ask it; `modules` are imported by it before the first child is there."""

    def __init__(
        self,
        python: Path | str = sys.executable,
        modules: Sequence[str] = HEAVY,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._answers = tempfile.TemporaryDirectory(prefix="forks-")
        variables = os.environ if environment is None else environment
        self._process = subprocess.Popen(
            [str(python), "-P", __file__, *modules], env={**variables, "OMP_NUM_THREADS": "1"}, text=True,
            cwd=self._answers.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path | str
    ) -> subprocess.CompletedProcess[str]:
        """Run `python words…`, where the words are `-m MODULE …` or `SCRIPT …`, in a folder, without a terminal."""
        out, err = (Path(self._answers.name, name) for name in ("out", "err"))
        job = {"words": list(words), "environment": dict(environment), "folder": str(folder),
               "out": str(out), "err": str(err)}  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the parent of the forks died"
        return subprocess.CompletedProcess(list(words), int(answer), out.read_text(), err.read_text())

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._answers.cleanup()


def serve(modules: Sequence[str]) -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(answers)
            finish(job)
        _, status = os.waitpid(child, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def finish(job: dict[str, Any]) -> NoReturn:
    """Be one command, and end with its exit handlers and its exit status.

    Nothing else is taken down: an interpreter that ends touches, and so copies, all that it shares with its parent.
    """
    code: object = 70
    try:
        become(job)
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def become(job: dict[str, Any]) -> None:
    """Run what the job names, in place of the parent's loop."""
    signal.alarm(TIMEOUT)
    for number, name in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_CREAT | os.O_TRUNC | os.O_WRONLY
        os.dup2(os.open(name, flags), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    importlib.invalidate_caches()
    match job["words"]:
        case ["-m", module, *rest]:
            sys.path.insert(0, os.getcwd())  # as `python -m` does
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *rest]:
            sys.argv = [script, *rest]
            runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
