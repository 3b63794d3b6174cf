"""One benchmark as a page: what it says in words, the leaderboard, and everything behind it."""

from __future__ import annotations

from randprune.bench.analysis import Analysis
from randprune.report import tables as run_tables
from randprune.report.bench import records, tables
from randprune.report.bench.figures import figures
from randprune.report.bench.findings import findings, headline
from randprune.report.bench.names import Names, verdict_counts
from randprune.report.bench.protocol import protocol_blocks
from randprune.report.cells import amount
from randprune.report.chart import Chart
from randprune.report.format import moment, number, often, percent, seconds, si
from randprune.report.html import Block, Facts, Folded, Page, Section, Text, Tile
from randprune.report.page import STATUS
from randprune.report.reproduce import reproduce, version, versions_used
from randprune.report.table import EMPTY, Cell, Column, Table


def build_bench_page(analysis: Analysis) -> Page:
    """The page of a benchmark, with whatever it has recorded so far."""
    run = analysis.run
    names = Names(run)
    charts = {chart.id: chart for chart in figures(analysis, names)}
    protocol = run.protocol
    sections = (
        Section("result", "Result", _result(analysis, names, charts)),
        Section("compute", "Compute", _compute(analysis, names, charts)),
        Section("training", "Training", _training(analysis, names, charts)),
        Section("search", "Search", _search(analysis, names, charts)),
        Section("chance", "Chance", _blocks(tables.variances(analysis, names))),
        Section("protocol", "Protocol", protocol_blocks(analysis, names)),
        Section("records", "Records", _records(analysis, names)),
        Section("reproduce", "Reproduce", reproduce(run.info, run.reproduce, run.sessions)),
    )
    study = f"study {protocol.study} · " if protocol.study else ""
    return Page(
        title=f"{protocol.title} – randprune benchmark",
        kicker=f"Benchmark · {study}{protocol.title} · {run.model.title} · "
        f"{moment(run.info.started)}",
        headline=headline(analysis, names),
        status=STATUS[run.status],
        sections=tuple(section for section in sections if section.blocks),
        tiles=_tiles(analysis, names),
        notices=_notices(analysis),
        footer=f"Written by randprune {version(run.info)} from run {run.info.id} in its folder "
        f"(recipe {run.info.recipe_hash}). One MAC is one multiply-add; FLOPs are twice the MACs. "
        "Ratios say what remains.",
    )


def _tiles(analysis: Analysis, names: Names) -> tuple[Tile, ...]:
    run, found = analysis.run, []
    if analysis.main is not None:
        family = analysis.comparisons(analysis.main)
        counts = verdict_counts(family)
        if family:
            found += [
                Tile(verdict.capitalize(), number(count), f"of {len(family)} rows")
                for verdict, count in counts.items()
            ]
        mean = analysis.mean_of(analysis.results(names.reference, analysis.main))
        if mean is not None:
            span = "no interval"
            if mean.interval is not None:
                span = " – ".join(f"{100 * end:.2f}" for end in mean.interval)
            found.append(
                Tile(f"Reference: {names.of(names.reference)}", percent(mean.value, 2), span)
            )
    trained = None
    if names.dense and analysis.main is not None:
        trained = analysis.mean_of(analysis.results(names.dense, analysis.main))
    if trained is not None:
        found.append(Tile("Dense network", percent(trained.value, 2), si(run.dense.macs, "MACs")))
    elif run.dense.test is not None:
        found.append(
            Tile("Dense network", percent(run.dense.test.share, 2), si(run.dense.macs, "MACs"))
        )
    spent = sum(entry.seconds for entry in run.ledger)
    macs = sum(entry.macs_spent for entry in run.ledger)
    if spent:
        found.append(Tile("Spent", si(macs, "MACs"), seconds(spent)))
    return tuple(found)


