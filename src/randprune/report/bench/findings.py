"""What the data say, in sentences made from the statistics: about F1, F2, F4, and the pool.

Nothing here knows a result beforehand: a sentence is made from verdicts and intervals, and says
"undecided" where neither a difference nor equivalence was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.stats import (
    Comparison,
    Estimate,
    detectable_difference,
    largest_difference,
)
from randprune.bench.summaries import Length
from randprune.report.bench.wording import (
    family_of,
    margin_text,
    numbered,
    numbers_text,
    only_criteria,
    rows_text,
    verdict_counts,
    verdicts_text,
)
from randprune.report.estimates import (
    deviation,
    difference_text,
    epochs_text,
    listed,
    magnitude,
    percent_span,
    signed,
    span_of_points,
    tau_span,
)
from randprune.report.format import number, percent, points
from randprune.report.names import VERDICT_COLORS, Names


@dataclass(frozen=True, slots=True)
class Finding:
    """A question, and what the run says about it."""

    question: str
    answer: str


def findings(analysis: Analysis, names: Names) -> tuple[Finding, ...]:
    """All that the run can speak about, in the order of the paper's findings."""
    makers = (
        same,
        worth,
        criteria,
        methods,
        published,
        length,
        candidates,
        spread,
        proxies,
        chance,
    )
    found = (make(analysis, names) for make in makers)
    return tuple(finding for finding in found if finding is not None)


def headline(analysis: Analysis, names: Names) -> str:
    """The result in one sentence, or how far the run has come."""
    run = analysis.run
    title = run.protocol.title
    if analysis.main is None:
        planned = len(run.protocol.rows) * len(run.protocol.draw_seeds)
        return f"{title}: {len(run.proposals)} of {planned} networks proposed, nothing tested yet"
    family = analysis.main.comparisons
    reference = names.reference_name
    if not family:
        return f"{title}: the reference {reference} has no results yet, so nothing is compared"
    counts = verdict_counts(family)
    margin = margin_text(analysis)
    when = epochs_text(analysis.main.epochs)
    if counts["equivalent"] == len(family):
        return (
            f"No clear winner: {len(family)} of {rows_text(len(family))} equivalent to {reference} "
            f"within {margin} {when}"
        )
    if not counts["better"] and not counts["worse"] and not counts["equivalent"]:
        return (
            f"Undecided {when}: none of {rows_text(len(family))} could be told from {reference}, "
            f"or shown to be equivalent to it within {margin}"
        )
    said = listed(
        [
            f"{count} {'is' if count == 1 else 'are'} {verdict}"
            for verdict, count in counts.items()
            if count
        ]
    )
    opening, joint = "Compared with", ", of"
    if not counts["better"]:
        # While rows are undecided, one of them may well be better.
        opening = "No row was shown to beat" if counts["undecided"] else "No row beats"
        joint = ": of"
    return f"{opening} {reference} {when}{joint} {rows_text(len(family))} {said} (margin {margin})"


def same(analysis: Analysis, names: Names) -> Finding | None:
    """A/A: rows that are one method under several names."""
    check = analysis.same
    if check is None or analysis.main is None:
        return None
    low, _ = check.interval
    if check.share <= check.alpha:
        most = "no more than may be"
    elif low <= check.alpha:
        most = "which chance explains"
    else:
        most = "more than may be"
    return Finding(
        "A/A: how often are rows told apart that are the same method?",
        f"{number(check.rows)} rows are {names.reference_name} with other random numbers. Their "
        f"names exchanged at random at each of {number(check.draws)} draws give "
        f"{number(check.tables)} tables {epochs_text(analysis.main.epochs)}. Of these "
        f"{number(check.told)} ({percent(check.share, 1)}, {percent_span(check.interval)}) call a "
        f"row better or worse than the reference, {most} at a level of {percent(check.alpha)}. Of "
        f"all comparisons {percent(check.equivalent)} were shown to be equivalent within "
        f"{margin_text(analysis)}.",
    )


# -- the paper's findings ----------------------------------------------------------------------


