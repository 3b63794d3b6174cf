"""The figures of one run. Each builder returns None where too little is recorded yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from randprune.report.chart import Axis, Bars, Chart, Line, Mark, Points
from randprune.report.estimates import signed, tau_span
from randprune.report.format import percent
from randprune.report.names import METRIC_NAMES
from randprune.report.pools import Reference, at_most, best_of_chart, spread_chart
from randprune.report.run.analysis import RunAnalysis, StageResult
from randprune.report.run.networks import setting_in_words
from randprune.report.table import Table
from randprune.store import (
    DENSE,
    PROXY,
    RANDOM_CHANNELS,
    SEARCH_TOP1,
    SEARCHED,
    TRAIN_LOSS,
    TRAIN_TOP1,
    UNIFORM,
    BudgetInfo,
    NetworkRow,
    Result,
    SpaceInfo,
    Stage,
)
from randprune.store.speedup import quartiles

_SYMBOLS = {DENSE: "square", SEARCHED: "star", UNIFORM: "diamond", RANDOM_CHANNELS: "triangle"}
_STAGE_MARKS: tuple[tuple[Stage, str, bool, float], ...] = (
    ("dense", "square", False, 10),
    ("cut", "triangle", True, 9),
    ("repaired", "circle", True, 10),
    ("finetuned", "circle", False, 11),
)


def stages(analysis: RunAnalysis, data: Table | None) -> Chart | None:
    """Each network's test accuracy, stage by stage, on one scale."""
    marks: list[Mark] = []
    for stage, symbol, hollow, size in _STAGE_MARKS:
        for network in analysis.networks:
            rows = _tested(network.stages.get(stage))
            if not rows:
                continue
            name = analysis.words.stage(stage)
            marks.append(
                Points(
                    name,
                    [test.share for _, test in rows],
                    [network.label] * len(rows),
                    network.color,
                    symbol,
                    size,
                    hollow,
                    low=_ends(analysis, rows, 0),
                    high=_ends(analysis, rows, 1),
                    labels=[_network_label(analysis, row) for row, _ in rows],
                    horizontal=True,
                    # One entry a stage: the names of the networks stand beside them.
                    legend=all(mark.name != name for mark in marks),
                )
            )
    if len(marks) < 2:
        return None
    steps = (
        "after training from random weights"
        if _from_scratch(analysis)
        else "after cutting alone, after repair, and after fine-tuning"
    )
    return Chart(
        "accuracy-stages",
        f"{analysis.scale.title('test')}, step by step",
        f"{analysis.scale.title()} on the test set {steps}, as far as the run has come."
        f"{_bars_are(analysis)}",
        Axis(f"test {analysis.scale.noun}", percent=analysis.scale.shares),
        Axis("", kind="category"),
        tuple(marks),
        data,
    )


def tradeoff(analysis: RunAnalysis) -> Chart | None:
    """Test accuracy against MACs, before (hollow) and after fine-tuning (filled)."""
    marks: list[Points] = []
    for network in analysis.networks:
        reached = [stage for stage in network.stages.values() if _placed(stage)]
        # Before and after fine-tuning; cut without any repair only where there is nothing else.
        if len(reached) > 1 and reached[0].stage == "cut":
            reached = reached[1:]
        for stage in reached[-2:]:
            rows = _placed(stage)
            searched = network.role == SEARCHED
            marks.append(
                Points(
                    network.label,
                    [row.macs for row, _ in rows if row.macs is not None],
                    [test.share for _, test in rows],
                    network.color,
                    symbol=_SYMBOLS.get(network.role, "circle"),
                    size=15 if searched else 11,
                    hollow=stage.stage not in ("dense", "finetuned"),
                    low=_ends(analysis, rows, 0),
                    high=_ends(analysis, rows, 1),
                    labels=[_network_label(analysis, row) for row, _ in rows],
                    legend=stage is reached[-1],
                )
            )
    if len(marks) < 2:
        return None
    highest = max(float(value) for mark in marks for value in mark.x)
    return Chart(
        "accuracy-macs",
        f"{analysis.scale.title('test')} against MACs",
        f"Each network's {analysis.scale.noun} on the test set over its multiply-adds"
        + ("" if _from_scratch(analysis) else ": hollow before, filled after fine-tuning")
        + f".{_bars_are(analysis)}",
        Axis("MACs per image", span=(0.0, 1.06 * highest), large=True),
        Axis(f"test {analysis.scale.noun}", percent=analysis.scale.shares),
        tuple(marks),
    )


