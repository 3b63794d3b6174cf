"""How findings say what was compared: verdicts, numbers behind them, margins."""

from __future__ import annotations

from collections.abc import Sequence

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.stats import Comparison, Verdict
from randprune.report.estimates import difference_text, listed, p_text
from randprune.report.names import VERDICT_COLORS, Names

MOST_IN_DETAIL = 6
"""Rows whose numbers a sentence gives; of more it gives the names."""


def family_of(analysis: Analysis) -> tuple[Comparison[Row], ...]:
    return () if analysis.main is None else analysis.main.comparisons


def only_criteria(family: Sequence[Comparison[Row]], names: Names) -> list[Comparison[Row]]:
    """Rows that differ from the reference by their criterion only, but for the random control."""
    return [
        c for c in family if names.is_same_method(c.name) and not names.is_random_control(c.name)
    ]


def verdicts_text(family: Sequence[Comparison[Row]], names: Names, what: str) -> str:
    parts = []
    for verdict in ("better", "equivalent", "undecided", "worse"):
        group = [c for c in family if c.verdict == verdict]
        if not group:
            continue
        if len(family) <= MOST_IN_DETAIL:
            rows = [f"{names.of(c.name)} ({numbers_text(c)})" for c in group]
        else:
            rows = [names.of(c.name) for c in group]
        parts.append(f"{len(group)} {verdict}: {listed(rows)}")
    return f"Of {len(family)} {what}: {'; '.join(parts)}."


def numbers_text(comparison: Comparison[Row]) -> str:
    """The difference, its interval, and the p-value behind the verdict."""
    value, span = difference_text(comparison.difference)
    p = {
        "better": comparison.p_difference_holm,
        "worse": comparison.p_difference_holm,
        "equivalent": comparison.p_equivalence_holm,
        "undecided": None,
    }[comparison.verdict]
    test = "" if p is None else f", {p_text(p)}"
    return f"{value}, {span}{test}"


def numbered(number: str, question: str, names: Names) -> str:
    """The question under the number of the paper's finding, which are about trained networks."""
    return f"{number}: {question}" if names.ranked else question[:1].upper() + question[1:]


def margin_text(analysis: Analysis) -> str:
    return f"{100 * analysis.run.protocol.margin:g} points"


def rows_text(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def verdict_counts(comparisons: Sequence[Comparison[Row]]) -> dict[Verdict, int]:
    """How many comparisons came to each verdict, in the order better to worse."""
    return {verdict: sum(c.verdict == verdict for c in comparisons) for verdict in VERDICT_COLORS}
