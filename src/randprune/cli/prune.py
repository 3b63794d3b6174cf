"""`randprune prune` and `scratch`: a network in, a smaller verified one out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randprune.cli.console import print_json, print_lines
from randprune.cli.flags import PRUNE, SCRATCH, Asked, with_flags
from randprune.cli.options import RECIPE_FILE
from randprune.cli.plan import JobPlan, show_plan
from randprune.cli.progress import progress
from randprune.cli.recipes import job_recipe
from randprune.cli.report import print_report
from randprune.cli.scratch_plan import ScratchPlan

if TYPE_CHECKING:
    from randprune.jobs.progress import Progress
    from randprune.jobs.result import JobRecipes, PruneResult
    from randprune.report import Report
    from randprune.store import CurvePoint


@with_flags(PRUNE)
def prune(asked: Asked) -> None:
    """Prune a trained network: search widths, cut, repair, verify, fine-tune, save, report.

    Give the same command again after an interruption: it continues where it stopped.
    """
    from randprune.recipe import PruneRecipe

    recipe = job_recipe(PruneRecipe, asked)
    if asked.dry_run:
        show_plan(partial(JobPlan.of, recipe), json=asked.json)
    else:
        _do(recipe, asked)


@with_flags(SCRATCH)
def scratch(asked: Asked) -> None:
    """Prune from scratch: search widths with shared weights, train the best, compare, report.

    Give the same command again after an interruption: it continues where it stopped.
    """
    from randprune.recipe import ScratchRecipe

    recipe = job_recipe(ScratchRecipe, asked)
    if asked.dry_run:
        show_plan(partial(ScratchPlan.of, recipe, asked.device), json=asked.json)
    else:
        _do(recipe, asked)


def _do(recipe: JobRecipes, asked: Asked) -> None:
    with progress(asked.quiet) as shown:
        outcome = (
            _tracked(recipe, asked, shown) if asked.track else run(recipe, shown, asked.device)
        )
    outcome.print(json=asked.json)


def _tracked(recipe: JobRecipes, asked: Asked, shown: Progress) -> Outcome:
    """The job, with trackers that are told of it."""
    from randprune.integrations.trackers import tracking

    out = Path(recipe.output.folder)
    with tracking(
        asked.track or (), out / "track", run_name=out.name, progress=shown, device=asked.device
    ) as told:
        outcome = run(recipe, told, asked.device)
        for result in outcome.results:
            several = len(outcome.results) > 1
            told.log_result(result, f"test_{result.budget.ratio:g}" if several else "test")
    return outcome


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A finished job: its results, one a budget, its report, and the page of that.

    `curve`: accuracy against cost, of several budgets.
    """

    results: tuple[PruneResult, ...]
    notes: tuple[str, ...]
    curve: tuple[CurvePoint, ...]
    report: Report
    page: Path

    def print(self, *, json: bool) -> None:
        """The result on standard output, with the files to go on with."""
        files = {"report": str(self.page), "recipe": str(self.page.parent / RECIPE_FILE)}
        if json:
            print_json({**self._document(), "notes": list(self.notes), **files})
            return
        print_report(self.report)
        lines = [note if "Warning: " in note else f"Note: {note}" for note in self.notes]
        lines += ["", *(f"{'Network:':<9}{result.artifact}" for result in self.results)]
        lines += [f"{name.capitalize() + ':':<9}{path}" for name, path in files.items()]
        print_lines(lines)

    def _document(self) -> dict[str, Any]:
        """The result as JSON-ready data."""
        found = [
            {"widths": result.widths.tolist(), "network": str(result.artifact)}
            for result in self.results
        ]
        if not self.curve:
            return {**self.report.summary, **found[0]}
        curve = [asdict(point) for point in self.curve]
        ratios = [result.budget.ratio for result in self.results]
        results = [{"budget": r, **one} for r, one in zip(ratios, found, strict=True)]
        return {**self.report.summary, "curve": curve, "results": results}


def run(recipe: JobRecipes, shown: Progress, device: str | None = None) -> Outcome:
    """Do what a recipe with an output folder asks, or what is left of it, and write the report."""
    from randprune.jobs import PruneResult, run_recipe
    from randprune.report import report_of, write_report

    found = run_recipe(recipe, progress=shown, device=device)
    folder = Path(recipe.output.folder)
    report = report_of(folder)
    page = write_report(report, folder).html
    if isinstance(found, PruneResult):
        return Outcome((found,), found.notes, (), report, page)
    return Outcome(found.results, found.notes, found.curve, report, page)
