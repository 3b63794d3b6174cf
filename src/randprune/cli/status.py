"""`randprune status`: how far a run is, from another terminal."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from randprune.cli import options
from randprune.cli.console import output, print_json, print_lines, table
from randprune.report.format import number, percent, seconds

if TYPE_CHECKING:
    from randprune.report.states import RunState, Stage


def status(
    out: options.RunFolder,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch",
            metavar="SECONDS",
            min=0.1,
            help="Look again so often, until nothing runs any more.",
            show_default="look once",
        ),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show how far the runs of a folder are: what is done, what is left, whether anybody works.

    Reads the records only; runs are not disturbed.
    """
    from randprune.report.states import states_of

    while True:
        found = states_of(out)
        if json:
            print_json({"runs": [asdict(state) for state in found]})
        else:
            for state in found:
                _show(state)
        if watch is None or not any(state.state == "running" for state in found):
            return
        time.sleep(watch)


def _show(state: RunState) -> None:
    begun = state.started[:19].replace("T", " ")
    several = "" if state.sessions < 2 else f", process {state.sessions}"
    print_lines([f"{state.title or state.kind}: {state.state}, begun {begun} UTC{several}"])
    if state.error:
        print_lines([state.error])
    if state.stages:
        head = ("Work", ">Done", ">Share", ">One takes", ">Left, one by one")
        output().print(table(head, [_row(stage) for stage in state.stages]))


def _row(stage: Stage) -> tuple[str, ...]:
    done = number(stage.done) if stage.total is None else f"{stage.done:,} of {stage.total:,}"
    if stage.failed:
        done += f", {stage.failed:,} failed"
    return (
        stage.name,
        done,
        percent(stage.done / stage.total) if stage.total else "",
        "" if stage.seconds is None else seconds(stage.seconds),
        "" if stage.left is None else seconds(stage.left),
    )
