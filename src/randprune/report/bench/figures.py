"""The figures of a benchmark. Each builder returns None where too little is recorded yet."""

from __future__ import annotations

from collections.abc import Sequence

from randprune.bench.analysis import Analysis, RowSummary
from randprune.bench.keys import Row
from randprune.bench.stats import Estimate
from randprune.report import figures as run_figures
from randprune.report.bench import tables
from randprune.report.bench.names import (
    VERDICT_COLORS,
    Names,
    accuracy_text,
    difference_text,
    epochs_text,
    p_text,
    spaced,
)
from randprune.report.chart import Axis, Chart, Line, Mark, Points, Rule, Zone
from randprune.report.format import points
from randprune.report.pools import Reference, best_of_chart, spread_chart
from randprune.store import DENSE, RANDOM_CHANNELS, SEARCH_TOP1, UNIFORM, Accuracy

_HEIGHT = 460
"""Of figures whose legend has a line per method on a phone."""

_MANY_DRAWS = 8
_CONTROLS = (UNIFORM, RANDOM_CHANNELS)
_VERDICT_SYMBOLS = {
    "better": ("triangle", False),
    "equivalent": ("circle", False),
    "undecided": ("circle", True),
    "worse": ("square", False),
}


def figures(analysis: Analysis, names: Names) -> tuple[Chart, ...]:
    """All figures that the records allow, in the order of the page."""
    builders = (
        forest,
        accuracy_macs,
        accuracy_compute,
        lengths,
        best_of,
        grown,
        spread,
        after,
        before,
    )
    charts = [build(analysis, names) for build in builders]
    charts.append(run_figures.ledger(analysis.run.ledger))
    return tuple(chart for chart in charts if chart is not None)


def forest(analysis: Analysis, names: Names) -> Chart | None:
    """Paired differences to the reference with their intervals and the margin."""
    if analysis.main is None:
        return None
    found = sorted(
        analysis.comparisons(analysis.main), key=lambda c: c.difference.value, reverse=True
    )
    if not found:
        return None
    margin = 100 * analysis.run.protocol.margin
    marks: list[Mark] = [
        Zone(f"equivalence margin ±{margin:g} points", -margin, margin, "searched")
    ]
    for verdict, color in VERDICT_COLORS.items():
        group = [c for c in found if c.verdict == verdict]
        if not group:
            continue
        symbol, hollow = _VERDICT_SYMBOLS[verdict]
        ends = [c.difference.interval or (c.difference.value,) * 2 for c in group]
        marks.append(
            Points(
                verdict,
                [100 * c.difference.value for c in group],
                [names.of(c.name) for c in group],
                color,
                symbol,
                10,
                hollow,
                low=[100 * low for low, _ in ends],
                high=[100 * high for _, high in ends],
                labels=[
                    f"{c.name}: {' ('.join(difference_text(c.difference))}), {c.units} draws, "
                    f"different: {p_text(c.p_difference_holm)}, "
                    f"equivalent: {p_text(c.p_equivalence_holm)} (Holm)"
                    for c in group
                ],
                horizontal=True,
            )
        )
    marks.append(Rule("no difference", 0.0, "dense", dashed=True))
    return Chart(
        "forest",
        f"Paired differences to {names.reference_name}",
        f"Difference of test accuracy {epochs_text(analysis.main)}, paired by draw, with "
        "95\u00a0% t intervals (each of one comparison). An interval within the shaded margin "
        "suggests equivalence; the verdicts are those of the tests with Holm's correction.",
        Axis("percentage points"),
        Axis("", kind="category", order=tuple(names.of(c.name) for c in found)),
        tuple(marks),
        tables.comparisons(analysis, names),
        wide=True,
        height=150 + 30 * len(found),
    )