def _notices(analysis: Analysis) -> tuple[Text, ...]:
    run, found = analysis.run, []
    if run.status == "running":
        found.append(
            Text("This run is still at work; the page shows what was recorded so far.", "busy")
        )
    elif run.status == "interrupted":
        found.append(
            Text(
                "This run was interrupted before its end; the same command continues it where it "
                "stopped.",
                "warn",
            )
        )
    elif run.status == "failed":
        found.append(Text(f"This run failed: {run.info.error}", "bad"))
    if run.test_set.before_final:
        found.append(
            Text(
                f"The test set was read {often(run.test_set.before_final)} before the final "
                "evaluation: its accuracy is not that of unseen images.",
                "bad",
            )
        )
    draws = len(run.protocol.draw_seeds)
    if draws == 1:
        found.append(
            Text(
                "One draw of configurations: intervals and tests hold for that one configuration "
                "of each row, or are not possible at all.",
                "warn",
            )
        )
    elif draws == 2:
        found.append(
            Text(
                "Two draws of configurations: intervals are so wide that hardly anything can be "
                "decided.",
                "warn",
            )
        )
    failed = run.failures
    if failed:
        rows = len({result.row for result in failed})
        found.append(
            Text(
                f"{number(len(failed))} results of {rows} {'row' if rows == 1 else 'rows'} failed; "
                "their errors are listed under Result.",
                "warn",
            )
        )
    if len(versions_used(run.sessions)) > 1:
        found.append(
            Text("The sessions of this run used different versions; see Reproduce.", "warn")
        )
    return tuple(found)


def _result(analysis: Analysis, names: Names, charts: dict[str, Chart]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    said = findings(analysis, names)
    if said:
        blocks.append(Facts("In plain words", {f.question: f.answer for f in said}, wide=True))
    blocks += _blocks(tables.leaderboard(analysis, names))
    blocks += _pick(charts, "forest")
    blocks += _blocks(records.failures(analysis, names))
    blocks += _pick(charts, "accuracy-macs")
    blocks += _blocks(published_table(analysis))
    return tuple(blocks)


def _compute(analysis: Analysis, names: Names, charts: dict[str, Chart]) -> tuple[Block, ...]:
    ledger = run_tables.ledger(analysis.run.ledger)
    return (
        *_pick(charts, "accuracy-compute", "ledger"),
        *_blocks(tables.equal_compute(analysis, names)),
        *((ledger,) if ledger.rows else ()),
    )


def _training(analysis: Analysis, names: Names, charts: dict[str, Chart]) -> tuple[Block, ...]:
    return (
        *_pick(charts, "lengths", "before-after"),
        *_blocks(tables.by_length(analysis, names)),
    )


def _search(analysis: Analysis, names: Names, charts: dict[str, Chart]) -> tuple[Block, ...]:
    ranks = tables.ranks(analysis, names)
    return (
        *_pick(charts, "best-of-n", "candidates-accuracy", "spread", "spread-test"),
        *((ranks,) if ranks.rows else ()),
    )


def _records(analysis: Analysis, names: Names) -> tuple[Block, ...]:
    table = records.results(analysis, names)
    return (Folded(table),) if table.rows else ()


def published_table(analysis: Analysis) -> Table | None:
    """Published numbers for this network and data, with their sources."""
    others = analysis.published
    if not others:
        return None
    columns = (
        Column("method", "Published method"),
        Column("top1", "Test accuracy", True),
        Column("macs", "MACs", True),
        Column("ratio", "MACs kept", True, hint="about"),
        Column("dense", "Dense", True),
        Column("epochs", "Epochs", True),
        Column("source", "Source"),
    )
    rows = tuple(
        (
            Cell(p.method),
            Cell(percent(p.top1, 2), p.top1),
            amount(p.macs),
            EMPTY if p.ratio is None else Cell(percent(p.ratio, 0), p.ratio),
            EMPTY if p.top1_dense is None else Cell(percent(p.top1_dense, 2), p.top1_dense),
            EMPTY if p.epochs is None else Cell(number(p.epochs), p.epochs),
            Cell(p.source),
        )
        for p in others
    )
    table = Table(
        "published",
        f"Published for {analysis.run.model.title} on {others[0].data}",
        columns,
        rows,
        "As their authors or others state them, with other base networks, budgets, lengths of "
        "training and ways to choose an epoch: for context, not for ranking.",
    )
    return table.without_empty()


def _blocks(table: Table | None) -> tuple[Table, ...]:
    return () if table is None or not table.rows else (table,)


def _pick(charts: dict[str, Chart], *names: str) -> tuple[Chart, ...]:
    return tuple(charts[name] for name in names if name in charts)
