"""`randprune list` and `presets`: every name that the other commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from randprune.cli import options
from randprune.cli.console import output, print_json, print_lines
from randprune.errors import InvalidInputError

if TYPE_CHECKING:
    from randprune.registry import Registry

KINDS = ("models", "data", "criteria", "strategies", "recoveries", "methods", "studies")


def listing(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help=f"One of {', '.join(KINDS)}, torchvision or timm.",
            show_default="all but torchvision's and timm's networks",
        ),
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the names that other commands take, including those of installed plug-ins."""
    found = {name: names(name) for name in (KINDS if kind is None else (kind,))}
    if json:
        print_json(found)
        return
    for title, entries in found.items():
        if kind is None:
            output().print(f"[bold]{title}[/]")
        for entry in entries:
            output().print(f"{'' if kind else '  '}{entry}", markup=False)


def names(kind: str) -> list[str]:
    """The names of one kind.

    Raises:
        InvalidInputError: there is no such kind.
    """
    if kind in ("models", "torchvision", "timm"):
        from randprune.zoo.models import list_models

        source = "randprune" if kind == "models" else kind
        return [f"{source}:{name}" for name in list_models(source)]
    if kind == "data":
        from randprune.zoo.sources import SOURCES

        return [name if name == "digits" else f"{name}:DIR" for name in SOURCES]
    if kind == "studies":
        from randprune.bench.studies import study_names

        return list(study_names())
    from randprune.bench.methods import methods
    from randprune.criteria import criteria
    from randprune.recovery import recoveries
    from randprune.strategies import strategies

    registries: dict[str, Registry[Any]] = {
        "criteria": criteria,
        "strategies": strategies,
        "recoveries": recoveries,
        "methods": methods,
    }
    if kind not in registries:
        raise InvalidInputError(
            f"randprune list takes {', '.join(KINDS)}, torchvision or timm. Got {kind!r} instead."
        )
    return list(registries[kind])


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
