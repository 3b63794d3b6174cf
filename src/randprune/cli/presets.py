"""`randprune presets`: the named settings of pruning jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from randprune.cli import options
from randprune.cli.console import output, print_json, print_lines


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this preset as a recipe.")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the presets of [bold]randprune prune --preset NAME[/], or show one."""
    import tomllib

    from randprune.recipe.presets import preset_meaning, preset_names, preset_text

    if name is not None:
        text = preset_text(name)
        if json:
            print_json({"name": name, "recipe": tomllib.loads(text)})
        else:
            output().print(text, markup=False, soft_wrap=True, end="")
        return
    meanings = {found: preset_meaning(found) for found in preset_names()}
    if json:
        print_json(meanings)
        return
    for found, meaning in meanings.items():
        print_lines([meaning], head=f"{found:<10}")
