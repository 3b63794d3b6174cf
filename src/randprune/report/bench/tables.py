"""The tables of a benchmark: the leaderboard and the statistics behind it."""

from __future__ import annotations

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.stats import Comparison, Estimate
from randprune.bench.summaries import RowSummary
from randprune.report.bench.records import records_link
from randprune.report.estimates import (
    accuracy_text,
    difference_text,
    ends,
    epochs_text,
    interval_columns,
    magnitude,
    p_number,
    p_text,
    signed,
    span_of_points,
    tau_span,
)
from randprune.report.format import number, percent, points, si
from randprune.report.names import METRIC_NAMES, VERDICT_COLORS, Names
from randprune.report.table import EMPTY, Cell, Column, Table, amount, plain, said


def leaderboard(analysis: Analysis, names: Names) -> Table | None:
    """One row a method and criterion at the longest training, the best first."""
    length = analysis.main
    if length is None:
        return None
    run, metric = analysis.run, analysis.run.budget.metric
    comparisons = {c.name: c for c in (*length.comparisons, length.dense) if c is not None}
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("test_top1", "Test accuracy", True, hint=epochs_text(length.epochs)),
        *interval_columns("test"),
        Column("difference", "Points to the reference", True, hint="95\u00a0% interval"),
        *interval_columns("difference"),
        Column("verdict", "Verdict", hint=f"margin {magnitude(run.protocol.margin)}"),
        Column("before", names.words.before, True, hint=names.words.before_hint, minor=True),
        Column("ratio", f"{METRIC_NAMES.get(metric, metric)} kept", True, minor=True),
        Column("candidates", "Candidates", True, minor=True),
        Column("compute", "Compute", True, hint="MACs, all in", minor=True),
        Column("results", "Results", True, hint="draws × trainings", minor=True),
        Column("failed", shown="csv"),
    )
    # The dense network comes last.
    ordered = sorted(length.rows, key=lambda s: s.row == names.dense)
    rows = tuple(_leader(s, length.epochs, comparisons.get(s.row), names) for s in ordered)
    if not names.dense and any(s.accuracy is not None for s in length.rows):
        rows = (*rows, _dense_row(analysis))
    draws = len(run.protocol.draw_seeds)
    note = (
        f"Means over {draws} draws of configurations with 95\u00a0% t intervals over draws, "
        f"which do not cover {names.words.uncovered}. Differences are paired, draw by draw. "
        "Verdicts: better or worse by a paired t test, equivalent by two one-sided tests within "
        "the margin, both with Holm's correction over all rows; undecided where neither was shown. "
        f"Reference: {names.reference_name}. "
        "Each number leads to its records."
    )
    return Table("leaderboard", "Leaderboard", columns, rows, note)


def _named(row: Row, names: Names, detail: str = "", link: str = "") -> tuple[Cell, Cell]:
    """A row's name for people, and for CSV files."""
    return Cell(names.of(row), names.of(row), detail, names.look(row).color, link), Cell(str(row))


def _leader(
    summary: RowSummary,
    epochs: int,
    comparison: Comparison[Row] | None,
    names: Names,
) -> tuple[Cell, ...]:
    look = names.look(summary.row)
    count = len(summary.results)
    link = records_link(summary.row, epochs) if count else ""
    text, note = accuracy_text(summary.accuracy)
    if summary.failed:
        note = "\n".join(filter(None, (note, f"{summary.failed} failed")))
    difference, verdict, bounds = EMPTY, EMPTY, (EMPTY, EMPTY)
    if look.is_reference:
        verdict = Cell("reference", "reference")
    elif comparison is not None:
        # The heading has the unit, so that the table fits on a phone.
        value = points(comparison.difference.value, 2).partition("\u00a0")[0]
        span = span_of_points(comparison.difference)
        difference = Cell(value, comparison.difference.value, span, link=link)
        bounds = ends(comparison.difference)
        verdict = Cell(
            comparison.verdict,
            comparison.verdict,
            _verdict_note(comparison),
            tone=VERDICT_COLORS[comparison.verdict],
        )
        if summary.row == names.dense:  # twice the budget: no verdict on a method
            verdict = Cell("–", None)
    before, before_note = accuracy_text(summary.before)
    return (
        *_named(summary.row, names, names.detail(summary.row), link),
        Cell(text, summary.accuracy.value, note, link=link) if summary.accuracy else EMPTY,
        *ends(summary.accuracy),
        difference,
        *bounds,
        verdict if summary.accuracy else Cell("failed" if summary.failed else "–"),
        EMPTY if summary.before is None else Cell(before, summary.before.value, before_note),
        EMPTY
        if summary.ratio is None
        else Cell(
            percent(summary.ratio), summary.ratio, "" if not summary.macs else si(summary.macs)
        ),
        Cell(number(round(summary.candidates)), summary.candidates) if count else EMPTY,
        amount(summary.spent.macs or None),
        Cell(number(count), count, link=link),
        plain(summary.failed),
    )


