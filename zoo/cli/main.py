"""Entry point of the `zoo` command: the commands, their errors and exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import IO, Annotated, Any

import typer

from zoo.cli import (
    adapt,
    cache,
    compare,
    datasets,
    options,
    output,
    plan,
    plugins,
    predict,
    processes,
    push,
    rank,
    reproduce,
    runs,
    show,
    soup,
    stack,
)
from zoo.cli import eval as eval_command
from zoo.cli import list as list_command
from zoo.errors import TrainingError, TrainingInterrupted, ZooError
from zoo.version import __version__

# The base of usage errors: click's, or in later versions typer's own.
_TypingFault: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="zoo",
    help="Transfer learning for images: a backbone's name and your images give a fine-tuned, measured classifier.",
    epilog="Start with: zoo adapt resnet_nano --dataset digits",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # our own handling, below, is the only one
)


def _print_version(requested: bool) -> None:
    if requested:
        output.say(f"zoo {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; also ZOO_DEBUG=1. Goes anywhere.")] = False,
) -> None:
    """Options before the command; both have taken effect when this is called."""


of_recipe = functools.partial(app.command, no_args_is_help=True, cls=options.RecipeCommand)
app.command("list")(list_command.command)
app.command("show")(show.command)
of_recipe("plan")(plan.command)
of_recipe("adapt")(adapt.command)
app.command("eval")(eval_command.command)
app.command("predict")(predict.command)
app.command("push", no_args_is_help=True)(push.command)
app.command("reproduce", no_args_is_help=True)(reproduce.command)
of_recipe("compare")(compare.command)
app.command("stack", no_args_is_help=True)(stack.command)
app.command("soup", no_args_is_help=True)(soup.command)
of_recipe("rank")(rank.command)
app.command("datasets")(datasets.command)
app.add_typer(plugins.app, name="plugins")
app.command("runs")(runs.command)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the command that was typed, and exit with its code."""
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")  # libraries warn programmers; what users should know is an event
    processes.follow_launcher()
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run the words after `zoo`.

    Returns the exit code: 0 done, 1 failed, 2 wrong usage, 128 plus the signal's number after an interruption.
    """
    place = args.index("--") if "--" in args else len(args)  # the words after it are never options
    before, after = args[:place], args[place:]
    as_json = "--json" in before
    debug = "--debug" in before or os.environ.get("ZOO_DEBUG", "") not in ("", "0")
    words = [*(word for word in before if word != "--debug"), *after]
    with _streams(as_json) as stdout:
        try:
            code = _answer(words, stdout)
            stdout.flush()
            return code
        except BrokenPipeError:  # `zoo list | head`: the reader is gone, which needs no message
            _discard(stdout)
            return 1
        except BaseException as error:
            code, fault = _explain(error)
            if fault is not None and not processes.hand_over(fault, code):
                _report(error, fault, as_json=as_json, debug=debug, stdout=stdout)
            elif fault is not None and debug:
                traceback.print_exception(error, file=sys.stderr)
            return code


def _answer(words: list[str], stdout: IO[str]) -> int:
    answer = app(words, prog_name="zoo", standalone_mode=False)
    if answer == 128 + signal.SIGINT:  # how typer hands on a Ctrl-C
        raise KeyboardInterrupt
    if not isinstance(answer, output.Answer):  # --help and --version end so, with their exit code or nothing
        return int(answer or 0)
    if output.rank() == 0:
        if answer.as_json:
            output.write_json(answer.document, stdout)
        else:
            answer.show()
    return answer.exit_code


@contextlib.contextmanager
def _streams(as_json: bool) -> Iterator[IO[str]]:
    """Yield the stream for results, and keep everything else away from it.

    With `--json`, the output of libraries goes to stderr. Of several processes only the first prints results.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal's encoding lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    with contextlib.ExitStack() as stack:
        real = sys.stdout
        if output.rank() > 0:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        elif as_json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield real


def _explain(error: BaseException) -> tuple[int, ZooError | None]:
    """The exit code of an exception, and the error to show; None: it has been shown."""
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else 1 if error.code else 0), None
    if isinstance(error, TrainingInterrupted):
        return 128 + error.signal_number, error
    if isinstance(error, output.WrongUsage):
        return 2, error
    if isinstance(error, ZooError):
        return 1, error
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return 128 + signal.SIGINT, ZooError("interrupted")
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
        return 2, None
    if isinstance(error, _TypingFault):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "zoo"
        what = re.sub(r"\bValue error, ", "", " ".join(error.format_message().split())).removesuffix(".")
        return 2, output.WrongUsage(what, fix=f"see: {command} --help")
    if isinstance(error, MemoryError):
        return 1, ZooError("there is not enough memory", fix="close other programs, or use a smaller --batch-size")
    return 1, ZooError(
        f"this is a bug in zoo: {type(error).__name__}: {error}",
        fix="run the same command with --debug for the traceback, and report it with that",
    )


def _report(error: BaseException, fault: ZooError, *, as_json: bool, debug: bool, stdout: IO[str]) -> None:
    """Show an error: one message, and a traceback only with --debug."""
    ours = isinstance(error, ZooError) and not isinstance(error, TrainingError)
    if output.rank() > 0 and ours:
        return  # the first process shows it; errors that one process can have alone are shown by each
    with contextlib.suppress(OSError, ValueError):  # the reader may be gone
        if debug:
            output.warn(output.without_token("".join(traceback.format_exception(error)).rstrip("\n")))
        record = {part: output.without_token(text) for part, text in fault.record().items()}
        if as_json and output.rank() == 0:
            output.write_json({"error": record}, stdout)
            stdout.flush()
            return
        prefix = f"[process {output.rank()}] " if output.rank() > 0 else ""
        label = "error:"
        if output.on_terminal(sys.stderr) and not os.environ.get("NO_COLOR"):
            label = f"\x1b[1;31m{label}\x1b[0m"
        stopped = isinstance(error, TrainingInterrupted | KeyboardInterrupt | typer.Abort)  # requested: no error
        # The label's colour is the only escape sequence that may go out: it is ours.
        sys.stderr.write(prefix if stopped else f"{prefix}{label} ")
        output.warn(str(ZooError(**record)))
        sys.stderr.flush()


def _discard(stream: IO[str]) -> None:
    """Point a stream without a reader at os.devnull, so that the interpreter's last flush is silent."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
