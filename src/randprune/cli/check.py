"""`randprune check`: whether a file is an exact cut of a network that one has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json, table
from randprune.errors import VerificationError

_SHOWN = 20


def check(
    file: options.PrunedFile,
    dense: Annotated[
        Path,
        typer.Option(
            "--dense",
            metavar="WEIGHTS",
            help="The dense network's weights: .safetensors, or .pt/.pth/.bin with tensors only.",
            show_default=False,
        ),
    ],
    model: options.Architecture = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Prove that a file is an exact cut of a network, and list the values that differ.

    The exit code is 0 where every value is the dense network's, or differs only where a repair
    without training writes; 5 where the cut is not exact, or other values were changed.
    """
    from randprune.artifact import check as check_file

    with messages().status(f"Checking {file} ..."):
        found = check_file(file, dense, model)
    if json:
        print_json(_document(found))
    else:
        _print(file, found)
    if found.verdict == "changed":
        raise typer.Exit(VerificationError.exit_code)


def _document(found: Any) -> dict[str, Any]:
    document = asdict(found)
    for difference in document["differences"]:
        if difference["relative"] == float("inf"):  # JSON has no infinity
            difference["relative"] = None
    return document


def _print(file: Path, found: Any) -> None:
    kept, dense = found.channels
    output().print(
        f"{file} is an exact cut of the dense network: {kept} of {dense} channels, outputs within "
        f"{found.error:.0e} of the masked network's.",
        soft_wrap=True,
        markup=False,
    )
    differing = len(found.differences)
    verdicts = {
        "exact": f"All {found.tensors} tensors hold the dense network's values.",
        "repaired": f"{differing} of {found.tensors} tensors hold other values, all of them where "
        "a repair without training writes.",
        "changed": f"{differing} of {found.tensors} tensors hold other values, also where no "
        "repair without training writes: the network was trained, or changed by hand.",
    }
    output().print(verdicts[found.verdict], soft_wrap=True)
    if found.dtypes:
        output().print(f"{len(found.dtypes)} tensors are stored in another dtype.")
    if not found.same_space:
        output().print(
            "Its channel groups are not those that tracing finds here: other layers were frozen, "
            "or another version traced it.",
            soft_wrap=True,
        )
    if differing:
        rows = [
            (d.tensor, f"{d.relative:.2e}", f"{d.largest:.2e}", "repair" if d.repair else "other")
            for d in found.differences[:_SHOWN]
        ]
        output().print(table(("tensor", ">relative", ">largest", "place"), rows))
    if differing > _SHOWN:
        output().print(f"... and {differing - _SHOWN} more (--json lists all).")
