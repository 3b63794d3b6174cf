"""The command line's entry: sub-commands, version, and what an error looks like."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from randprune.cli.bench import bench
from randprune.cli.card import card
from randprune.cli.check import check
from randprune.cli.console import messages, print_error
from randprune.cli.demo import demo
from randprune.cli.export import export
from randprune.cli.inspect import inspect
from randprune.cli.interrupt import kept_interrupts
from randprune.cli.listing import listing, presets
from randprune.cli.place import place
from randprune.cli.prune import prune, scratch
from randprune.cli.report import report
from randprune.cli.status import status
from randprune.cli.streams import lenient_streams
from randprune.errors import RandpruneError, StorageError

INTERRUPTED = 130
UNEXPECTED = 1
USAGE = 2
_RESUME = " Give the same command again to continue where it stopped."

app = typer.Typer(
    name="randprune",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"randprune {installed_version('randprune')}")
        raise typer.Exit


@app.callback()
def randprune(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Make a trained CNN smaller: random channel pruning under a budget.

    Start with [bold]randprune demo[/], then [bold]randprune inspect MODEL[/] for your network.
    """


app.command()(demo)
app.command()(inspect)
app.command()(prune)
app.command()(presets)
app.command()(scratch)
app.command()(report)
app.command()(status)
app.command()(bench)
app.command()(place)
app.command()(card)
app.command()(export)
app.command("list")(listing)
app.command()(check)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code.

    A job does not end because its output cannot be written: see `randprune.cli.streams`. Where
    standard output fails (a full disk), a job that is done returns `StorageError.exit_code`.

    Args:
        arguments: without the program's name; default: `sys.argv`.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    _silence_libraries()
    with lenient_streams() as out:
        code = _run(argv)
        out.flush()
        if out.reader_gone or out.problem is None:
            # The reader of a pipe that has gone (`randprune ... | head`) wants to know no more.
            return code
        if code == 0:
            code = StorageError.exit_code
        problem = out.problem.strerror or str(out.problem)
        print_error(f"Standard output could not be written: {problem}. Files are not affected.")
    return code


def _run(argv: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    from randprune.memory import memory_errors

    try:
        with kept_interrupts(), memory_errors():
            result = app(args=list(argv), prog_name="randprune", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        code = _report(error, argv)
    if code == INTERRUPTED:
        resumable = argv[:1] in (["prune"], ["scratch"], ["demo"], ["bench"], ["place"], ["card"])
        messages().print(f"Interrupted.{_RESUME if resumable else ''}", soft_wrap=True)
    return code


def _report(error: Exception, argv: Sequence[str]) -> int:
    """Print one line (before it, with `--debug`, the traceback); the exit code."""
    usage = getattr(error, "format_message", None)
    if usage is not None:  # the parser's errors: an unknown option, a missing argument, ...
        print_error(f"{usage()} {_see_help(argv)}")
        return USAGE
    if "--debug" in argv:
        traceback.print_exception(error)
    if isinstance(error, RandpruneError):
        print_error(str(error))
        return error.exit_code
    print_error(
        f"{type(error).__name__}: {error} (unexpected; this may be a bug of randprune, and "
        "--debug shows where it happened)"
    )
    return UNEXPECTED


def _silence_libraries() -> None:
    """No warnings of libraries between our lines: what matters is an error or in the report."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("torch", "torch.export", "torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _see_help(argv: Sequence[str]) -> str:
    commands = {
        info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands
    }
    command = next((word for word in argv if not word.startswith("-")), "")
    return f"See: randprune {command} --help" if command in commands else "See: randprune --help"