def _cloud(
    summaries: Sequence[tuple[RowSummary, float, Estimate, str]],
    names: Names,
    legend: bool = True,
) -> list[Mark]:
    """One mark per kind of row from (row, x, accuracy, more words); the reference on top."""
    kinds: dict[str, list[tuple[RowSummary, float, Estimate, str]]] = {}
    for entry in summaries:
        kinds.setdefault(names.look(entry[0].row).legend, []).append(entry)
    marks: list[Mark] = []
    ordered = sorted(kinds.items(), key=lambda item: names.look(item[1][0][0].row).is_reference)
    for name, group in ordered:
        look = names.look(group[0][0].row)
        ends = [e.interval or (e.value, e.value) for _, _, e, _ in group]
        marks.append(
            Points(
                name,
                [x for _, x, _, _ in group],
                [e.value for _, _, e, _ in group],
                look.color,
                look.symbol,
                look.size,
                low=[low for low, _ in ends],
                high=[high for _, high in ends],
                labels=[
                    f"{names.of(s.row)}{more}: {' ('.join(filter(None, accuracy_text(e)))})"
                    if e.interval
                    else f"{names.of(s.row)}{more}: {accuracy_text(e)[0]}"
                    for s, _, e, more in group
                ],
                legend=legend,
            )
        )
    return marks


def accuracy_macs(analysis: Analysis, names: Names) -> Chart | None:
    """Test accuracy against the multiply-adds of the networks."""
    if analysis.main is None:
        return None
    entries = [
        (s, s.macs, s.accuracy, "")
        for s in analysis.summaries(analysis.main)
        if s.macs is not None and s.accuracy is not None
    ]
    if len(entries) < 2:
        return None
    marks = _cloud(entries, names)
    dense = analysis.run.dense
    if dense.test is not None:
        low, high = dense.test.interval()
        marks.append(
            Points(
                "dense network",
                [dense.macs],
                [dense.test.share],
                DENSE,
                "square",
                10,
                low=[low],
                high=[high],
                labels=["dense network, as given"],
            )
        )
    highest = max([x for _, x, _, _ in entries] + ([dense.macs] if dense.test else []))
    return Chart(
        "accuracy-macs",
        "Test accuracy against MACs",
        f"Mean test accuracy {epochs_text(analysis.main)} over the multiply-adds of the networks. "
        "Bars are 95\u00a0% t intervals over draws"
        f"{'' if names.dense else ' (for the dense network: over images)'}.",
        Axis("MACs per image", span=(0.0, 1.06 * highest), large=True),
        Axis("test accuracy", percent=True),
        tuple(marks),
        tables.leaderboard(analysis, names),
        wide=True,
        height=_HEIGHT,
    )


def accuracy_compute(analysis: Analysis, names: Names) -> Chart | None:
    """Test accuracy against all the compute that it took, one point a length of training."""
    marks: list[Mark] = []
    curves: dict[Row, list[tuple[float, Estimate]]] = {}
    for epochs in analysis.trained:
        entries = []
        for summary in analysis.summaries(epochs):
            if summary.accuracy is not None and summary.spent.macs > 0:
                entries.append(
                    (summary, summary.spent.macs, summary.accuracy, f", {epochs_text(epochs)}")
                )
                curves.setdefault(summary.row, []).append((summary.spent.macs, summary.accuracy))
        marks += _cloud(entries, names, legend=epochs == analysis.main)
    if sum(len(points) for points in curves.values()) < 2:
        return None
    lines: list[Mark] = [
        Line(
            names.of(row),
            [x for x, _ in curve],
            [e.value for _, e in curve],
            names.look(row).color,
            width=1.2,
            legend=False,
        )
        for row, curve in curves.items()
        if len(curve) > 1
    ]
    several = f", one point a {names.words.training} length" if lines else ""
    return Chart(
        "accuracy-compute",
        "Test accuracy against total compute",
        f"Mean test accuracy over all multiply-adds that a result took: {names.words.spent}"
        f"{several}. Bars are 95\u00a0% t intervals over draws.",
        Axis("MACs spent in all", kind="log", large=True),
        Axis("test accuracy", percent=True),
        (*lines, *marks),
        tables.equal_compute(analysis, names),
        wide=True,
        height=_HEIGHT,
    )


