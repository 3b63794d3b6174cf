"""The figures of one run. Each builder returns None where too little is recorded yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from randprune.bench.stats import kendall_tau
from randprune.report import tables
from randprune.report.chart import Axis, Bars, Chart, Line, Mark, Points
from randprune.report.format import number, percent, seconds, si
from randprune.report.names import (
    METRIC_NAMES,
    color_of,
    from_scratch,
    method_name,
    stage_name,
    training_name,
)
from randprune.report.networks import networks
from randprune.report.pools import SEARCH_AXIS, at_most, best_of_chart, spread_chart
from randprune.report.records import RunRecord
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
    CostEntry,
    NetworkRow,
    SpaceInfo,
    Stage,
)

_SYMBOLS = {DENSE: "square", SEARCHED: "star", UNIFORM: "diamond", RANDOM_CHANNELS: "triangle"}
_STAGE_MARKS: tuple[tuple[Stage, str, bool, float], ...] = (
    ("dense", "square", False, 10),
    ("cut", "triangle", True, 9),
    ("repaired", "circle", True, 10),
    ("finetuned", "circle", False, 11),
)


def figures(record: RunRecord) -> tuple[Chart, ...]:
    """All figures that the records allow, in the order of the page."""
    builders = (
        stages,
        tradeoff,
        spread,
        best_of,
        candidate_costs,
        proxy,
        widths,
        accuracy,
        loss,
    )
    charts = [*(build(record) for build in builders), ledger(record.ledger)]
    return tuple(chart for chart in charts if chart is not None)


def stages(record: RunRecord) -> Chart | None:
    """Each network's test accuracy, stage by stage, on one scale."""
    marks: list[Mark] = []
    for stage, symbol, hollow, size in _STAGE_MARKS:
        for label in record.labels:
            rows = [r for r in record.stages(label).get(stage, ()) if r.test is not None]
            if not rows:
                continue
            intervals = [row.test.interval() for row in rows if row.test]
            name = stage_name(record, stage)
            marks.append(
                Points(
                    name,
                    [row.test.share for row in rows if row.test],
                    [label] * len(rows),
                    color_of(record, label),
                    symbol,
                    size,
                    hollow,
                    low=[low for low, _ in intervals],
                    high=[high for _, high in intervals],
                    labels=[_network_label(record, row) for row in rows],
                    horizontal=True,
                    # One entry a stage: the names of the networks stand beside them.
                    legend=all(mark.name != name for mark in marks),
                )
            )
    if len(marks) < 2:
        return None
    steps = (
        "after training from random weights"
        if from_scratch(record)
        else "after cutting alone, after repair without training, and after fine-tuning"
    )
    return Chart(
        "accuracy-stages",
        "Test accuracy, step by step",
        f"Accuracy on the test set {steps}, as far as the run has come. Bars are 95\u00a0% Wilson "
        "intervals.",
        Axis("test accuracy", percent=True),
        Axis("", kind="category"),
        tuple(marks),
        networks(record),
    )


def tradeoff(record: RunRecord) -> Chart | None:
    """Test accuracy against MACs, before (hollow) and after fine-tuning (filled)."""
    marks: list[Mark] = []
    for label in record.labels:
        stages = {
            stage: [r for r in rows if r.test is not None and r.macs is not None]
            for stage, rows in record.stages(label).items()
        }
        reached = [stage for stage, rows in stages.items() if rows]
        # Before and after fine-tuning; cut without any repair only where there is nothing else.
        for stage in (
            reached[-2:] if reached[:1] != ["cut"] else reached[max(1, len(reached) - 2) :]
        ):
            rows = stages[stage]
            trained = stage in ("dense", "finetuned")
            intervals = [row.test.interval() for row in rows if row.test]
            marks.append(
                Points(
                    label,
                    [row.macs for row in rows if row.macs is not None],
                    [row.test.share for row in rows if row.test],
                    color_of(record, label),
                    symbol=_SYMBOLS.get(rows[0].role, "circle"),
                    size=15 if rows[0].role == SEARCHED else 11,
                    hollow=not trained,
                    low=[low for low, _ in intervals],
                    high=[high for _, high in intervals],
                    labels=[_network_label(record, row) for row in rows],
                    legend=stage == reached[-1],
                )
            )
    if len(marks) < 2:
        return None
    macs = [x for mark in marks if isinstance(mark, Points) for x in mark.x]
    highest = max(float(value) for value in macs)
    return Chart(
        "accuracy-macs",
        "Test accuracy against MACs",
        "Each network's accuracy on the test set over its multiply-adds"
        + ("" if from_scratch(record) else ": hollow before, filled after fine-tuning")
        + ". Bars are 95\u00a0% Wilson intervals.",
        Axis("MACs per image", span=(0.0, 1.06 * highest), large=True),
        Axis("test accuracy", percent=True),
        tuple(marks),
    )


