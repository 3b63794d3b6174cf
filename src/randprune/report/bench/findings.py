"""What the data say, in sentences made from the statistics: about F1, F2, F4, and the pool.

Nothing here knows a result beforehand: a sentence is made from verdicts and intervals, and says
"undecided" where neither a difference nor equivalence was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from randprune.bench.analysis import Analysis
from randprune.bench.keys import RANDOM_CRITERION, Row
from randprune.bench.stats import (
    Comparison,
    Estimate,
    best_of_n,
    kendall_tau,
    largest_difference,
)
from randprune.report.bench.names import (
    Names,
    difference_text,
    epochs_text,
    magnitude,
    p_text,
    signed,
    span_of_points,
    verdict_counts,
)
from randprune.report.format import number, percent, points

_MOST_IN_DETAIL = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """A question, and what the run says about it."""

    question: str
    answer: str


def findings(analysis: Analysis, names: Names) -> tuple[Finding, ...]:
    """All that the run can speak about, in the order of the paper's findings."""
    makers = (worth, criteria, methods, published, length, candidates, spread, proxies, chance)
    found = (make(analysis, names) for make in makers)
    return tuple(finding for finding in found if finding is not None)


def headline(analysis: Analysis, names: Names) -> str:
    """The result in one sentence, or how far the run has come."""
    run, epochs = analysis.run, analysis.main
    title = run.protocol.title
    if epochs is None:
        planned = len(run.protocol.rows) * len(run.protocol.draw_seeds)
        return f"{title}: {len(run.proposals)} of {planned} networks proposed, nothing tested yet"
    family = analysis.comparisons(epochs)
    reference = names.reference_name
    if not family:
        return f"{title}: the reference {reference} has no results yet, so nothing is compared"
    counts = verdict_counts(family)
    margin = _margin(analysis)
    when = epochs_text(epochs)
    if counts["equivalent"] == len(family):
        return (
            f"No clear winner: {len(family)} of {_rows(len(family))} equivalent to {reference} "
            f"within {margin} {when}"
        )
    if not counts["better"] and not counts["worse"] and not counts["equivalent"]:
        return (
            f"Undecided {when}: none of {_rows(len(family))} could be told from {reference}, or "
            f"shown to be equivalent to it within {margin}"
        )
    said = _listed(
        [
            f"{count} {'is' if count == 1 else 'are'} {verdict}"
            for verdict, count in counts.items()
            if count
        ]
    )
    opening = "No row beats" if not counts["better"] else "Compared with"
    joint = ": of" if not counts["better"] else ", of"
    return f"{opening} {reference} {when}{joint} {_rows(len(family))} {said} (margin {margin})"


# -- the paper's findings ----------------------------------------------------------------------


def criteria(analysis: Analysis, names: Names) -> Finding | None:
    """F1: criteria under the same random configurations."""
    family = _criteria(_family(analysis), names)
    if not family or analysis.main is None:
        return None
    reference = names.of(names.reference)
    answer = _verdicts(
        family,
        names,
        f"other {'criterion' if len(family) == 1 else 'criteria'} under the same draws, against "
        f"{reference}",
    )
    most = largest_difference(family)
    if most is not None:
        answer += (
            f" Jointly, with 95\u00a0% confidence, none of them differs from {reference} by more "
            f"than {magnitude(most)} {epochs_text(analysis.main)}"
            f" (two one-sided tests, margin {_margin(analysis)})."
        )
    answer += " " + _clear_winner(family, names)
    control = next((c for c in _family(analysis) if _is_control(c, names)), None)
    if control is not None:
        answer += (
            f" Control: ranking channels at random is {control.verdict} ({_numbers(control)})."
        )
    return Finding("F1: does the criterion matter under random configurations?", answer)


def _clear_winner(family: Sequence[Comparison[Row]], names: Names) -> str:
    winners = [names.of(c.name) for c in family if c.verdict == "better"]
    losers = [names.of(c.name) for c in family if c.verdict == "worse"]
    if winners:
        return f"That contradicts \u201cno clear winner\u201d: {_listed(winners)} came out ahead."
    if losers:
        return f"No criterion is ahead, but {_listed(losers)} fell behind."
    if all(c.verdict == "equivalent" for c in family):
        return "There is no clear winner, and that is shown, not just not refuted."
    return (
        "No winner was found; for the undecided ones that is absence of evidence, and more draws "
        "would be needed to call them equivalent."
    )


