"""The tables of a benchmark: the leaderboard and the statistics behind it."""

from __future__ import annotations

from randprune.bench.analysis import Analysis, RowSummary
from randprune.bench.keys import Row
from randprune.bench.stats import Comparison, Estimate
from randprune.report.bench.names import (
    VERDICT_COLORS,
    Names,
    accuracy_text,
    difference_text,
    epochs_text,
    magnitude,
    p_number,
    p_text,
    signed,
)
from randprune.report.bench.records import records_link
from randprune.report.cells import amount, plain
from randprune.report.format import number, percent, si
from randprune.report.table import EMPTY, Cell, Column, Table


def leaderboard(analysis: Analysis, names: Names) -> Table | None:
    """One row a method and criterion at the longest training, the best first."""
    epochs = analysis.main
    if epochs is None:
        return None
    run = analysis.run
    comparisons = {c.name: c for c in analysis.comparisons(epochs)}
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("test_top1", "Test accuracy", True, hint=epochs_text(epochs)),
        *_interval_columns("test"),
        Column("difference", "To the reference", True, hint="95\u00a0% interval"),
        *_interval_columns("difference"),
        Column("verdict", "Verdict", hint=f"margin {magnitude(run.protocol.margin)}"),
        Column("before", names.words.before, True, hint=names.words.before_hint),
        Column("ratio", f"{_metric(analysis)} kept", True),
        Column("candidates", "Candidates", True),
        Column("compute", "Compute", True, hint="MACs, all in"),
        Column("results", "Results", True, hint="draws × trainings"),
        Column("failed", shown="csv"),
    )
    summaries = analysis.summaries(epochs)
    dense = analysis.comparisons(epochs, [names.dense]) if names.dense else ()
    comparisons |= {c.name: c for c in dense}
    ordered = sorted(summaries, key=lambda s: s.row == names.dense)  # the dense network comes last
    rows = tuple(_leader(s, epochs, comparisons.get(s.row), analysis, names) for s in ordered)
    if not names.dense and any(s.accuracy is not None for s in summaries):
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


def _interval_columns(name: str) -> tuple[Column, ...]:
    return tuple(Column(f"{name}_{end}", shown="csv", numeric=True) for end in ("low", "high"))


def _ends(estimate: Estimate | None) -> tuple[Cell, Cell]:
    if estimate is None or estimate.interval is None:
        return EMPTY, EMPTY
    low, high = estimate.interval
    return plain(low), plain(high)


def _leader(
    summary: RowSummary,
    epochs: int,
    comparison: Comparison[Row] | None,
    analysis: Analysis,
    names: Names,
) -> tuple[Cell, ...]:
    look = names.look(summary.row)
    link = records_link(summary.row, epochs) if summary.results else ""
    text, note = accuracy_text(summary.accuracy)
    if summary.failed:
        note = "\n".join(filter(None, (note, f"{summary.failed} failed")))
    difference, verdict, ends = EMPTY, EMPTY, (EMPTY, EMPTY)
    if look.is_reference:
        verdict = Cell("reference", "reference")
    elif comparison is not None:
        value, span = difference_text(comparison.difference)
        difference = Cell(value, comparison.difference.value, span, link=link)
        ends = _ends(comparison.difference)
        verdict = Cell(
            comparison.verdict,
            comparison.verdict,
            _verdict_note(comparison),
            tone=VERDICT_COLORS[comparison.verdict],
        )
        if summary.row == names.dense:  # twice the budget: no verdict on a method
            verdict = Cell("–", None)
    detail = names.detail(summary.row)
    before, before_note = accuracy_text(summary.before)
    return (
        Cell(names.of(summary.row), names.of(summary.row), detail, look.color, link),
        Cell(str(summary.row)),
        EMPTY
        if summary.accuracy is None
        else Cell(text, summary.accuracy.value, note, link=link)
        if summary.accuracy
        else EMPTY,
        *_ends(summary.accuracy),
        difference,
        *ends,
        verdict if summary.accuracy else Cell("failed" if summary.failed else "–"),
        EMPTY if summary.before is None else Cell(before, summary.before.value, before_note),
        EMPTY
        if summary.ratio is None
        else Cell(
            percent(summary.ratio), summary.ratio, "" if not summary.macs else si(summary.macs)
        ),
        Cell(number(round(summary.candidates)), summary.candidates) if summary.results else EMPTY,
        amount(summary.spent.macs or None),
        Cell(number(summary.results), summary.results, link=link),
        plain(summary.failed),
    )


def _dense_row(analysis: Analysis) -> tuple[Cell, ...]:
    dense = analysis.run.dense
    test = EMPTY
    if dense.test is not None:
        low, high = dense.test.interval()
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