def _dense_row(analysis: Analysis) -> tuple[Cell, ...]:
    dense = analysis.run.dense
    test = EMPTY
    if dense.test is not None and analysis.dense_interval is not None:
        low, high = analysis.dense_interval
        note = f"{100 * low:.2f} – {100 * high:.2f}\nover images"
        test = Cell(percent(dense.test.share, 2), dense.test.share, note)
    ratio = Cell(percent(1.0), 1.0, si(dense.macs))
    return (
        Cell("dense network", "dense network", "as given", "dense"),
        Cell("dense"),
        test,
        *(EMPTY,) * 3,
        *(EMPTY,) * 2,
        EMPTY,
        EMPTY,
        ratio,
        *(EMPTY,) * 3,
        plain(0),
    )


def _verdict_note(comparison: Comparison[Row]) -> str:
    if comparison.verdict == "equivalent":
        return p_text(comparison.p_equivalence_holm)
    if comparison.verdict in ("better", "worse"):
        return p_text(comparison.p_difference_holm)
    return "" if comparison.p_difference is not None else "too few pairs"


def comparisons(analysis: Analysis, names: Names) -> Table | None:
    """All tests at the longest training, with and without correction."""
    if analysis.main is None:
        return None
    found = sorted(analysis.main.comparisons, key=lambda c: -c.difference.value)
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("difference", "Difference", True, hint="95\u00a0% interval"),
        *interval_columns("difference"),
        Column("p_difference", "p, different", True),
        Column("p_difference_holm", "with Holm", True),
        Column("p_equivalence", "p, equivalent", True, hint="TOST"),
        Column("p_equivalence_holm", "with Holm", True),
        Column("verdict", "Verdict"),
        Column("pairs", "Pairs", True),
        Column("units", "Units", True, hint="independent"),
        Column("note", "Remark"),
    )
    rows = tuple(
        (
            *_named(c.name, names),
            Cell(
                difference_text(c.difference)[0],
                c.difference.value,
                difference_text(c.difference)[1],
            ),
            *ends(c.difference),
            *(
                EMPTY if p is None else Cell(p_number(p), p)
                for p in (
                    c.p_difference,
                    c.p_difference_holm,
                    c.p_equivalence,
                    c.p_equivalence_holm,
                )
            ),
            Cell(c.verdict, c.verdict, tone=VERDICT_COLORS[c.verdict]),
            plain(c.pairs),
            plain(c.units),
            said(c.note),
        )
        for c in found
    )
    table = Table(
        "comparisons",
        f"Paired tests against {names.reference_name}",
        columns,
        rows,
        "Pairs share the draw of configurations and the number of the training. Trainings of one "
        "draw are averaged first, so that draws are the independent units.",
    )
    return table.without_empty()


def by_length(analysis: Analysis, names: Names) -> Table | None:
    """Accuracy at every length of training, and what the longest brings over the shortest."""
    if len(analysis.lengths) < 2:
        return None
    first, last = analysis.span
    columns = [Column("name", "Method"), Column("row", shown="csv")]
    for epochs in analysis.lengths:
        columns.append(Column(f"test_{epochs}", epochs_text(epochs), True))
        columns += interval_columns(f"test_{epochs}")
    columns.append(Column("gain", f"{last} instead of {first}", True, hint="paired"))
    columns += interval_columns("gain")
    rows = []
    for summary in analysis.at[last].rows:
        cells = [
            *_named(summary.row, names),
        ]
        for epochs, length in analysis.at.items():
            estimate = length.of(summary.row).accuracy
            text, note = accuracy_text(estimate)
            link = records_link(summary.row, epochs) if estimate else ""
            cells.append(EMPTY if estimate is None else Cell(text, estimate.value, note, link=link))
            cells += ends(estimate)
        gain = analysis.gains.get(summary.row)
        cells.append(
            EMPTY
            if gain is None
            else Cell(difference_text(gain)[0], gain.value, difference_text(gain)[1])
        )
        cells += ends(gain)
        rows.append(tuple(cells))
    return Table(
        "lengths",
        f"{names.words.heading} lengths",
        tuple(columns),
        tuple(rows),
        "Test accuracy after the last epoch, never the best one; 95\u00a0% t intervals over draws.",
    )