def worth(analysis: Analysis, names: Names) -> Finding | None:
    """From scratch: what the search brings, and what it costs."""
    family = _family(analysis)
    if names.ranked or not family or analysis.main is None:
        return None
    reference = names.reference_name
    answer = _verdicts(
        family, names, f"other {'row' if len(family) == 1 else 'rows'}, against {reference}"
    )
    spent = {s.row: s.spent.macs for s in analysis.summaries(analysis.main) if s.results}
    cheapest = min(spent[c.name] for c in family)
    if cheapest:
        least = next(names.of(c.name) for c in family if spent[c.name] == cheapest)
        answer += (
            f" A result of {reference} takes {spent[names.reference] / cheapest:.1f} times the "
            f"compute of one of {least}, shared weights and search included."
        )
    answer += _at_equal_compute(analysis, names)
    dense_rows = [names.dense] if names.dense else []
    for dense in analysis.comparisons(analysis.main, dense_rows):
        value, span = difference_text(dense.difference)
        answer += (
            f" The dense network, trained in the same way, lies {value} from {reference} ({span})."
        )
    return Finding("Is the search over widths worth its cost?", answer)


def _at_equal_compute(analysis: Analysis, names: Names) -> str:
    """What rows reach for the compute of the reference's shortest training, longer ones theirs."""
    epochs, macs = min(analysis.compute_levels.items())
    if epochs == analysis.main:
        return ""
    found = {row: analysis.at_compute(row, macs) for row in analysis.run.protocol.compared}
    means = sorted(
        ((e.value, names.of(row)) for row, e in found.items() if e is not None), reverse=True
    )
    said = _listed([f"{name} {percent(mean, 2)}" for mean, name in means])
    return (
        f" With the compute that {names.reference_name} takes in all {epochs_text(epochs)}, every "
        f"row in its longest training within it: {said}."
    )


def methods(analysis: Analysis, names: Names) -> Finding | None:
    """F2: other methods against the random search."""
    if not names.ranked:
        return None
    own = analysis.method(names.reference)
    family = [c for c in _family(analysis) if analysis.method(c.name) != own]
    if not family:
        return None
    reference = names.reference_name
    answer = _verdicts(
        family, names, f"other {'row' if len(family) == 1 else 'rows'}, against {reference}"
    )
    return Finding(f"F2: how does {reference} compare with the other methods?", answer)


def published(analysis: Analysis, names: Names) -> Finding | None:
    """F2: published numbers beside."""
    others = analysis.published
    if not others or analysis.main is None:
        return None
    mean = analysis.mean_of(analysis.results(names.reference, analysis.main))
    if mean is None:
        return None
    below = [p for p in others if p.top1 <= mean.value]
    span = "" if mean.interval is None else f" ({_percent_span(mean.interval)})"
    ratio = analysis.run.budget.ratio
    return Finding(
        _numbered("F2", "and beside published numbers?", names),
        f"{names.reference_name} reaches {percent(mean.value, 2)}{span} "
        f"{epochs_text(analysis.main)} with {percent(ratio, 0)} of the "
        f"{'MACs' if analysis.run.budget.metric == 'macs' else analysis.run.budget.metric}. "
        f"Of {len(others)} published results for {analysis.run.model.title} on {others[0].data}, "
        f"{len(below)} are not higher; they lie between {percent(others[-1].top1, 2)} and "
        f"{percent(others[0].top1, 2)}. Base networks, budgets and training lengths differ: "
        "this is context and no test.",
    )


