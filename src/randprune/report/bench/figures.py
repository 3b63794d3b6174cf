"""The figures of a benchmark. Each builder returns None where too little is recorded yet."""

from __future__ import annotations

from collections.abc import Sequence

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.stats import Estimate
from randprune.bench.summaries import RowSummary
from randprune.report.chart import Axis, Chart, Line, Mark, Points, Rule, Zone
from randprune.report.estimates import accuracy_text, difference_text, epochs_text, p_text
from randprune.report.format import points
from randprune.report.names import VERDICT_COLORS, Names, spaced
from randprune.report.pools import Reference, best_of_chart, spread_chart
from randprune.report.table import Table
from randprune.store import DENSE, RANDOM_CHANNELS, UNIFORM, Accuracy

_HEIGHT = 460
"""Of figures whose legend has a line per method on a phone."""

_POOL = "random configurations"
_MANY_DRAWS = 8
_CONTROLS = (UNIFORM, RANDOM_CHANNELS)
_VERDICT_SYMBOLS = {
    "better": ("triangle", False),
    "equivalent": ("circle", False),
    "undecided": ("circle", True),
    "worse": ("square", False),
}


def forest(analysis: Analysis, names: Names, data: Table | None) -> Chart | None:
    """Paired differences to the reference with their intervals and the margin."""
    if analysis.main is None:
        return None
    found = sorted(analysis.main.comparisons, key=lambda c: -c.difference.value)
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
        f"Difference of test accuracy {epochs_text(analysis.main.epochs)}, paired by draw, with "
        "95\u00a0% t intervals (each of one comparison). An interval within the shaded margin "
        "suggests equivalence; the verdicts are those of the tests with Holm's correction.",
        Axis("percentage points"),
        Axis("", kind="category", order=tuple(names.of(c.name) for c in found)),
        tuple(marks),
        data,
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


def accuracy_macs(analysis: Analysis, names: Names, data: Table | None) -> Chart | None:
    """Test accuracy against the multiply-adds of the networks."""
    if analysis.main is None:
        return None
    entries = [
        (s, s.macs, s.accuracy, "")
        for s in analysis.main.rows
        if s.macs is not None and s.accuracy is not None
    ]
    if len(entries) < 2:
        return None
    marks = _cloud(entries, names)
    dense = analysis.run.dense
    if dense.test is not None and analysis.dense_interval is not None:
        low, high = analysis.dense_interval
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
        f"Mean test accuracy {epochs_text(analysis.main.epochs)} over the multiply-adds of the "
        "networks. Bars are 95\u00a0% t intervals over draws"
        f"{'' if names.dense else ' (for the dense network: over images)'}.",
        Axis("MACs per image", span=(0.0, 1.06 * highest), large=True),
        Axis("test accuracy", percent=True),
        tuple(marks),
        data,
        wide=True,
        height=_HEIGHT,
    )


def accuracy_compute(analysis: Analysis, names: Names, data: Table | None) -> Chart | None:
    """Test accuracy against all the compute that it took, one point a length of training."""
    marks: list[Mark] = []
    curves: dict[Row, list[tuple[float, Estimate]]] = {}
    for epochs in analysis.trained:
        entries = []
        for summary in analysis.at[epochs].rows:
            if summary.accuracy is not None and summary.spent.macs > 0:
                entries.append(
                    (summary, summary.spent.macs, summary.accuracy, f", {epochs_text(epochs)}")
                )
                curves.setdefault(summary.row, []).append((summary.spent.macs, summary.accuracy))
        marks += _cloud(entries, names, legend=analysis.at[epochs] is analysis.main)
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
        data,
        wide=True,
        height=_HEIGHT,
    )


def lengths(analysis: Analysis, names: Names, data: Table | None) -> Chart | None:
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
            if (estimate := analysis.at[epochs].of(row).accuracy) is not None
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
    gain = analysis.gains.get(names.reference)
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
        data,
        wide=True,
        height=_HEIGHT,
    )