def lengths(analysis: Analysis, names: Names) -> Chart | None:
    """Test accuracy against the length of training, row by row."""
    trained = analysis.trained
    if len(trained) < 2:
        return None
    marks: list[Mark] = []
    shown: set[str] = set()
    rows = sorted(analysis.run.protocol.rows, key=lambda row: names.look(row).is_reference)
    for row in rows:
        look = names.look(row)
        known = [
            (epochs, estimate)
            for epochs in trained
            if (estimate := analysis.mean_of(analysis.results(row, epochs))) is not None
        ]
        if not known:
            continue
        marks.append(
            Line(
                look.legend,
                [epochs for epochs, _ in known],
                [e.value for _, e in known],
                look.color,
                markers=True,
                width=3 if look.is_reference else 1.6,
                labels=[f"{names.of(row)}: {accuracy_text(e)[0]}" for _, e in known],
                legend=look.legend not in shown,
            )
        )
        shown.add(look.legend)
        if look.is_reference:
            sure = [(x, e.value, e.interval) for x, e in known if e.interval is not None]
            marks.append(
                Points(
                    look.legend,
                    [x for x, _, _ in sure],
                    [value for _, value, _ in sure],
                    look.color,
                    size=7,
                    low=[interval[0] for _, _, interval in sure],
                    high=[interval[1] for _, _, interval in sure],
                    legend=False,
                )
            )
    first, last = trained[0], trained[-1]
    gain = analysis.gain(names.reference, first, last)
    brought = ""
    if gain is not None:
        brought = (
            f" {names.of(names.reference)}: {points(gain.value, 2)} from {first} to {last} epochs."
        )
    return Chart(
        "lengths",
        f"{names.words.heading} length",
        "Mean test accuracy after the last epoch of separate trainings of different lengths."
        f"{brought} Bars: 95\u00a0% t intervals of the reference.",
        Axis(f"epochs of {names.words.training}", whole=True),
        Axis("test accuracy", percent=True),
        tuple(marks),
        tables.by_length(analysis, names),
        wide=True,
        height=_HEIGHT,
    )


def best_of(analysis: Analysis, names: Names) -> Chart | None:
    """Expected search accuracy of the best of n candidates, before training."""
    for row in analysis.largest_pools[:1]:
        chart = best_of_chart(analysis.pool(row), _references(analysis, names))
        if chart is not None:
            return chart
    return None


def spread(analysis: Analysis, names: Names) -> Chart | None:
    """Histogram of random configurations on the search images, before training."""
    for row in analysis.largest_pools[:1]:
        labels = [
            f"draw {proposal.draw}, candidate {c.index}"
            for proposal in analysis.run.proposals
            if proposal.row == row
            for c in analysis.run.candidates.get(proposal.key, ())
            if SEARCH_TOP1 in c.scores
        ]
        images = f"on the search images, {names.words.untrained}"
        pool = analysis.pool(row)
        return spread_chart(pool, labels, _references(analysis, names), images=images)
    return None


def after(analysis: Analysis, names: Names) -> Chart | None:
    """Histogram of the reference's test accuracy over many draws."""
    if analysis.main is None:
        return None
    accuracies = analysis.by_draw(names.reference, analysis.main)
    if len(accuracies) < _MANY_DRAWS:
        return None
    controls = [row for row in analysis.run.protocol.rows if names.look(row).color in _CONTROLS]
    means = {row: analysis.mean_of(analysis.results(row, analysis.main)) for row in controls}
    return spread_chart(
        list(accuracies.values()),
        [f"draw {draw}" for draw in accuracies],
        [
            (names.of(row), names.look(row).color, mean.value)
            for row, mean in means.items()
            if mean is not None
        ],
        id="spread-test",
        title=f"Spread of {names.reference_name} over draws",
        axis="test accuracy",
        images=f"on the test images, {epochs_text(analysis.main)}",
    )