def criteria(analysis: Analysis, names: Names) -> Finding | None:
    """F1: criteria under the same random configurations."""
    family = only_criteria(family_of(analysis), names)
    if not family or analysis.main is None:
        return None
    reference = names.of(names.reference)
    answer = verdicts_text(
        family,
        names,
        f"other {'criterion' if len(family) == 1 else 'criteria'} under the same draws, against "
        f"{reference}",
    )
    most = largest_difference(family)
    if most is not None:
        answer += (
            f" Jointly, with 95\u00a0% confidence, none of them differs from {reference} by more "
            f"than {magnitude(most)} {epochs_text(analysis.main.epochs)}"
            f" (two one-sided tests, margin {margin_text(analysis)})."
        )
    answer += " " + _clear_winner(family, names) + _told(family_of(analysis), analysis)
    control = next((c for c in family_of(analysis) if names.is_random_control(c.name)), None)
    if control is not None:
        answer += (
            f" Control: ranking channels at random is {control.verdict} ({numbers_text(control)})."
        )
    return Finding("F1: does the criterion matter under random configurations?", answer)


def _clear_winner(family: Sequence[Comparison[Row]], names: Names) -> str:
    by_verdict = {v: [names.of(c.name) for c in family if c.verdict == v] for v in VERDICT_COLORS}
    winners, losers, open_ = (by_verdict[v] for v in ("better", "worse", "undecided"))
    if winners:
        return f"That contradicts \u201cno clear winner\u201d: {listed(winners)} came out ahead."
    said = []
    if losers:
        ahead = "was shown to be ahead" if open_ else "is ahead"
        said.append(f"No criterion {ahead}, but {listed(losers)} fell behind.")
    if open_:
        said.append(
            f"{len(open_)} of {len(family)} {'is' if len(open_) == 1 else 'are'} undecided: that "
            "is absence of evidence, and more draws would be needed to call them equivalent."
        )
    if not said:
        said.append(
            "There is no clear winner, and the data show it: equivalence was tested, not assumed."
        )
    return " ".join(said)


def _told(family: Sequence[Comparison[Row]], analysis: Analysis) -> str:
    """What a difference has to be at least, to be told with so many draws and rows."""
    least = detectable_difference(family)
    if least is None:
        return ""
    draws = len(analysis.run.protocol.draw_seeds)
    rows = "" if len(family) == 1 else f" with Holm's correction over {len(family)} rows"
    return (
        f" With {number(draws)} draws{rows}, a difference has to be about {magnitude(least)} to be "
        "told from none (at the median spread of the rows)."
    )


def worth(analysis: Analysis, names: Names) -> Finding | None:
    """From scratch: what the search brings, and what it costs."""
    family = family_of(analysis)
    if names.ranked or not family or analysis.main is None:
        return None
    reference = names.reference_name
    answer = verdicts_text(
        family, names, f"other {'row' if len(family) == 1 else 'rows'}, against {reference}"
    )
    spent = {s.row: s.spent.macs for s in analysis.main.rows if s.results}
    cheapest = min(spent[c.name] for c in family)
    if cheapest:
        least = next(names.of(c.name) for c in family if spent[c.name] == cheapest)
        answer += (
            f" A result of {reference} takes {spent[names.reference] / cheapest:.1f} times the "
            f"compute of one of {least}, shared weights and search included."
        )
    answer += _at_equal_compute(analysis, names)
    if analysis.main.dense is not None:
        value, span = difference_text(analysis.main.dense.difference)
        answer += (
            f" The dense network, trained in the same way, lies {value} from {reference} ({span})."
        )
    return Finding("Is the search over widths worth its cost?", answer)


def _at_equal_compute(analysis: Analysis, names: Names) -> str:
    """What rows reach for the compute of the reference's shortest training, longer ones theirs."""
    epochs, found = min(analysis.at_equal_compute.items(), key=lambda item: item[0])
    if analysis.at[epochs] is analysis.main:
        return ""
    rows = analysis.run.protocol.compared
    means = sorted(
        ((e.value, names.of(row)) for row in rows if (e := found[row]) is not None), reverse=True
    )
    said = listed([f"{name} {percent(mean, 2)}" for mean, name in means])
    return (
        f" With the compute that {names.reference_name} takes in all {epochs_text(epochs)}, every "
        f"row in its longest training within it: {said}."
    )