def time_tradeoff(analysis: RunAnalysis) -> Chart | None:
    """Test accuracy against measured time, at the latest stage that has both."""
    marks: list[Points] = []
    settings: set[str] = set()
    for network in analysis.networks:
        stages = reversed(list(network.stages.values()))
        timed = ([(row, test) for row, test in _tested(stage) if row.latency] for stage in stages)
        rows = next((found for found in timed if found), [])
        if not rows:
            continue
        spans = [[1000 * q for q in quartiles(row.latency[0])] for row, _ in rows]
        settings.update(setting_in_words(row.latency[0]) for row, _ in rows)
        place = [median for _, median, _ in spans], [test.share for _, test in rows]
        labels = [
            f"{_network_label(analysis, row)}, {low:.3g} to {high:.3g} ms"
            for (row, _), (low, _, high) in zip(rows, spans, strict=True)
        ]
        symbol = _SYMBOLS.get(network.role, "circle")
        size = 15 if network.role == SEARCHED else 11
        bars = _ends(analysis, rows, 0), _ends(analysis, rows, 1)
        along = [low for low, _, _ in spans], [high for *_, high in spans]
        mark = Points(
            network.label, *place, network.color, symbol, size, low=bars[0], high=bars[1],
            labels=labels,
        )  # fmt: skip
        beside = replace(mark, low=along[0], high=along[1], horizontal=True, legend=False)
        marks += [mark, beside]
    if len(marks) < 4 or len(settings) > 1:
        return None
    highest = max(float(value) for mark in marks[1::2] for value in mark.high)
    return Chart(
        "accuracy-time",
        f"{analysis.scale.title('test')} against time",
        f"Each network's {analysis.scale.noun} on the test set over the milliseconds that it takes "
        f"({settings.pop()}), with the middle half of the repetitions.{_bars_are(analysis)}",
        Axis("milliseconds a batch", span=(0.0, 1.06 * highest)),
        Axis(f"test {analysis.scale.noun}", percent=analysis.scale.shares),
        tuple(marks),
    )


def _bars_are(analysis: RunAnalysis) -> str:
    """What error bars are, where there are any."""
    known = any(interval is not None for interval in analysis.intervals.values())
    return " Bars are 95\u00a0% Wilson intervals." if known else ""


def _ends(
    analysis: RunAnalysis, rows: Sequence[tuple[NetworkRow, Result]], end: int
) -> list[float]:
    """One end of the bars of a mark; none where there is no interval."""
    found = [analysis.intervals[test] for _, test in rows]
    known = [interval[end] for interval in found if interval is not None]
    return known if len(known) == len(found) else []


def _tested(result: StageResult | None) -> list[tuple[NetworkRow, Result]]:
    return [(row, row.test) for row in (result.rows if result else ()) if row.test is not None]


def _placed(result: StageResult) -> list[tuple[NetworkRow, Result]]:
    return [(row, test) for row, test in _tested(result) if row.macs is not None]


def _from_scratch(analysis: RunAnalysis) -> bool:
    return analysis.record.info.kind == "scratch"


def _network_label(analysis: RunAnalysis, row: NetworkRow) -> str:
    seed = "" if row.seed is None else f", seed {row.seed}"
    return f"{row.label}, {analysis.words.stage(row.stage)}{seed}"


def spread(analysis: RunAnalysis) -> Chart | None:
    """Histogram and strip of the candidates' search accuracy, with the references marked."""
    references = list(analysis.references)
    winner = analysis.record.winner
    if winner is not None and SEARCH_TOP1 in winner.scores:
        share = analysis.scale.value(winner.scores[SEARCH_TOP1])
        references.append(Reference("chosen", SEARCHED, share))
    return spread_chart(
        [analysis.scale.value(c.scores[SEARCH_TOP1]) for c in analysis.scored],
        [f"candidate {c.index}" for c in analysis.scored],
        references,
        axis=_search_axis(analysis).title,
        scale=analysis.scale,
    )


def best_of(analysis: RunAnalysis) -> Chart | None:
    """Expected best of n candidates with its band, and the best so far in the order drawn."""
    references = [reference for reference in analysis.references if reference.color == UNIFORM]
    shares = [c.scores[SEARCH_TOP1] for c in analysis.scored]
    return best_of_chart(shares, analysis.curve, references, analysis.scale)


def _search_axis(analysis: RunAnalysis) -> Axis:
    """The axis of what candidates have on the search images."""
    return Axis(f"search {analysis.scale.noun}", percent=analysis.scale.shares)


def candidate_costs(analysis: RunAnalysis) -> Chart | None:
    """Candidates' search accuracy against the cost that the budget limits."""
    record, words = analysis.record, analysis.words
    budget = record.milestone(BudgetInfo)
    metric = budget.metric if budget else "macs"
    named = METRIC_NAMES.get(metric, metric)
    marks: list[Mark] = []
    for method in record.methods:
        shown = at_most([c for c in record.scored(method) if metric in c.costs])
        if not shown:
            continue
        color = "candidate" if method == SEARCHED else analysis.color_of(method)
        marks.append(
            Points(
                words.method(method),
                [c.costs[metric] for c in shown],
                [analysis.scale.value(c.scores[SEARCH_TOP1]) for c in shown],
                color,
                symbol=_SYMBOLS.get(method, "circle") if method != SEARCHED else "circle",
                size=7 if method == SEARCHED else 12,
                labels=[f"{words.method(method)}, candidate {c.index}" for c in shown],
            )
        )
    winner = record.winner
    if winner is not None and metric in winner.costs and SEARCH_TOP1 in winner.scores:
        x, y = winner.costs[metric], analysis.scale.value(winner.scores[SEARCH_TOP1])
        label = f"chosen, candidate {winner.index}"
        marks.append(Points("chosen", [x], [y], SEARCHED, "star", 15, labels=[label]))
    if sum(len(mark.x) for mark in marks if isinstance(mark, Points)) < 3:
        return None
    asked = (
        f" The budget asks for {percent(budget.ratio)} ± {percent(budget.tolerance)} of the dense "
        f"network's {named}."
        if budget
        else ""
    )
    return Chart(
        "candidates-cost",
        f"Candidates: {analysis.scale.noun} against {named}",
        f"Every evaluated candidate.{asked}",
        Axis(f"{named} per image" if metric == "macs" else named, large=True),
        _search_axis(analysis),
        tuple(marks),
    )


