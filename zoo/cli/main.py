"""The `zoo` command: its commands put together, and every way in which it can end."""

from __future__ import annotations

import contextlib
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

# The faults of a typed command: click's own classes, or in later versions of typer those that it brings along.
_TypingFault: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="zoo",
    help="Transfer learning for images: a backbone's name and your images give a fine-tuned, measured classifier.",
    epilog="Start with: zoo adapt resnet_nano --dataset digits",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # our own handling, below, is the only one
)


def _print_version(asked: bool) -> None:
    if asked:
        output.say(f"zoo {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; also ZOO_DEBUG=1. Goes anywhere.")] = False,
) -> None:
    """What comes before the command; both have done their work by the time this is called."""


app.command("list")(list_command.command)
app.command("show")(show.command)
app.command("plan", no_args_is_help=True, cls=options.RecipeCommand)(plan.command)
app.command("adapt", no_args_is_help=True, cls=options.RecipeCommand)(adapt.command)
app.command("eval")(eval_command.command)
app.command("predict")(predict.command)
app.command("push", no_args_is_help=True)(push.command)
app.command("reproduce", no_args_is_help=True)(reproduce.command)
app.command("compare", no_args_is_help=True, cls=options.RecipeCommand)(compare.command)
app.command("stack", no_args_is_help=True)(stack.command)
app.command("soup", no_args_is_help=True)(soup.command)
app.command("rank", no_args_is_help=True, cls=options.RecipeCommand)(rank.command)
app.command("datasets")(datasets.command)
app.add_typer(plugins.app, name="plugins")
app.command("runs")(runs.command)
app.add_typer(cache.app, name="cache")


def main() -> None:
    """Run the command that was typed, and exit with its code."""
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")  # libraries warn programmers there; what people should know is an event
    processes.follow_launcher()
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command line.

    Args:
        args: The words after `zoo`.

    Returns:
        The exit code: 0 done, 1 it failed, 2 wrong usage, 128 plus the signal's number after an interruption.
    """
    before, dashes, after = _split(args)
    as_json = "--json" in before
    debug = "--debug" in before or os.environ.get("ZOO_DEBUG", "") not in ("", "0")
    words = [word for word in before if word != "--debug"] + dashes + after
    with _streams(as_json) as stdout:
        try:
            code = _answer(words, stdout)
            stdout.flush()
            return code
        except BrokenPipeError:  # `zoo list | head`: nobody reads on, which is no fault worth a message
            _discard(stdout)
            return 1
        except BaseException as error:
            code, fault = _explain(error)
            if fault is None:
                return code
            if processes.hand_over(fault, code):
                if debug:
                    traceback.print_exception(error, file=sys.stderr)
                return code
            _report(error, fault, as_json=as_json, debug=debug, stdout=stdout)
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


def _split(args: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The words before `--`, itself, and those after it, which are never options."""
    if "--" not in args:
        return list(args), [], []
    place = list(args).index("--")
    return list(args[:place]), ["--"], list(args[place + 1 :])


@contextlib.contextmanager
def _streams(as_json: bool) -> Iterator[IO[str]]:
    """Give the stream that results go to, and keep everything else away from it.

    Under `--json`, what a library prints goes to stderr. Of several processes only the first prints results.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end a command
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
    """The exit code for an exception, and what to tell the person; None: it has been said."""
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
    """Tell the person about a fault: one message, and a traceback only if asked for."""
    ours = isinstance(error, ZooError) and not isinstance(error, TrainingError)
    if output.rank() > 0 and ours:
        return  # the first process says the same; what can befall one process alone is said by each
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening any more
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
        stopped = isinstance(error, TrainingInterrupted | KeyboardInterrupt | typer.Abort)  # asked for: no error
        # The label's colour is the one escape that may go out: it is ours.
        sys.stderr.write(prefix if stopped else f"{prefix}{label} ")
        output.warn(str(ZooError(**record)))
        sys.stderr.flush()


def _discard(stream: IO[str]) -> None:
    """Point a stream whose reader is gone at nothing, so that the interpreter's last flush is silent."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
