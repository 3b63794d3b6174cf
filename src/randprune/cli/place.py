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
        found: list[Placed] = []
        rows: list[dict[str, Any]] = []
        for placed in place_all(recipe, chosen, folder, progress=shown, device=asked.device):
            found.append(placed)
            rows.append(_row(placed, recipe.search.rank_by))
            path = write_file(folder / TABLE, _csv(rows).encode())
    if asked.json:
        print_json({"configurations": rows, "table": str(path)})
        return
    cost = ">MACs" if recipe.budget.metric == "macs" else ">Cost"
    metric = found[0].pool.metric.name.capitalize()
    head = ("Configuration", cost, ">Beats", ">95 %", f">{metric}", ">Random: median", ">best")
    lines = [
        (
            placed.configuration.name,
            percent(placed.pool.ratio, 1),
            f"{number(placed.beaten)} of {number(len(placed.pool.values))}",
            "{:.1f} - {:.1f} %".format(*(100 * end for end in placed.interval)),
            *map(placed.pool.shown, (row["score"], row["random_median"], row["random_best"])),
        )
        for placed, row in zip(found, rows, strict=True)
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
    """One configuration as plain data; scores are of the task's metric, higher = better."""
    import numpy as np

    low, high = placed.interval
    configuration, pool = placed.configuration, placed.pool
    return {
        "name": configuration.name,
        "chosen": configuration.chosen,
        "source": configuration.source,
        "published_macs": configuration.macs,
        "published_top1": configuration.top1,
        "ratio": pool.ratio,
        "beaten": placed.beaten,
        "random": len(pool.values),
        "share": placed.share,
        "share_low": low,
        "share_high": high,
        "score": placed.worth.score,
        "random_median": float(np.median(pool.scores)),
        "random_best": float(pool.scores.max()),
        "uniform": None if pool.uniform is None else pool.uniform.score,
        f"{rank_by}": placed.worth.value,
        f"{rank_by}_random_median": float(np.median(pool.values)),
        f"{rank_by}_random_best": float(pool.values.max()),
        f"{rank_by}_uniform": None if pool.uniform is None else pool.uniform.value,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