def _metric(analysis: Analysis) -> str:
    metric = analysis.run.budget.metric
    return "MACs" if metric == "macs" else metric


def comparisons(analysis: Analysis, names: Names) -> Table | None:
    """All tests at the longest training, with and without correction."""
    if analysis.main is None:
        return None
    found = sorted(
        analysis.comparisons(analysis.main), key=lambda c: c.difference.value, reverse=True
    )
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("difference", "Difference", True, hint="95\u00a0% interval"),
        *_interval_columns("difference"),
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
            Cell(names.of(c.name), names.of(c.name), tone=names.look(c.name).color),
            Cell(str(c.name)),
            Cell(
                difference_text(c.difference)[0],
                c.difference.value,
                difference_text(c.difference)[1],
            ),
            *_ends(c.difference),
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
            Cell(c.note) if c.note else EMPTY,
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
    first, last = analysis.trained[0], analysis.trained[-1]
    if first == last:
        first = analysis.lengths[0]
    columns = [Column("name", "Method"), Column("row", shown="csv")]
    for epochs in analysis.lengths:
        columns.append(Column(f"test_{epochs}", epochs_text(epochs), True))
        columns += _interval_columns(f"test_{epochs}")
    columns.append(Column("gain", f"{last} instead of {first}", True, hint="paired"))
    columns += _interval_columns("gain")
    rows = []
    for summary in analysis.summaries(last):
        cells = [
            Cell(names.of(summary.row), names.of(summary.row), tone=names.look(summary.row).color),
            Cell(str(summary.row)),
        ]
        for epochs in analysis.lengths:
            estimate = analysis.mean_of(analysis.results(summary.row, epochs))
            text, note = accuracy_text(estimate)
            link = records_link(summary.row, epochs) if estimate else ""
            cells.append(EMPTY if estimate is None else Cell(text, estimate.value, note, link=link))
            cells += _ends(estimate)
        gain = analysis.gain(summary.row, first, last)
        cells.append(
            EMPTY
            if gain is None
            else Cell(difference_text(gain)[0], gain.value, difference_text(gain)[1])
        )
        cells += _ends(gain)
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
        columns += _interval_columns(f"at_{macs:.4g}_macs")
    columns.append(Column("compute", "Its own total", True, hint=epochs_text(analysis.main)))
    rows = []
    for summary in analysis.summaries(analysis.main):
        cells = [
            Cell(names.of(summary.row), names.of(summary.row), tone=names.look(summary.row).color),
            Cell(str(summary.row)),
        ]
        for macs in levels.values():
            estimate = analysis.at_compute(summary.row, macs)
            text, note = accuracy_text(estimate)
            cells.append(
                Cell("costs more", None) if estimate is None else Cell(text, estimate.value, note)
            )
            cells += _ends(estimate)
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
    splits = {row: analysis.variance(row, analysis.main) for row in analysis.run.protocol.rows}
    # What is said of most rows would make a column of long repetitions: it stands below, once.
    remarks: dict[str, list[str]] = {}
    for row, split in splits.items():
        if split is not None and split.note:
            remarks.setdefault(split.note, []).append(names.of(row))
    rows = []
    for row, split in splits.items():
        if split is None:
            continue
        rows.append(
            (
                Cell(names.of(row), names.of(row), tone=names.look(row).color),
                Cell(str(row)),
                *_deviation(analysis.spread(row, analysis.main)),
                *_deviation(split.configuration),
                *_deviation(split.training),
                EMPTY if split.share is None else Cell(percent(split.share, 0), split.share),
                plain(split.configurations),
                plain(split.trainings),
                Cell(split.note) if split.note else EMPTY,
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
        + "".join(f" {_who(rows, len(splits))}: {note}." for note, rows in remarks.items()),
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
        *_interval_columns("tau"),
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
            span = " to ".join(signed(end) for end in tau.interval)
        rows.append(
            (
                Cell(names.words.score(found.first), found.first),
                Cell(names.words.score(found.second), found.second),
                Cell(signed(tau.value), tau.value, span),
                *_ends(tau),
                Cell(found.among),
                Cell(tau.note) if tau.note else EMPTY,
            )
        )
    table = Table(
        "ranks",
        "Does a cheap score predict the order?",
        columns,
        tuple(rows),
        "Tau-b: 1 = the same order, 0 = unrelated. Among proposed networks, rows and draws are "
        "taken together, so that differences between methods count too; among candidates of one "
        "search, the mean over searches with a t interval over draws.",
    )
    return table.without_empty()