def methods(analysis: Analysis, names: Names) -> Finding | None:
    """F2: other methods against the random search."""
    if not names.ranked:
        return None
    own = analysis.method(names.reference)
    family = [c for c in family_of(analysis) if analysis.method(c.name) != own]
    if not family:
        return None
    reference = names.reference_name
    answer = verdicts_text(
        family, names, f"other {'row' if len(family) == 1 else 'rows'}, against {reference}"
    )
    if not only_criteria(family_of(analysis), names):  # F1 says it otherwise
        answer += _told(family_of(analysis), analysis)
    return Finding(f"F2: how does {reference} compare with the other methods?", answer)


def published(analysis: Analysis, names: Names) -> Finding | None:
    """F2: published numbers beside."""
    others = analysis.published
    if not others or analysis.main is None:
        return None
    mean = analysis.main.of(names.reference).accuracy
    if mean is None:
        return None
    below = [p for p in others if p.top1 <= mean.value]
    span = "" if mean.interval is None else f" ({percent_span(mean.interval)})"
    ratio = analysis.run.budget.ratio
    return Finding(
        numbered("F2", "and beside published numbers?", names),
        f"{names.reference_name} reaches {percent(mean.value, 2)}{span} "
        f"{epochs_text(analysis.main.epochs)} with {percent(ratio, 0)} of the "
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
    first, last = analysis.span
    gain = analysis.gains.get(names.reference)
    if gain is None:
        return None
    reference = names.reference_name
    answer = (
        f"From {first} to {last} epochs {reference} gains {points(gain.value, 2)} "
        f"(95\u00a0% interval {span_of_points(gain)}). "
    )
    tests = {epochs: analysis.at[epochs].comparisons for epochs in (first, last)}
    several = any(only_criteria(found, names) for found in tests.values())
    spreads = []
    for found in tests.values():
        means = [c.difference.value for c in (only_criteria(found, names) if several else found)]
        spreads.append(max([0.0, *means]) - min([0.0, *means]))
    if any(tests.values()):
        widest, what = max(spreads), "criterion" if several else "method"
        answer += (
            f"{'Criteria' if several else 'Methods'} at one length lie at most "
            f"{magnitude(widest)} apart, so that the length changes results "
            f"{_against(gain, widest)} the {what}. "
        )
    count, tau = analysis.order_kept
    if tau is not None:
        span = "" if tau.interval is None else f", 95\u00a0% interval {tau_span(tau.interval)}"
        answer += (
            f"The order of the {count} rows at {first} and at {last} epochs agrees with "
            f"Kendall's tau {signed(tau.value)}{span}."
        )
    verdicts = {c.name: c.verdict for c in tests[first]}
    changed = [
        f"{names.of(c.name)} ({verdicts[c.name]}, then {c.verdict})"
        for c in tests[last]
        if c.name in verdicts and c.verdict != verdicts[c.name]
    ]
    if changed:
        answer += f" The verdict changes with the length for {listed(changed)}."
    question = f"how much does the {names.words.training} length matter?"
    return Finding(numbered("F4", question, names), answer.strip())


def _against(gain: Estimate, other: float) -> str:
    """Whether a gain is larger than another difference; its interval decides."""
    low, high = gain.interval or (-np.inf, np.inf)
    nearest, farthest = max(low, -high, 0.0), max(abs(low), abs(high))
    return "more than" if nearest > other else "less than" if farthest < other else "comparably to"


# -- the pool, the proxies, chance -------------------------------------------------------------


def candidates(analysis: Analysis, names: Names) -> Finding | None:
    """The N-curve."""
    pool = analysis.pool
    if pool is None:
        return None
    total, curve = len(pool.values), pool.curve
    i = int(np.searchsorted(curve.counts, max(1, min(10, total // 4))))
    few = int(curve.counts[i])
    answer = (
        f"On the search images and {names.words.untrained}, the best of {few} candidates of "
        f"{names.of(pool.row)} is expected {magnitude(float(curve.mean[i] - curve.mean[0]))} above "
        f"a single one, and the best of all {number(total)} another "
        f"{magnitude(float(curve.mean[-1] - curve.mean[i]))} above that"
    )
    if np.isfinite(curve.mean_low[i]):
        answer += (
            f" (expected best of {few}: {percent(float(curve.mean[i]))}, 95\u00a0% interval "
            f"{percent_span((float(curve.mean_low[i]), float(curve.mean_high[i])))})"
        )
    return Finding(
        "How many candidates are enough?", f"{answer}.{_after_training(analysis, names)}"
    )


def _after_training(analysis: Analysis, names: Names) -> str:
    """What more candidates bring after training, where rows differ by nothing else."""
    if analysis.main is None or not analysis.main.epochs:
        return ""
    counts = {s.row: s.candidates for s in analysis.main.rows}
    own, reference = analysis.method(names.reference), names.reference
    found = sorted(
        (
            c
            for c in family_of(analysis)
            if analysis.method(c.name) == own
            and c.name.criterion == reference.criterion
            and counts[c.name] != counts[reference]
        ),
        key=lambda c: counts[c.name],
    )
    said = [f"{number(counts[c.name])}: {c.verdict} ({numbers_text(c)})" for c in found]
    if not said:
        return ""
    own_count = f"{number(counts[reference])} candidate{'' if counts[reference] == 1 else 's'}"
    when = epochs_text(analysis.main.epochs)
    return f" After training ({when}), against {own_count}: {'; '.join(said)}."


def spread(analysis: Analysis, names: Names) -> Finding | None:
    """The spread of random sub-networks."""
    if analysis.pool is None:
        return None
    row, pool = analysis.pool.row, np.asarray(analysis.pool.values)
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
    found = [
        (agreement, agreement.estimate)
        for agreement in analysis.agreements
        if agreement.second == "test_after" and agreement.estimate is not None
    ]
    if not found:
        return None
    said = []
    for agreement, tau in found:
        span = f" ({tau_span(tau.interval)})" if tau.interval else ""
        said.append(f"{names.words.score(agreement.first)} {signed(tau.value)}{span}")
    return Finding(
        names.words.predicts,
        f"Kendall's tau with the test accuracy after training, over {found[0][0].among}: "
        f"{listed(said)}; in brackets 95\u00a0% intervals.",
    )


def chance(analysis: Analysis, names: Names) -> Finding | None:
    """Variance of the draw of configurations and of training."""
    main = analysis.main
    if main is None:
        return None
    split = main.of(names.reference).variance
    if split is None:
        return None
    reference = names.of(names.reference)
    parts = []
    for name, part in (
        ("drawing another configuration", split.configuration),
        ("training the same network again", split.training),
    ):
        if part is not None:
            parts.append(f"{name} {deviation(part)}")
    answer = (
        f"Standard deviation of {reference} {epochs_text(main.epochs)}, in points: {listed(parts)}."
        if parts
        else ""
    )
    note = f"{split.note[:1].upper()}{split.note[1:]}." if split.note else ""
    said = (answer, note, _together(analysis, main, names) if not parts else "")
    return Finding("How much is chance?", " ".join(filter(None, said)))


def _together(analysis: Analysis, main: Length, names: Names) -> str:
    """Both kinds of chance at once, and training alone where a row has one configuration."""
    both = main.of(names.reference).together
    if both is None or both.count < 2:
        return ""
    said = f"Together they have a standard deviation of {deviation(both)} points"
    for row in analysis.run.protocol.rows:
        split = main.of(row).variance
        if split is not None and split.configurations == 1 and split.training is not None:
            alone = deviation(split.training)
            name = names.of(row)
            said += f"; {name}, the same network at every draw, has {alone} from training alone"
            break
    return f"{said}."
