"""`randprune scratch`: an untrained network in, widths searched, trained from scratch, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randprune.cli import options
from randprune.cli.console import messages, print_json
from randprune.cli.flags import SCRATCH, recipe_document, with_flags
from randprune.cli.progress import progress
from randprune.cli.prune import finished
from randprune.cli.recipes import check_named, job_recipe, with_network_defaults
from randprune.cli.scratch_plan import ScratchPlan

if TYPE_CHECKING:
    from randprune.recipe import ScratchRecipe


@with_flags(SCRATCH)
def scratch(
    given: Mapping[str, Any],
    recipe: options.RecipeFile = None,
    settings: options.Settings = None,
    trust_plugins: options.TrustPlugins = False,
    device: options.Device = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Prune from scratch: search widths with shared weights, train the best, compare, report.

    Give the same command again after an interruption: it continues where it stopped.
    """
    from randprune.jobs import run_scratch_recipe

    asked = resolve(given, recipe, settings or (), trust_plugins)
    if dry_run:
        with messages().status("Looking at the network and the images ..."):
            plan = ScratchPlan.of(asked, device)
        if json:
            print_json(plan.to_json())
        else:
            plan.print()
        return
    with progress(quiet) as shown:
        result = run_scratch_recipe(asked, progress=shown, device=device)
        outcome = finished(result, asked)
    outcome.print(json=json)


def resolve(
    given: Mapping[str, Any], file: Path | None, settings: Sequence[str] = (), trusted: bool = False
) -> ScratchRecipe:
    """The recipe that flags, file and settings ask for, with an output folder.

    Raises:
        InvalidInputError: an unknown key, a value that does not fit, no network or no images.
    """
    from randprune.recipe import ScratchRecipe

    document = with_network_defaults(recipe_document(file, given, settings, trusted=trusted))
    return job_recipe(ScratchRecipe, document, file, check_named)