def length(analysis: Analysis, names: Names) -> Finding | None:
    """F4: fine-tuning length."""
    trained = analysis.trained
    if len(trained) < 2:
        return None
    first, last = trained[0], trained[-1]
    gain = analysis.gain(names.reference, first, last)
    if gain is None:
        return None
    reference = names.reference_name
    answer = (
        f"From {first} to {last} epochs {reference} gains {points(gain.value, 2)} "
        f"(95\u00a0% interval {span_of_points(gain)}). "
    )
    tests = {epochs: analysis.comparisons(epochs) for epochs in (first, last)}
    several = any(_criteria(found, names) for found in tests.values())
    spreads = []
    for found in tests.values():
        means = [c.difference.value for c in (_criteria(found, names) if several else found)]
        spreads.append(max([0.0, *means]) - min([0.0, *means]))
    if any(tests.values()):
        widest, what = max(spreads), "criterion" if several else "method"
        answer += (
            f"{'Criteria' if several else 'Methods'} at one length lie at most "
            f"{magnitude(widest)} apart, so that the length changes results "
            f"{'more' if abs(gain.value) > widest else 'less'} than the {what}. "
        )
    before, after = (
        {s.row: s.accuracy.value for s in analysis.summaries(e) if s.accuracy}
        for e in (first, last)
    )
    rows = [row for row in before if row in after]
    tau = kendall_tau([before[r] for r in rows], [after[r] for r in rows])
    if tau is not None:
        span = "" if tau.interval is None else f", 95\u00a0% interval {_tau_span(tau.interval)}"
        answer += (
            f"The order of the {len(rows)} rows at {first} and at {last} epochs agrees with "
            f"Kendall's tau {signed(tau.value)}{span}."
        )
    verdicts = {c.name: c.verdict for c in tests[first]}
    changed = [
        f"{names.of(c.name)} ({verdicts[c.name]}, then {c.verdict})"
        for c in tests[last]
        if c.name in verdicts and c.verdict != verdicts[c.name]
    ]
    if changed:
        answer += f" The verdict changes with the length for {_listed(changed)}."
    question = f"how much does the {names.words.training} length matter?"
    return Finding(_numbered("F4", question, names), answer.strip())


# -- the pool, the proxies, chance -------------------------------------------------------------