def equal_compute(analysis: Analysis, names: Names) -> Table | None:
    """Accuracy of every row for the total compute that the reference takes at each length."""
    levels = analysis.compute_levels
    if not levels or analysis.main is None:
        return None
    columns = [Column("name", "Method"), Column("row", shown="csv")]
    for epochs, macs in levels.items():
        columns.append(
            Column(f"at_{macs:.4g}_macs", f"for {si(macs)}MACs", True, hint=epochs_text(epochs))
        )
        columns += interval_columns(f"at_{macs:.4g}_macs")
    columns.append(Column("compute", "Its own total", True, hint=epochs_text(analysis.main.epochs)))
    rows = []
    for summary in analysis.main.rows:
        cells = [
            *_named(summary.row, names),
        ]
        for reached in analysis.at_equal_compute.values():
            estimate = reached[summary.row]
            text, note = accuracy_text(estimate)
            cells.append(
                Cell("costs more", None) if estimate is None else Cell(text, estimate.value, note)
            )
            cells += ends(estimate)
        cells.append(amount(summary.spent.macs or None))
        rows.append(tuple(cells))
    return Table(
        "equal_compute",
        "At equal total compute",
        tuple(columns),
        tuple(rows),
        "Each column gives every row the multiply-adds that the reference spends in all "
        f"({names.words.spent}) at one {names.words.training} length, and 5 % more; a row shows "
        "its longest training within them. A training step counts three forward passes.",
    )


def variances(analysis: Analysis, names: Names) -> Table | None:
    """Standard deviations by source, row by row."""
    if analysis.main is None:
        return None
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("sd", "Together", True, hint="standard deviation"),
        Column("sd_low", shown="csv"),
        Column("sd_high", shown="csv"),
        Column("sd_configuration", "Draw of configurations", True, hint="standard deviation"),
        Column("sd_configuration_low", shown="csv"),
        Column("sd_configuration_high", shown="csv"),
        Column("sd_training", "Training", True, hint="standard deviation"),
        Column("sd_training_low", shown="csv"),
        Column("sd_training_high", shown="csv"),
        Column("share", "Share of the draw", True, hint="of the variance"),
        Column("configurations", "Draws", True),
        Column("trainings", "Trainings", True),
        Column("note", shown="csv"),
    )
    summaries = [analysis.main.of(row) for row in analysis.run.protocol.rows]
    # What is said of most rows would make a column of long repetitions: it stands below, once.
    remarks: dict[str, list[str]] = {}
    for summary in summaries:
        if summary.variance is not None and summary.variance.note:
            remarks.setdefault(summary.variance.note, []).append(names.of(summary.row))
    rows = []
    for summary in summaries:
        row, split = summary.row, summary.variance
        if split is None:
            continue
        rows.append(
            (
                *_named(row, names),
                *_deviation(summary.together),
                *_deviation(split.configuration),
                *_deviation(split.training),
                EMPTY if split.share is None else Cell(percent(split.share, 0), split.share),
                plain(split.configurations),
                plain(split.trainings),
                said(split.note),
            )
        )
    table = Table(
        "variances",
        "Where the spread comes from",
        columns,
        tuple(rows),
        "Standard deviations of test accuracy in points with 95\u00a0% intervals: of the results "
        "from draw to draw, and, where networks were trained more than once, from configuration to "
        "configuration and from training to training of one network (nested random effects, method "
        "of moments; a negative variance is set to 0 and said)."
        + "".join(f" {_who(rows, len(summaries))}: {note}." for note, rows in remarks.items()),
    )
    return table.without_empty()


def _who(rows: list[str], all_rows: int) -> str:
    """The rows that a remark is about."""
    return "All rows" if len(rows) == all_rows else ", ".join(rows)


def _deviation(estimate: Estimate | None) -> tuple[Cell, Cell, Cell]:
    if estimate is None:
        return EMPTY, EMPTY, EMPTY
    text = f"{100 * estimate.value**0.5:.2f}"
    if estimate.interval is None:
        return Cell(text, estimate.value**0.5, "no interval"), EMPTY, EMPTY
    low, high = (end**0.5 for end in estimate.interval)
    note = f"{100 * low:.2f} – {100 * high:.2f}"
    return Cell(text, estimate.value**0.5, note), plain(low), plain(high)


def ranks(analysis: Analysis, names: Names) -> Table:
    """Kendall's tau between what is known before and what came out."""
    columns = (
        Column("first", "Score"),
        Column("second", "against"),
        Column("tau", "Kendall's tau", True, hint="95\u00a0% interval"),
        *interval_columns("tau"),
        Column("among", "Among"),
        Column("note", "Remark"),
    )
    rows = []
    for found in analysis.agreements:
        tau = found.estimate
        if tau is None:
            continue
        span = "no interval"
        if tau.interval is not None:
            span = tau_span(tau.interval)
        rows.append(
            (
                Cell(names.words.score(found.first), found.first),
                Cell(names.words.score(found.second), found.second),
                Cell(signed(tau.value), tau.value, span),
                *ends(tau),
                Cell(found.among),
                said(tau.note),
            )
        )
    table = Table(
        "ranks",
        "Does a cheap score predict the order?",
        columns,
        tuple(rows),
        "Tau-b: 1 = the same order, 0 = unrelated. Among proposed networks, rows and draws are "
        "taken together, so that differences between methods count too; networks of one row are no "
        "independent ones, so the interval is the jackknife's over rows. Among candidates of one "
        "search, the mean over searches with a t interval over draws.",
    )
    return table.without_empty()


def published(analysis: Analysis) -> Table | None:
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
