"""`randprune bench`: criteria and methods beside the random baseline, under one protocol."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from randprune.cli.console import messages, print_json, print_lines
from randprune.cli.flags import BENCH, Asked, with_flags
from randprune.cli.plan import show_plan
from randprune.cli.progress import progress
from randprune.cli.recipes import with_folder

if TYPE_CHECKING:
    from randprune.bench.records import BenchRun

# The benchmark is complete, but rows of it failed.
FAILED_ROWS = 10


@with_flags(BENCH, without=("recipe", "track"))
def bench(
    asked: Asked,
    study: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A TOML recipe, or a shipped study: smoke, aa, f1, f2, f2_field, f4, n_curve, "
            "spread, scratch.",
            show_default=False,
        ),
    ],
) -> int:
    """Benchmark criteria and methods beside the random baseline, under one protocol.

    Methods only propose; one runner cuts, verifies, repairs, trains and tests all of them. Give
    the same command again after an interruption: it continues where it stopped. Exit code 10: the
    benchmark is complete, but rows of it failed; they are listed with their errors.
    """
    from randprune.bench.recipe import BenchRecipe
    from randprune.bench.studies import study_file

    file = study_file(study)
    recipe = with_folder(BenchRecipe, asked.document(file), file)
    if asked.dry_run:
        from randprune.bench.plan import BenchPlan

        show_plan(partial(BenchPlan.of, recipe, asked.device), json=asked.json)
        return 0
    with progress(asked.quiet) as shown:
        from randprune.bench import run_bench

        run = run_bench(recipe, progress=shown, device=asked.device)
    _print(run, Path(recipe.output.folder), json=asked.json)
    return FAILED_ROWS if run.failures else 0


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
    print_lines(lines)