def candidates(analysis: Analysis, names: Names) -> Finding | None:
    """The N-curve."""
    row = next(iter(analysis.largest_pools), None)
    if row is None:
        return None
    pool = analysis.pool(row)
    total = len(pool)
    few = max(1, min(10, total // 4))
    curve = best_of_n(pool, [1, few, total])
    answer = (
        f"On the search images and {names.words.untrained}, the best of {few} candidates of "
        f"{names.of(row)} is expected {magnitude(float(curve.mean[1] - curve.mean[0]))} above a "
        f"single one, and the best of all {number(total)} another "
        f"{magnitude(float(curve.mean[2] - curve.mean[1]))} above that"
    )
    if np.isfinite(curve.mean_low[1]):
        answer += (
            f" (expected best of {few}: {percent(float(curve.mean[1]))}, 95\u00a0% interval "
            f"{_percent_span((float(curve.mean_low[1]), float(curve.mean_high[1])))})"
        )
    return Finding(
        "How many candidates are enough?", f"{answer}.{_after_training(analysis, names)}"
    )


def _after_training(analysis: Analysis, names: Names) -> str:
    """What more candidates bring after training, where rows differ by nothing else."""
    if not analysis.main:
        return ""
    criterion = names.reference.criterion
    counts = {s.row: s.candidates for s in analysis.summaries(analysis.main)}
    own, reference = analysis.method(names.reference), names.reference
    found = sorted(
        (
            c
            for c in _family(analysis)
            if analysis.method(c.name) == own
            and c.name.criterion == criterion
            and counts[c.name] != counts[reference]
        ),
        key=lambda c: counts[c.name],
    )
    said = [f"{number(counts[c.name])}: {c.verdict} ({_numbers(c)})" for c in found]
    return (
        f" After training ({epochs_text(analysis.main)}), against {number(counts[reference])} "
        f"{'candidate' if counts[reference] == 1 else 'candidates'}: {'; '.join(said)}."
        if said
        else ""
    )


def spread(analysis: Analysis, names: Names) -> Finding | None:
    """The spread of random sub-networks."""
    row = next(iter(analysis.largest_pools), None)
    if row is None:
        return None
    pool = np.asarray(analysis.pool(row))
    low, middle, high = np.quantile(pool, [0.1, 0.5, 0.9])
    untrained = names.words.untrained
    near = int((pool >= pool.max() - 0.01).sum())
    return Finding(
        "How much do random sub-networks differ?",
        f"{untrained[:1].upper()}{untrained[1:]}, {number(pool.size)} random configurations of "
        f"{names.of(row)} have a median of {percent(float(middle))}; the middle 80\u00a0% lie "
        f"between {percent(float(low))} and {percent(float(high))}, and {number(near)} of them, "
        "the best included, within 1 point of the best.",
    )


def proxies(analysis: Analysis, names: Names) -> Finding | None:
    """Which score before training orders networks as the test after it does."""
    found = [a for a in analysis.agreements if a.second == "test_after" and a.estimate is not None]
    if not found:
        return None
    said = []
    for agreement in found:
        tau = agreement.estimate
        assert tau is not None
        span = f" ({_tau_span(tau.interval)})" if tau.interval else ""
        said.append(f"{names.words.score(agreement.first)} {signed(tau.value)}{span}")
    return Finding(
        names.words.predicts,
        f"Kendall's tau with the test accuracy after training, over {found[0].among}: "
        f"{_listed(said)}; in brackets 95\u00a0% intervals.",
    )


def chance(analysis: Analysis, names: Names) -> Finding | None:
    """Variance of the draw of configurations and of training."""
    if analysis.main is None:
        return None
    split = analysis.variance(names.reference, analysis.main)
    if split is None:
        return None
    reference = names.of(names.reference)
    parts = []
    for name, part in (
        ("drawing another configuration", split.configuration),
        ("training the same network again", split.training),
    ):
        if part is not None:
            parts.append(f"{name} {_deviation(part)}")
    answer = (
        f"Standard deviation of {reference} {epochs_text(analysis.main)}, in points: "
        f"{_listed(parts)}."
        if parts
        else ""
    )
    note = f"{split.note[:1].upper()}{split.note[1:]}." if split.note else ""
    said = (answer, note, _together(analysis, names) if not parts else "")
    return Finding("How much is chance?", " ".join(filter(None, said)))


def _together(analysis: Analysis, names: Names) -> str:
    """Both kinds of chance at once, and training alone where a row has one configuration."""
    assert analysis.main is not None
    both = analysis.spread(names.reference, analysis.main)
    if both is None or both.count < 2:
        return ""
    said = f"Together they have a standard deviation of {_deviation(both)} points"
    for row in analysis.run.protocol.rows:
        split = analysis.variance(row, analysis.main)
        if split is not None and split.configurations == 1 and split.training is not None:
            alone = _deviation(split.training)
            name = names.of(row)
            said += f"; {name}, the same network at every draw, has {alone} from training alone"
            break
    return f"{said}."


def _deviation(variance: Estimate) -> str:
    text = f"{100 * variance.value**0.5:.2f}"
    if variance.interval is None:
        return text
    low, high = (100 * end**0.5 for end in variance.interval)
    return f"{text} (95\u00a0% interval {low:.2f} to {high:.2f})"


# -- words -------------------------------------------------------------------------------------


def _family(analysis: Analysis) -> tuple[Comparison[Row], ...]:
    return () if analysis.main is None else analysis.comparisons(analysis.main)


def _same_method(comparison: Comparison[Row], names: Names) -> bool:
    return comparison.name.label == names.reference.label


def _criteria(family: Sequence[Comparison[Row]], names: Names) -> list[Comparison[Row]]:
    """Rows that differ from the reference by their criterion only, but for the random control."""
    return [c for c in family if _same_method(c, names) and not _is_control(c, names)]


def _is_control(comparison: Comparison[Row], names: Names) -> bool:
    return _same_method(comparison, names) and comparison.name.criterion == RANDOM_CRITERION


def _verdicts(family: Sequence[Comparison[Row]], names: Names, what: str) -> str:
    parts = []
    for verdict in ("better", "equivalent", "undecided", "worse"):
        group = [c for c in family if c.verdict == verdict]
        if not group:
            continue
        if len(family) <= _MOST_IN_DETAIL:
            rows = [f"{names.of(c.name)} ({_numbers(c)})" for c in group]
        else:
            rows = [names.of(c.name) for c in group]
        parts.append(f"{len(group)} {verdict}: {_listed(rows)}")
    return f"Of {len(family)} {what}: {'; '.join(parts)}."


def _numbers(comparison: Comparison[Row]) -> str:
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


def _numbered(number: str, question: str, names: Names) -> str:
    """The question under the number of the paper's finding, which are about trained networks."""
    return f"{number}: {question}" if names.ranked else question[:1].upper() + question[1:]


def _margin(analysis: Analysis) -> str:
    return f"{100 * analysis.run.protocol.margin:g} points"


def _percent_span(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.2f} to {percent(interval[1], 2)}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _tau_span(interval: tuple[float, float]) -> str:
    return " to ".join(signed(end) for end in interval)


def _listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
