"""One benchmark as a report: the forest plot and the leaderboard, what they say, all behind it."""

from __future__ import annotations

from randprune.bench.analysis import Analysis
from randprune.bench.records import BenchRun
from randprune.report.bench import figures, records, tables
from randprune.report.bench.findings import Finding, findings, headline
from randprune.report.bench.protocol import protocol_blocks
from randprune.report.bench.wording import verdict_counts
from randprune.report.document import Facts, Folded, Page, Report, Section, Text, Tile, present
from randprune.report.format import moment, number, percent, seconds, si
from randprune.report.ledger import Ledger, ledger_chart, ledger_entries, ledger_table
from randprune.report.names import Names
from randprune.report.reproduce import footer, reproduce
from randprune.report.status import (
    STATUS,
    early_reading_notices,
    status_notices,
    versions_notices,
)


def bench_report(run: BenchRun) -> Report:
    """The report of a benchmark, with whatever it has recorded so far."""
    analysis, names, ledger = Analysis(run), Names(run), Ledger.of(run.ledger)
    leaderboard = tables.leaderboard(analysis, names)
    comparisons = tables.comparisons(analysis, names)
    lengths = tables.by_length(analysis, names)
    equal_compute = tables.equal_compute(analysis, names)
    variances = tables.variances(analysis, names)
    ranks = tables.ranks(analysis, names)
    published = tables.published(analysis)
    results, failures = records.results(analysis, names), records.failures(analysis, names)
    references = figures.references_of(analysis, names)
    said, sentence = findings(analysis, names), headline(analysis, names)
    sections = (
        # What was asked for comes first, the words behind it.
        Section.of(
            "result",
            "Result",
            figures.forest(analysis, names, comparisons),
            leaderboard,
            Facts("In plain words", {f.question: f.answer for f in said}, wide=True),
            failures,
            figures.accuracy_macs(analysis, names, leaderboard),
            published,
        ),
        Section.of(
            "compute",
            "Compute",
            figures.accuracy_compute(analysis, names, equal_compute),
            ledger_chart(ledger),
            equal_compute,
            ledger_table(ledger),
        ),
        Section.of(
            "training",
            "Training",
            figures.lengths(analysis, names, lengths),
            figures.before(analysis, names, ranks),
            lengths,
        ),
        Section.of(
            "search",
            "Search",
            figures.best_of(analysis, references),
            figures.grown(analysis, names),
            figures.spread(analysis, names, references),
            figures.after(analysis, names),
            ranks,
        ),
        Section.of("chance", "Chance", variances),
        Section.of("protocol", "Protocol", *protocol_blocks(analysis, names)),
        Section.of("records", "Records", Folded(results)),
        Section.of("reproduce", "Reproduce", *reproduce(run.info, run.reproduce, run.sessions)),
    )
    protocol = run.protocol
    study = f"study {protocol.study} · " if protocol.study else ""
    page = Page(
        title=f"{protocol.title} – randprune benchmark",
        kicker=f"Benchmark · {study}{protocol.title} · {run.model.title} · "
        f"{moment(run.info.started)}",
        headline=sentence,
        status=STATUS[run.status],
        sections=tuple(section for section in sections if section.blocks),
        tiles=_tiles(analysis, names, ledger),
        notices=_notices(analysis),
        footer=footer(run.info),
    )
    papers = (leaderboard, comparisons, lengths, equal_compute, variances, ranks, published)
    raw = (
        results,
        records.candidates(analysis),
        records.training_epochs(analysis),
        failures,
        ledger_entries(ledger),
    )
    return Report(
        page,
        present((*papers, *raw)),
        _summary(analysis, names, sentence, said),
        leaderboard,
        present(papers),
    )


def _summary(
    analysis: Analysis, names: Names, headline: str, said: tuple[Finding, ...]
) -> dict[str, object]:
    """The result as JSON-ready data, for `--json` and for scripts."""
    run, length = analysis.run, analysis.main
    verdicts = {c.name: c.verdict for c in (length.comparisons if length else ())}
    compared = {c.name: c.difference for c in (length.comparisons if length else ())}
    if length is not None and length.dense is not None:
        # A difference, but no verdict: it is no method.
        compared[length.dense.name] = length.dense.difference
    return {
        "headline": headline,
        "status": run.status,
        "error": run.info.error,
        "run": run.info.id,
        "reference": str(names.reference),
        "epochs": length.epochs if length else None,
        "margin": run.protocol.margin,
        "findings": [{"question": f.question, "answer": f.answer} for f in said],
        "rows": [
            {
                "row": str(s.row),
                "test_top1": s.accuracy.value if s.accuracy else None,
                "interval": s.accuracy.interval if s.accuracy else None,
                "results": len(s.results),
                "failed": s.failed,
                "macs": s.macs,
                "compute_macs": s.spent.macs,
                "difference": compared[s.row].value if s.row in compared else None,
                "difference_interval": compared[s.row].interval if s.row in compared else None,
                "verdict": verdicts.get(s.row),
            }
            for s in (length.rows if length else ())
        ],
    }


def _tiles(analysis: Analysis, names: Names, ledger: Ledger) -> tuple[Tile, ...]:
    dense, length = analysis.run.dense, analysis.main
    found: list[Tile] = []
    test = dense.test.share if dense.test else None
    if length is not None:
        family = length.comparisons
        found += [
            Tile(verdict.capitalize(), number(count), f"of {len(family)} rows")
            for verdict, count in verdict_counts(family).items()
            if count
        ]
        mean = length.of(names.reference).accuracy
        if mean is not None:
            span = "no interval"
            if mean.interval is not None:
                span = " – ".join(f"{100 * end:.2f}" for end in mean.interval)
            name = f"Reference: {names.of(names.reference)}"
            found.append(Tile(name, percent(mean.value, 2), span))
        if names.dense:
            trained = length.of(names.dense).accuracy
            test = trained.value if trained else test
    if test is not None:
        found.append(Tile("Dense network", percent(test, 2), f"{si(dense.macs)} MACs"))
    if ledger.total.seconds:
        spent = f"{si(ledger.total.macs_spent)} MACs"
        found.append(Tile("Spent", spent, seconds(ledger.total.seconds)))
    return tuple(found)


def _notices(analysis: Analysis) -> tuple[Text, ...]:
    run = analysis.run
    found = [
        *status_notices(run.status, run.info.error),
        *early_reading_notices(run.test_set.before_final),
    ]
    few = {
        1: "One draw of configurations: intervals and tests hold for that one configuration of "
        "each row, or are not possible at all.",
        2: "Two draws of configurations: intervals are so wide that hardly anything can be "
        "decided.",
    }
    draws = len(run.protocol.draw_seeds)
    if draws in few:
        found.append(Text(few[draws], "warn"))
    if analysis.failures:
        rows = len({result.row for result in analysis.failures})
        found.append(
            Text(
                f"{number(len(analysis.failures))} results of {rows} "
                f"{'row' if rows == 1 else 'rows'} failed; their errors are listed under Result.",
                "warn",
            )
        )
    return (*found, *versions_notices(run.sessions))