def proxy(analysis: RunAnalysis) -> Chart | None:
    """The free proxy against the measured search accuracy, with their rank correlation."""
    both = analysis.predicted
    if len(both) < 3:
        return None
    tau = analysis.agreement
    said = ""
    if tau is not None:
        said = f" Kendall's rank correlation over {len(both):,}: {signed(tau.value)}"
        if tau.interval is not None:
            said += f" (95\u00a0% interval {tau_span(tau.interval)})"
        said += "."
    shown = at_most(both)
    return Chart(
        "proxy",
        "Predicted against measured",
        f"The proxy, which needs no forward pass, over the {analysis.scale.noun} measured on the "
        f"search images.{said}",
        Axis("proxy (higher is better)"),
        _search_axis(analysis),
        (
            Points(
                "candidates",
                [c.scores[PROXY] for c in shown],
                [analysis.scale.value(c.scores[SEARCH_TOP1]) for c in shown],
                "candidate",
                labels=[f"candidate {c.index}" for c in shown],
            ),
        ),
    )


def widths(analysis: RunAnalysis, data: Table | None) -> Chart | None:
    """Channels per group before and after, with the uniform width to compare."""
    space, kept = analysis.record.milestone(SpaceInfo), analysis.widths
    if space is None or not space.groups or kept is None or len(kept) != len(space.groups):
        return None
    names = [group.name for group in space.groups]
    full = [group.width for group in space.groups]
    shares = [f"{name}: keeps {k} of {w}" for name, k, w in zip(names, kept, full, strict=True)]
    marks: list[Mark] = [
        Bars("before", names, full, "muted", width=0.8),
        Bars("after", names, list(kept), SEARCHED, width=0.8, labels=shares),
    ]
    uniform = analysis.uniform_widths
    if uniform is not None and len(uniform) == len(names):
        size = float(np.clip(500 / len(names), 5, 22))
        marks.append(Points("uniform width", names, list(uniform), UNIFORM, "dash", size))
    ratios = np.array(kept) / np.array(full)
    least, most = int(np.argmin(ratios)), int(np.argmax(ratios))
    return Chart(
        "widths",
        "Width of each channel group",
        f"{sum(kept):,} of {sum(full):,} channels stay in {len(names)} groups, in network order: "
        f"from {percent(float(ratios[least]), 0)} in {names[least]} to "
        f"{percent(float(ratios[most]), 0)} in {names[most]}.",
        Axis("channel group, from input to output", kind="category"),
        Axis("channels", whole=True),
        tuple(marks),
        data,
        wide=True,
        height=380,
    )


def accuracy(analysis: RunAnalysis, data: Table | None) -> Chart | None:
    """Accuracy on the search images (else on the training images) after each epoch."""
    for key, said in (
        (SEARCH_TOP1, f"search {analysis.scale.noun}"),
        (TRAIN_TOP1, "accuracy on training images"),
    ):
        lines = _epoch_lines(analysis, key)
        if lines:
            return Chart(
                "epochs-accuracy",
                f"{analysis.words.heading}: accuracy",
                f"The {said} after each epoch. The last epoch counts, and the test set is read "
                "only after it.",
                Axis("epoch", whole=True),
                Axis(said, percent=True),
                lines,
                data,
            )
    return None


def loss(analysis: RunAnalysis) -> Chart | None:
    """Training loss of each epoch."""
    lines = _epoch_lines(analysis, TRAIN_LOSS)
    if not lines:
        return None
    return Chart(
        "epochs-loss",
        f"{analysis.words.heading}: training loss",
        "Mean training loss of each epoch, with whatever smoothing or distillation it includes.",
        Axis("epoch", whole=True),
        Axis("training loss"),
        lines,
    )


def _epoch_lines(analysis: RunAnalysis, key: str) -> tuple[Line, ...]:
    rows = [row for row in analysis.record.epochs if key in row.metrics]
    known = [network.label for network in analysis.networks]
    labels = [label for label in known if any(r.network == label for r in rows)]
    labels += [name for name in dict.fromkeys(r.network for r in rows) if name not in labels]
    return tuple(
        Line(
            label,
            [row.epoch for row in rows if row.network == label],
            [row.metrics[key] for row in rows if row.network == label],
            analysis.color_of(label),
            markers=sum(row.network == label for row in rows) <= 40,
        )
        for label in labels
    )