def _network_label(record: RunRecord, row: NetworkRow) -> str:
    seed = "" if row.seed is None else f", seed {row.seed}"
    return f"{row.label}, {stage_name(record, row.stage)}{seed}"


def _references(record: RunRecord) -> list[tuple[str, str, float]]:
    """(label, colour, search accuracy) of the networks that candidates are compared with.

    A reference is the method's own candidate, which went through the same recovery and images.
    """
    found: dict[str, tuple[str, str, float]] = {}
    for row in record.networks:
        if row.search is not None and row.role == DENSE:
            found[DENSE] = (row.label, DENSE, row.search.share)
    for method in record.methods:
        scored = record.scored(method)
        if method != SEARCHED and len(scored) == 1:
            color = color_of(record, method)
            name = method_name(method)
            found[method] = (name, color, scored[0].scores[SEARCH_TOP1])
    for row in record.networks:
        if row.search is not None and row.role not in (DENSE, SEARCHED) and row.stage == "repaired":
            color = color_of(record, row.label)
            found.setdefault(row.role, (row.label, color, row.search.share))
    return list(found.values())


def spread(record: RunRecord) -> Chart | None:
    """Histogram and strip of the candidates' search accuracy, with the references marked."""
    candidates = record.scored(SEARCHED)
    references = _references(record)
    winner = record.winner
    if winner is not None and SEARCH_TOP1 in winner.scores:
        references.append(("chosen", SEARCHED, winner.scores[SEARCH_TOP1]))
    return spread_chart(
        [c.scores[SEARCH_TOP1] for c in candidates],
        [f"candidate {c.index}" for c in candidates],
        references,
        tables.candidates(record),
    )


def best_of(record: RunRecord) -> Chart | None:
    """Expected best of n candidates with its band, and the best so far in the order drawn."""
    references = [entry for entry in _references(record) if entry[1] == UNIFORM]
    return best_of_chart([c.scores[SEARCH_TOP1] for c in record.scored(SEARCHED)], references)


def candidate_costs(record: RunRecord) -> Chart | None:
    """Candidates' search accuracy against the cost that the budget limits."""
    budget = record.milestone(BudgetInfo)
    metric = budget.metric if budget else "macs"
    named = METRIC_NAMES.get(metric, metric)
    marks: list[Mark] = []
    for method in record.methods:
        shown = at_most([c for c in record.scored(method) if metric in c.costs])
        if not shown:
            continue
        color = "candidate" if method == SEARCHED else color_of(record, method)
        marks.append(
            Points(
                method_name(method),
                [c.costs[metric] for c in shown],
                [c.scores[SEARCH_TOP1] for c in shown],
                color,
                symbol=_SYMBOLS.get(method, "circle") if method != SEARCHED else "circle",
                size=7 if method == SEARCHED else 12,
                labels=[f"{method_name(method)}, candidate {c.index}" for c in shown],
            )
        )
    winner = record.winner
    if winner is not None and metric in winner.costs and SEARCH_TOP1 in winner.scores:
        x, y = winner.costs[metric], winner.scores[SEARCH_TOP1]
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
        f"Candidates: accuracy against {named}",
        f"Every evaluated candidate.{asked}",
        Axis(f"{named} per image" if metric == "macs" else named, large=True),
        Axis(SEARCH_AXIS, percent=True),
        tuple(marks),
    )


