"""`randprune bench`: criteria and methods beside the random baseline, under one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json
from randprune.cli.flags import BENCH, recipe_document, with_flags
from randprune.cli.progress import progress
from randprune.cli.recipes import job_recipe

if TYPE_CHECKING:
    from randprune.bench.recipe import BenchRecipe
    from randprune.bench.records import BenchRun

# The benchmark is complete, but rows of it failed.
FAILED_ROWS = 10


@with_flags(BENCH)
def bench(
    given: Mapping[str, Any],
    study: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A TOML recipe, or a shipped study: smoke, f1, f2, f4, n_curve, spread, scratch.",
            show_default=False,
        ),
    ],
    settings: options.Settings = None,
    trust_plugins: options.TrustPlugins = False,
    device: options.Device = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:  # fmt: skip
    """Benchmark criteria and methods beside the random baseline, under one protocol.

    Methods only propose; one runner cuts, verifies, repairs, trains and tests all of them. Give
    the same command again after an interruption: it continues where it stopped. Exit code 10: the
    benchmark is complete, but rows of it failed; they are listed with their errors.
    """
    recipe = resolve(given, study, settings or (), trust_plugins)
    if dry_run:
        from randprune.bench.plan import BenchPlan

        with messages().status("Looking at the network and the images ..."):
            plan = BenchPlan.of(recipe, device)
        if json:
            print_json(plan.to_json())
        else:
            output().print("\n".join(plan.lines()), markup=False, soft_wrap=True)
        return 0
    with progress(quiet) as shown:
        from randprune.bench import run_bench

        run = run_bench(recipe, progress=shown, device=device)
    _print(run, Path(recipe.output.folder), json=json)
    return FAILED_ROWS if run.failures else 0


def resolve(
    given: Mapping[str, Any], study: str, settings: Sequence[str] = (), trusted: bool = False
) -> BenchRecipe:
    """The recipe that a study, flags and settings ask for, with an output folder.

    Raises:
        InvalidInputError: an unknown study or key, or a value that does not fit.
    """
    from randprune.bench.recipe import BenchRecipe
    from randprune.bench.studies import study_file

    file = study_file(study)
    return job_recipe(
        BenchRecipe, recipe_document(file, given, settings, trusted=trusted), file, lambda _: None
    )


def _print(run: BenchRun, folder: Path, *, json: bool) -> None:
    """The leaderboard on standard output, with the files to go on with; the report beside them."""
    from randprune.cli.report import print_report
    from randprune.report import report_of, write_report

    with messages().status("Writing the report ..."):
        made = report_of(run)
        paths = write_report(made, folder)
    if json:
        print_json(
            {
                **made.summary,
                "results": [
                    {
                        "row": str(r.row),
                        "draw": r.draw,
                        "epochs": r.epochs,
                        "training": r.training,
                        "status": r.status,
                        "test": r.test.share if r.test else None,
                        "error": r.error,
                    }
                    for r in run.results
                ],
                "test_set_before_final": run.test_set.before_final,
                "files": {
                    "report": str(paths.html),
                    "tables": [str(path) for path in (*paths.csv, *paths.tex)],
                    "figures": [str(path) for path in paths.png],
                    "records": str(folder),
                },
            }
        )
        return
    print_report(made)
    failed = [f"Failed: {r.row}, draw {r.draw}: {r.error}" for r in run.failures]
    lines = ["", *failed, f"Report: {paths.html}", f"Tables: {paths.html.parent / 'tables'}"]
    output().print("\n".join(lines), markup=False, soft_wrap=True)
