"""A benchmark's report as files, and its result as data."""

from __future__ import annotations

import os

from randprune.bench.analysis import Analysis
from randprune.bench.records import BenchRun
from randprune.report import tables as run_tables
from randprune.report.bench import records, tables
from randprune.report.bench.figures import figures
from randprune.report.bench.findings import findings, headline
from randprune.report.bench.names import Names
from randprune.report.bench.page import build_bench_page, published_table
from randprune.report.table import Table
from randprune.report.write import ReportPaths, write_page


def write_bench_report(run: BenchRun, out: str | os.PathLike[str]) -> ReportPaths:
    """Write `out`/report.html, `out`/tables/*.csv and *.tex, `out`/figures/*.png.

    Works for running, interrupted and failed runs too, and says so. The page needs no other file
    and no network.

    Args:
        run: the records.
        out: folder for the files, made where missing; an `out` that ends in ".html" names the page,
            and the other files lie beside it.

    Raises:
        StorageError: `out` cannot be written.
    """
    analysis = Analysis(run)
    names = Names(run)
    paper = _present(
        tables.leaderboard(analysis, names),
        tables.comparisons(analysis, names),
        tables.by_length(analysis, names),
        tables.equal_compute(analysis, names),
        tables.variances(analysis, names),
        tables.ranks(analysis, names),
        published_table(analysis),
    )
    raw = _present(
        records.results(analysis, names),
        records.candidates(analysis),
        records.training_epochs(analysis),
        records.failures(analysis, names),
        run_tables.ledger_entries(run.ledger),
    )
    page = build_bench_page(analysis)
    return write_page(page, (*paper, *raw), figures(analysis, names), out, latex=paper)


def leaderboard_of(run: BenchRun) -> tuple[str, Table | None]:
    """The headline, and the leaderboard where there are results, for terminals."""
    analysis, names = Analysis(run), Names(run)
    return headline(analysis, names), tables.leaderboard(analysis, names)


def bench_summary(run: BenchRun) -> dict[str, object]:
    """The result as JSON-ready data, for `--json` and for scripts."""
    analysis = Analysis(run)
    names = Names(run)
    epochs = analysis.main
    compared = {} if epochs is None else {c.name: c for c in analysis.comparisons(epochs)}
    verdicts = {name: comparison.verdict for name, comparison in compared.items()}
    if epochs is not None and names.dense:  # a difference, but no verdict: it is no method
        compared |= {c.name: c for c in analysis.comparisons(epochs, [names.dense])}
    return {
        "headline": headline(analysis, names),
        "status": run.status,
        "error": run.info.error,
        "run": run.info.id,
        "reference": str(names.reference),
        "epochs": epochs,
        "margin": run.protocol.margin,
        "findings": [
            {"question": f.question, "answer": f.answer} for f in findings(analysis, names)
        ],
        "rows": [
            {
                "row": str(s.row),
                "test_top1": s.accuracy.value if s.accuracy else None,
                "interval": s.accuracy.interval if s.accuracy else None,
                "results": s.results,
                "failed": s.failed,
                "macs": s.macs,
                "compute_macs": s.spent.macs,
                "difference": compared[s.row].difference.value if s.row in compared else None,
                "difference_interval": (
                    compared[s.row].difference.interval if s.row in compared else None
                ),
                "verdict": verdicts.get(s.row),
            }
            for s in (() if epochs is None else analysis.summaries(epochs))
        ],
    }


def _present(*found: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in found if table is not None and table.rows)
