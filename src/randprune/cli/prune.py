"""`randprune prune`: a trained network in, a smaller verified one out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randprune.cli import options
from randprune.cli.console import messages, output, print_json
from randprune.cli.flags import PRUNE, recipe_document, with_flags
from randprune.cli.plan import JobPlan
from randprune.cli.progress import progress
from randprune.cli.recipes import check_named, job_recipe, with_network_defaults
from randprune.cli.report import print_report
from randprune.report.format import percent

if TYPE_CHECKING:
    from randprune.jobs.progress import Progress
    from randprune.jobs.result import JobRecipes, PruneResult
    from randprune.recipe import PruneRecipe
    from randprune.report import Report
    from randprune.store import NetworkRow

RECIPE_FILE = "recipe.toml"


@with_flags(PRUNE)
def prune(
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
    """Prune a trained network: search widths, cut, repair, verify, fine-tune, save, report.

    Give the same command again after an interruption: it continues where it stopped.
    """
    asked = resolve(given, recipe, settings or (), trust_plugins)
    if dry_run:
        with messages().status("Looking at the network and the images ..."):
            plan = JobPlan.of(asked)
        if json:
            print_json(plan.to_json())
        else:
            plan.print()
        return
    with progress(quiet) as shown:
        outcome = run(asked, shown, device)
    outcome.print(json=json)


def resolve(
    given: Mapping[str, Any], file: Path | None, settings: Sequence[str] = (), trusted: bool = False
) -> PruneRecipe:
    """The recipe that flags, file and settings ask for, with an output folder.

    Raises:
        InvalidInputError: an unknown key, a value that does not fit, no network or no images.
    """
    from randprune.recipe import PruneRecipe

    document = with_network_defaults(recipe_document(file, given, settings, trusted=trusted))
    return job_recipe(PruneRecipe, document, file, check_named)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished job: its result, its report, and the page of that."""

    result: PruneResult
    report: Report
    page: Path

    def print(self, *, json: bool) -> None:
        """The result on standard output, with the files to go on with."""
        folder = self.page.parent
        files = {
            "network": str(self.result.artifact),
            "report": str(self.page),
            "recipe": str(folder / RECIPE_FILE),
        }
        if json:
            widths = self.result.widths.tolist()
            notes = [*self.result.notes, *doubts(self.result.networks)]
            print_json({**self.report.summary, "widths": widths, "notes": notes, **files})
            return
        print_report(self.report)
        lines = [f"Note: {note}" for note in self.result.notes]
        lines += [f"Warning: {doubt}" for doubt in doubts(self.result.networks)]
        lines += ["", *(f"{name.capitalize() + ':':<9}{path}" for name, path in files.items())]
        output().print("\n".join(lines), markup=False, soft_wrap=True)


def doubts(networks: Iterable[NetworkRow]) -> list[str]:
    """Where a control is more accurate on the test images than the searched network, in words.

    What is only cut does not count: widths are chosen for how well they can be repaired.
    """
    from statistics import fmean

    from randprune.store import DENSE, SEARCHED

    shares: dict[tuple[str, str], list[float]] = {}
    labels: dict[str, str] = {}
    for row in networks:
        if row.test is not None and row.role != DENSE and row.stage != "cut":
            shares.setdefault((row.stage, row.role), []).append(row.test.share)
            labels[row.role] = row.label
    found = []
    for (stage, role), values in shares.items():
        ours = shares.get((stage, SEARCHED))
        if role != SEARCHED and ours and fmean(values) > fmean(ours):
            found.append(
                f"{labels[role]} has {percent(fmean(values))} test accuracy ({stage}), the "
                f"searched network {percent(fmean(ours))}: the search did not pay here."
            )
    return found


def run(recipe: PruneRecipe, shown: Progress, device: str | None = None) -> Outcome:
    """Do what a recipe with an output folder asks, or what is left of it, and write the report."""
    from randprune.jobs import run_recipe

    return finished(run_recipe(recipe, progress=shown, device=device), recipe)


def finished(result: PruneResult, recipe: JobRecipes) -> Outcome:
    """The outcome of a finished job, its report written."""
    from randprune.report import report_of, write_report

    folder = Path(recipe.output.folder)
    report = report_of(folder)
    return Outcome(result, report, write_report(report, folder).html)