def _references(analysis: Analysis, names: Names) -> list[Reference]:
    """Search accuracy of the methods that looked at one configuration, mean over draws."""
    found: list[Reference] = []
    for row in analysis.run.protocol.rows:
        look = names.look(row)
        single = [p for p in analysis.run.proposals if p.row == row and p.search is not None]
        if look.color in _CONTROLS and single:
            mean = sum(p.search.share for p in single if p.search) / len(single)
            if all(name != names.of(row) for name, _, _ in found):
                found.append((names.of(row), look.color, mean))
    return found


def grown(analysis: Analysis, names: Names) -> Chart | None:
    """Test accuracy after training against the number of candidates compared."""
    if analysis.main is None:
        return None
    methods = {info.label: info.method for info in analysis.run.protocol.methods}
    curves: dict[tuple[str, str], list[RowSummary]] = {}
    for summary in analysis.summaries(analysis.main):
        if summary.accuracy is not None and summary.candidates >= 1:
            method = methods.get(summary.row.label, summary.row.label)
            kind = summary.row.criterion if names.ranked else spaced(method)
            curves.setdefault((method, kind), []).append(summary)
    marks: list[Mark] = []
    for (_, kind), rows in curves.items():
        if len({round(s.candidates) for s in rows}) < 2:
            continue
        ordered = sorted(rows, key=lambda s: s.candidates)
        means = [s.accuracy for s in ordered if s.accuracy is not None]
        ends = [e.interval or (e.value, e.value) for e in means]
        color = f"series_{len(marks) // 2 % 6 + 1}" if marks else "searched"
        marks.append(
            Line(
                kind,
                [s.candidates for s in ordered],
                [e.value for e in means],
                color,
                legend=False,
            )
        )
        marks.append(
            Points(
                kind,
                [s.candidates for s in ordered],
                [e.value for e in means],
                color,
                low=[low for low, _ in ends],
                high=[high for _, high in ends],
                labels=[names.of(s.row) for s in ordered],
            )
        )
    if not marks:
        return None
    return Chart(
        "candidates-accuracy",
        f"What more candidates bring after {names.words.training}",
        f"Mean test accuracy {epochs_text(analysis.main)} of the best of n candidates, chosen on "
        "the search images. Bars are 95\u00a0% t intervals over draws.",
        Axis("n, candidates compared", kind="log", whole=True),
        Axis("test accuracy", percent=True),
        tuple(marks),
    )


def before(analysis: Analysis, names: Names) -> Chart | None:
    """Test accuracy after training against accuracy before it, one point a draw of a row."""
    if not analysis.main:
        return None
    kinds: dict[str, list[tuple[float, float, str]]] = {}
    rows: dict[str, Row] = {}
    for row in analysis.run.protocol.rows:
        look = names.look(row)
        rows[look.legend] = row
        for result in analysis.results(row, analysis.main):
            known: Accuracy | None = getattr(result, analysis.before)
            if result.test is not None and known is not None:
                label = f"{names.of(row)}, draw {result.draw}, training {result.training}"
                entry = (known.share, result.test.share, label)
                kinds.setdefault(look.legend, []).append(entry)
    if sum(len(entries) for entries in kinds.values()) < 3:
        return None
    return Chart(
        "before-after",
        names.words.before_after,
        f"Test accuracy {epochs_text(analysis.main)} over the {names.words.before_axis} of the "
        "same network: one point per result.",
        Axis(names.words.before_axis, percent=True),
        Axis("test accuracy after training", percent=True),
        tuple(
            Points(
                name,
                [x for x, _, _ in entries],
                [y for _, y, _ in entries],
                names.look(rows[name]).color,
                names.look(rows[name]).symbol,
                0.8 * names.look(rows[name]).size,
                labels=[label for _, _, label in entries],
            )
            for name, entries in kinds.items()
        ),
        tables.ranks(analysis, names),
        wide=True,
        height=_HEIGHT,
    )