def best_of(analysis: Analysis, references: Sequence[Reference]) -> Chart | None:
    """Expected search accuracy of the best of n candidates, before training."""
    pool = analysis.pool
    if pool is None:
        return None
    return best_of_chart(pool.values, pool.curve, references)


def spread(analysis: Analysis, names: Names, references: Sequence[Reference]) -> Chart | None:
    """Histogram of random configurations on the search images, before training."""
    pool = analysis.pool
    if pool is None:
        return None
    images = f"on the search images, {names.words.untrained}"
    return spread_chart(pool.values, pool.labels, references, pool=_POOL, images=images)


def after(analysis: Analysis, names: Names) -> Chart | None:
    """Histogram of the reference's test accuracy over many draws."""
    if analysis.main is None:
        return None
    accuracies = analysis.main.of(names.reference).by_draw
    if len(accuracies) < _MANY_DRAWS:
        return None
    controls = [s for s in analysis.main.rows if names.look(s.row).color in _CONTROLS]
    return spread_chart(
        list(accuracies.values()),
        [f"draw {draw}" for draw in accuracies],
        [
            Reference(names.of(s.row), names.look(s.row).color, s.accuracy.value)
            for s in controls
            if s.accuracy is not None
        ],
        id="spread-test",
        title=f"Spread of {names.reference_name} over draws",
        pool=_POOL,
        axis="test accuracy",
        images=f"on the test images, {epochs_text(analysis.main.epochs)}",
    )


def references_of(analysis: Analysis, names: Names) -> tuple[Reference, ...]:
    """Search accuracy of the methods that looked at one configuration, mean over draws."""
    found: dict[str, Reference] = {}
    for row in analysis.run.protocol.rows:
        color = names.look(row).color
        shares = [p.search.share for p in analysis.run.proposals if p.row == row and p.search]
        if color in _CONTROLS and shares:
            reference = Reference(names.of(row), color, sum(shares) / len(shares))
            found.setdefault(reference.name, reference)
    return tuple(found.values())


def grown(analysis: Analysis, names: Names) -> Chart | None:
    """Test accuracy after training against the number of candidates compared."""
    if analysis.main is None:
        return None
    curves: dict[tuple[str, str], list[RowSummary]] = {}
    for summary in analysis.main.rows:
        if summary.accuracy is not None and summary.candidates >= 1:
            method = analysis.method(summary.row)
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
        f"Mean test accuracy {epochs_text(analysis.main.epochs)} of the best of n candidates, "
        "chosen on the search images. Bars are 95\u00a0% t intervals over draws.",
        Axis("n, candidates compared", kind="log", whole=True),
        Axis("test accuracy", percent=True),
        tuple(marks),
    )


def before(analysis: Analysis, names: Names, data: Table | None) -> Chart | None:
    """Test accuracy after training against accuracy before it, one point a draw of a row."""
    if analysis.main is None or not analysis.main.epochs:
        return None
    kinds: dict[str, list[tuple[float, float, str]]] = {}
    rows: dict[str, Row] = {}
    for row in analysis.run.protocol.rows:
        look = names.look(row)
        rows[look.legend] = row
        for result in analysis.main.of(row).results:
            # From scratch there is nothing to test before training but the shared weights.
            known: Accuracy | None = result.test_before if names.ranked else result.search
            if result.test is not None and known is not None:
                label = f"{names.of(row)}, draw {result.draw}, training {result.training}"
                entry = (known.share, result.test.share, label)
                kinds.setdefault(look.legend, []).append(entry)
    if sum(len(entries) for entries in kinds.values()) < 3:
        return None
    return Chart(
        "before-after",
        names.words.before_after,
        f"Test accuracy {epochs_text(analysis.main.epochs)} over the {names.words.before_axis} of "
        "the same network: one point per result.",
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
        data,
        wide=True,
        height=_HEIGHT,
    )
