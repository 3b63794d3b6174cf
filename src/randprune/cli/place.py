"""`randprune place`: does a configuration beat random ones of the same cost?"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from randprune.cli.console import output, print_json, print_lines, table
from randprune.cli.flags import PLACE, Asked, with_flags
from randprune.cli.progress import progress
from randprune.cli.recipes import job_recipe
from randprune.errors import InvalidInputError
from randprune.report.format import number, percent

if TYPE_CHECKING:
    from randprune.bench.configurations import Configuration
    from randprune.bench.placing import Placed

TABLE = "placed.csv"


@with_flags(PLACE, without=("track", "dry_run"))
def place(
    asked: Asked,
    configurations: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            metavar="NAME|FILE",
            help="A published one, or a .toml file of your own; can be repeated. "
            "[dim]\\[default: all published ones of this network][/]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Place configurations (channels of each layer) among random ones of the same cost.

    All are cut from the same trained network, with the same criterion and repair, and judged on the
    same images; nothing is trained. Give the same command again after an interruption: it continues
    where it stopped.
    """
    from randprune.atomic import write_file
    from randprune.bench.placing import place as place_all
    from randprune.recipe import PruneRecipe

    recipe = job_recipe(PruneRecipe, asked)
    spec = recipe.model.spec if recipe.model else ""
    chosen = _chosen(configurations or [], spec.rpartition(":")[2])
    folder = Path(recipe.output.folder)
    with progress(asked.quiet) as shown:
        found = list(place_all(recipe, chosen, folder, progress=shown, device=asked.device))
    rows = [_row(placed, recipe.search.rank_by) for placed in found]
    path = write_file(folder / TABLE, _csv(rows).encode())
    if asked.json:
        print_json({"configurations": rows, "table": str(path)})
        return
    cost = ">MACs" if recipe.budget.metric == "macs" else ">Cost"
    head = ("Configuration", cost, ">Beats", ">95 %", ">Accuracy", ">Random: median", ">best")
    lines = [
        (
            row["name"],
            percent(row["ratio"], 1),
            f"{number(row['beaten'])} of {number(row['random'])}",
            f"{100 * row['share_low']:.1f} - {percent(row['share_high'], 1)}",
            percent(row["accuracy"], 2),
            percent(row["random_accuracy_median"], 2),
            percent(row["random_accuracy_best"], 2),
        )
        for row in rows
    ]
    output().print(table(head, lines))
    print_lines(
        [
            "",
            f"Beats: random configurations of the same cost that are worth less by "
            f"{recipe.search.rank_by}, on search images, before any training.",
            f"Table: {path}",
        ]
    )


def _chosen(names: Sequence[str], model: str) -> tuple[Configuration, ...]:
    """What was asked for.

    Raises:
        InvalidInputError: there is no such configuration, or none of this network.
    """
    from randprune.bench.configurations import configurations_in, published_configurations

    known = published_configurations(model)
    if not names:
        if not known:
            every = sorted({c.model for c in published_configurations()})
            raise InvalidInputError(
                f"No configuration of {model!r} is listed (there are some of {', '.join(every)}). "
                "Give a file of your own: --configuration FILE.toml."
            )
        return known
    found: list[Configuration] = []
    for name in names:
        if name.endswith(".toml"):
            found += configurations_in(Path(name))
            continue
        same = [c for c in known if c.name.lower().startswith(name.lower())]
        if not same:
            there = ", ".join(repr(c.name) for c in known) or "none"
            raise InvalidInputError(
                f"No configuration of {model!r} is called {name!r}. There are: {there}."
            )
        found += same
    return tuple(found)


def _row(placed: Placed, rank_by: str) -> dict[str, Any]:
    """One configuration as plain data."""
    import numpy as np

    low, high = placed.interval
    configuration = placed.configuration
    return {
        "name": configuration.name,
        "chosen": configuration.chosen,
        "source": configuration.source,
        "published_macs": configuration.macs,
        "published_top1": configuration.top1,
        "ratio": placed.ratio,
        "ranked_by": rank_by,
        "value": placed.value,
        "beaten": placed.beaten,
        "random": len(placed.random),
        "share": placed.share,
        "share_low": low,
        "share_high": high,
        "random_median": float(np.median(placed.random)),
        "random_best": float(placed.random.max()),
        "uniform": placed.uniform,
        "accuracy": placed.accuracy,
        "random_accuracy_median": float(np.median(placed.random_accuracy)),
        "random_accuracy_best": float(placed.random_accuracy.max()),
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
