"""`randprune card`: what random sub-networks of a network are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randprune.cli.console import print_json, print_lines
from randprune.cli.flags import CARD, Asked, with_flags
from randprune.cli.progress import progress
from randprune.cli.recipes import job_recipe
from randprune.report.format import number, percent

if TYPE_CHECKING:
    from randprune.bench.cards import Best, Card

PAGE, DATA = "card.md", "card.json"


@with_flags(CARD, without=("track", "dry_run"))
def card(asked: Asked) -> None:
    """Make a card of a network: what random sub-networks of it are worth, by budget.

    Random configurations of every budget are cut, repaired without training and judged on the
    search images. Give the same command again after an interruption: it continues where it stopped.
    """
    from randprune.atomic import write_file
    from randprune.bench.cards import make_card
    from randprune.recipe import PruneRecipe

    recipe = job_recipe(PruneRecipe, asked)
    folder = Path(recipe.output.folder)
    with progress(asked.quiet) as shown:
        made = make_card(recipe, folder, progress=shown, device=asked.device)
    page = write_file(folder / PAGE, page_of(made).encode())
    document = document_of(made)
    data = write_file(folder / DATA, (json.dumps(document, indent=1) + "\n").encode())
    if asked.json:
        print_json({**document, "page": str(page), "data": str(data)})
        return
    print_lines([*page_of(made).splitlines(), "", f"Card: {page}"])


def page_of(made: Card) -> str:
    """The card as Markdown."""
    recipe, metric = made.recipe, made.metric
    network = recipe.network.spec.rpartition(":")[2]

    def shown(score: float | None) -> str:
        return "-" if score is None else metric.shown(metric.score(score))

    def best(of: Best) -> str:
        return f"{shown(of.mean)} ({shown(of.low)} to {shown(of.high)})"

    counts = [of.n for of in made.levels[0].best]
    unit = "MACs" if recipe.budget.metric == "macs" else recipe.budget.metric
    head = [f"{unit} kept", "drawn", *("one" if n == 1 else f"best of {n}" for n in counts)]
    rows = [
        [
            percent(level.ratio, 1),
            number(len(level.pool.scores)),
            *map(best, level.best),
            shown(None if level.pool.uniform is None else level.pool.uniform.score),
        ]
        for level in made.levels
    ]
    lines = [
        f"# Random sub-networks of {network}",
        "",
        f"{metric.name.capitalize()} on {number(made.images)} search images, not on test images "
        "(what a network was trained on reads high); "
        f"the dense network: {shown(made.dense)}. Channels ranked by `{recipe.criterion}`, "
        f"repaired by `{recipe.recovery}`, nothing trained. Expected, and in brackets where it "
        "will lie with 90 % probability for new draws, whatever their distribution; -: too few "
        "were drawn to say.",
        "",
        "| " + " | ".join([*head, "uniform widths"]) + " |",
        "|" + "---|" * (len(head) + 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        "A search that is worth its cost ends above the best of as many random ones as it "
        "evaluates, repaired alike, on the same images.",
    ]
    return "\n".join(lines) + "\n"


def document_of(made: Card) -> dict[str, Any]:
    """The card as plain data; scores are of the task's metric, higher = better."""
    from randprune import __version__

    recipe = made.recipe
    return {
        "version": __version__,
        "network": recipe.network.spec,
        "data": recipe.data.spec if recipe.data else "",
        "metric": made.metric.name,
        "images": made.images,
        "criterion": recipe.criterion,
        "recovery": recipe.recovery,
        "seed": recipe.seed,
        "dense": made.dense,
        "levels": [
            {
                "ratio": level.ratio,
                "cost": recipe.budget.metric,
                "drawn": len(level.pool.scores),
                "uniform": None if level.pool.uniform is None else level.pool.uniform.score,
                "best_of": [
                    {"n": of.n, "mean": of.mean, "low": of.low, "high": of.high}
                    for of in level.best
                ],
                "scores": level.pool.scores.tolist(),
            }
            for level in made.levels
        ],
    }
