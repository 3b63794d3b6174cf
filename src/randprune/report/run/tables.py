"""The tables of one run besides those of its networks."""

from __future__ import annotations

from dataclasses import replace

from randprune.report.format import number, percent, seconds
from randprune.report.names import METRIC_NAMES
from randprune.report.run.analysis import RunAnalysis
from randprune.report.run.records import RunRecord
from randprune.report.scale import Scale
from randprune.report.table import EMPTY, Cell, Column, Table, amount, plain, said
from randprune.store import FINALIST_TOP1, PROXY, SEARCH_TOP1, SEARCHED, SpaceInfo

_MOST_ROWS = 300


def candidates(analysis: RunAnalysis) -> Table:
    """One row a candidate, the best on the search images first."""
    record = analysis.record
    scores = _keys(record, "scores", first=(SEARCH_TOP1, FINALIST_TOP1, PROXY))
    costs = _keys(record, "costs", first=("macs", "params"))
    phases = _keys(record, "seconds", first=())
    columns = (
        Column("method", "Method"),
        Column("index", "Candidate", True),
        *(
            Column(
                f"score_{key}",
                _score_title(analysis.scale, key),
                True,
                shown="csv" if key.startswith("look_") else "both",
            )
            for key in scores
        ),
        *(Column(f"cost_{key}", METRIC_NAMES.get(key, key), True) for key in costs),
        Column("seconds", "Time", True, shown="page"),
        *(Column(f"seconds_{key}", shown="csv") for key in phases),
        Column("status", "Status"),
        Column("seed", shown="csv"),
        Column("selection", shown="csv"),
        Column("error", shown="csv"),
        Column("widths", shown="csv"),
    )
    order = sorted(
        record.candidates,
        key=lambda c: (-c.scores.get(SEARCH_TOP1, float("-inf")), c.method, c.index),
    )
    chosen = record.winner
    rows = tuple(
        (
            Cell(
                analysis.words.method(c.method),
                c.method,
                tone="candidate" if c.method == SEARCHED else analysis.color_of(c.method),
            ),
            Cell(str(c.index), c.index, "chosen" if c is chosen else ""),
            *(_score_cell(analysis.scale, key, c.scores.get(key)) for key in scores),
            *(amount(c.costs.get(key)) for key in costs),
            Cell(seconds(spent), spent) if (spent := sum(c.seconds.values())) else EMPTY,
            *(plain(c.seconds.get(key)) for key in phases),
            Cell(c.status, c.status, c.error),
            EMPTY if c.seed is None else Cell(str(c.seed)),
            said(c.selection),
            said(c.error),
            Cell(" ".join(map(str, c.widths))),
        )
        for c in order
    )
    return Table("candidates", "Candidates", columns, rows)


def first_candidates(table: Table) -> Table:
    """As many of them as a page bears."""
    if len(table.rows) <= _MOST_ROWS:
        return table
    note = (
        f"The best {_MOST_ROWS:,} of {len(table.rows):,} candidates; candidates.csv has them all."
    )
    return replace(table, rows=table.rows[:_MOST_ROWS], note=note)


def _keys(record: RunRecord, attribute: str, first: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    for candidate in record.candidates:
        found.update(dict.fromkeys(getattr(candidate, attribute)))
    return sorted(found, key=lambda key: (first.index(key) if key in first else len(first), key))


def _score_title(scale: Scale, key: str) -> str:
    known = {
        SEARCH_TOP1: scale.title("search"),
        FINALIST_TOP1: f"{scale.title('search')} as finalist",
        PROXY: "Proxy",
    }
    return known.get(key, key)


def _score_cell(scale: Scale, key: str, value: float | None) -> Cell:
    if value is None:
        return EMPTY
    if key in (SEARCH_TOP1, FINALIST_TOP1):
        found = scale.value(value)
        return Cell(scale.text(found, 2), found)
    is_share = "top1" in key or "top5" in key
    return Cell(percent(value, 2) if is_share else f"{value:.4g}".replace("-", "−"), value)


def widths(analysis: RunAnalysis) -> Table | None:
    """Channels of each group before and after, and at uniform width."""
    space, kept = analysis.record.milestone(SpaceInfo), analysis.widths
    if space is None or kept is None or len(kept) != len(space.groups):
        return None
    uniform = analysis.uniform_widths
    columns = [
        Column("group", "Channel group"),
        Column("before", "Before", True),
        Column("after", "After", True),
        Column("share", "Stays", True),
    ]
    if uniform is not None and len(uniform) == len(kept):
        columns.append(Column("uniform", "Uniform width", True))
    rows = tuple(
        (
            Cell(group.name),
            Cell(number(group.width), group.width),
            Cell(number(kept[i]), kept[i]),
            Cell(percent(kept[i] / group.width, 0), kept[i] / group.width),
            *([Cell(number(uniform[i]), uniform[i])] if uniform and len(columns) == 5 else []),
        )
        for i, group in enumerate(space.groups)
    )
    return Table("widths", "Width of each channel group", tuple(columns), rows)


def frozen(record: RunRecord) -> Table | None:
    """What stays at full width, and why."""
    space = record.milestone(SpaceInfo)
    if space is None:
        return None
    columns = (
        Column("layer", "Layer"),
        Column("channels", "Channels that stay", True),
        Column("width", "of", True),
        Column("reason", "Why they stay"),
    )
    rows = tuple(
        (
            Cell(part.layer),
            Cell(number(part.channels), part.channels),
            Cell(number(part.width), part.width),
            Cell(part.reason),
        )
        for part in space.frozen
    )
    return Table("frozen", "What cannot be cut", columns, rows)


def epochs(record: RunRecord) -> Table:
    """All metrics of all epochs."""
    keys = list(dict.fromkeys(key for row in record.epochs for key in row.metrics))
    columns = (
        Column("network", "Network"),
        Column("epoch", "Epoch", True),
        *(Column(key, key.replace("_", " "), True) for key in keys),
    )
    rows = tuple(
        (
            Cell(row.network),
            Cell(str(row.epoch), row.epoch),
            *(_metric_cell(key, row.metrics.get(key)) for key in keys),
        )
        for row in record.epochs
    )
    return Table("epochs", "Epochs", columns, rows)


def _metric_cell(key: str, value: float | None) -> Cell:
    if value is None:
        return EMPTY
    text = percent(value, 2) if "top1" in key or "top5" in key else number(value)
    return Cell(seconds(value) if key == "seconds" else text, value)