def proxy(record: RunRecord) -> Chart | None:
    """The free proxy against the measured search accuracy, with their rank correlation."""
    both = [c for c in record.scored(SEARCHED, PROXY) if SEARCH_TOP1 in c.scores]
    if len(both) < 3:
        return None
    x = [c.scores[PROXY] for c in both]
    y = [c.scores[SEARCH_TOP1] for c in both]
    tau = kendall_tau(x, y)
    said = ""
    if tau is not None:
        said = f" Kendall's rank correlation over {len(both):,}: {tau.value:.2f}"
        if tau.interval is not None:
            low, high = (f"{end:.2f}".replace("-", "−") for end in tau.interval)
            said += f" (95\u00a0% interval {low} to {high})"
        said += "."
    shown = at_most(both)
    return Chart(
        "proxy",
        "Predicted against measured",
        "The proxy, which needs no forward pass, over the accuracy measured on the search images."
        + said,
        Axis("proxy (higher is better)"),
        Axis(SEARCH_AXIS, percent=True),
        (
            Points(
                "random configurations",
                [c.scores[PROXY] for c in shown],
                [c.scores[SEARCH_TOP1] for c in shown],
                "candidate",
                labels=[f"candidate {c.index}" for c in shown],
            ),
        ),
    )


def widths(record: RunRecord) -> Chart | None:
    """Channels per group before and after, with the uniform width to compare."""
    space, kept = record.milestone(SpaceInfo), tables.chosen_widths(record)
    if space is None or not space.groups or kept is None or len(kept) != len(space.groups):
        return None
    names = [group.name for group in space.groups]
    full = [group.width for group in space.groups]
    shares = [f"{name}: keeps {k} of {w}" for name, k, w in zip(names, kept, full, strict=True)]
    marks: list[Mark] = [
        Bars("before", names, full, "muted", width=0.8),
        Bars("after", names, list(kept), SEARCHED, width=0.8, labels=shares),
    ]
    uniform = tables.role_widths(record, UNIFORM)
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
        tables.widths(record),
        wide=True,
        height=380,
    )


def accuracy(record: RunRecord) -> Chart | None:
    """Accuracy on the search images (else on the training images) after each epoch."""
    for key, said in ((SEARCH_TOP1, SEARCH_AXIS), (TRAIN_TOP1, "accuracy on training images")):
        lines = _epoch_lines(record, key)
        if lines:
            return Chart(
                "epochs-accuracy",
                f"{training_name(record)}: accuracy",
                f"The {said} after each epoch. The last epoch counts, and the test set is read "
                "only after it.",
                Axis("epoch", whole=True),
                Axis(said, percent=True),
                lines,
                tables.epochs(record),
            )
    return None


def loss(record: RunRecord) -> Chart | None:
    """Training loss of each epoch."""
    lines = _epoch_lines(record, TRAIN_LOSS)
    if not lines:
        return None
    return Chart(
        "epochs-loss",
        f"{training_name(record)}: training loss",
        "Mean training loss of each epoch, with whatever smoothing or distillation it includes.",
        Axis("epoch", whole=True),
        Axis("training loss"),
        lines,
    )


def _epoch_lines(record: RunRecord, key: str) -> tuple[Line, ...]:
    rows = [row for row in record.epochs if key in row.metrics]
    labels = [label for label in record.labels if any(r.network == label for r in rows)]
    labels += [name for name in dict.fromkeys(r.network for r in rows) if name not in labels]
    return tuple(
        Line(
            label,
            [row.epoch for row in rows if row.network == label],
            [row.metrics[key] for row in rows if row.network == label],
            color_of(record, label),
            markers=sum(row.network == label for row in rows) <= 40,
        )
        for label in labels
    )


def ledger(entries: Sequence[CostEntry]) -> Chart | None:
    """Seconds by phase."""
    phases = tables.ledger_phases(entries)
    if not phases:
        return None
    names = list(phases)
    total = sum(phase.seconds for phase in phases.values())
    dearest = max(names, key=lambda name: phases[name].seconds)
    share = f", {percent(phases[dearest].seconds / total, 0)} of it on {dearest}" if total else ""
    return Chart(
        "ledger",
        "Where the time went",
        f"{seconds(total)} in all{share}.",
        Axis("seconds"),
        Axis("", kind="category"),
        (
            Bars(
                "seconds",
                names,
                [phases[name].seconds for name in names],
                SEARCHED,
                width=0.7,
                horizontal=True,
                labels=[
                    f"{name}: {seconds(p.seconds)}, {number(p.images_forward)} images forward, "
                    f"{number(p.images_backward)} backward, {si(p.macs_spent, 'MACs')}"
                    for name, p in phases.items()
                ],
            ),
        ),
        wide=True,
        height=100 + 34 * len(names),
    )
