"""The tables of one run: what the page shows and what the CSV files hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from randprune.bench.stats import BestOfN
from randprune.report.cells import amount, plain
from randprune.report.format import number, percent, seconds, si
from randprune.report.names import METRIC_NAMES, color_of, method_name
from randprune.report.networks import networks
from randprune.report.records import RunRecord
from randprune.report.table import EMPTY, Cell, Column, Table
from randprune.store import (
    FINALIST_TOP1,
    PROXY,
    SEARCH_TOP1,
    SEARCHED,
    UNIFORM,
    Candidate,
    CostEntry,
    SpaceInfo,
)

_MOST_ROWS = 300


def csv_tables(record: RunRecord) -> tuple[Table, ...]:
    """Everything recorded, one table a file; tables without rows are left out."""
    found = (
        networks(record),
        candidates(record, most=None),
        widths(record),
        epochs(record),
        ledger_entries(record.ledger),
        frozen(record),
    )
    return tuple(table for table in found if table is not None and table.rows)


# -- candidates --------------------------------------------------------------------------------


def candidates(record: RunRecord, most: int | None = _MOST_ROWS) -> Table:
    """One row a candidate, the best on the search images first; at most `most` on the page."""
    scores = _keys(record, "scores", first=(SEARCH_TOP1, FINALIST_TOP1, PROXY))
    costs = _keys(record, "costs", first=("macs", "params"))
    phases = _keys(record, "seconds", first=())
    columns = (
        Column("method", "Method"),
        Column("index", "Candidate", True),
        *(Column(f"score_{key}", _score_title(key), True) for key in scores),
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
    shown = order if most is None else order[:most]
    note = ""
    if len(shown) < len(order):
        note = f"The best {len(shown):,} of {len(order):,} candidates; candidates.csv has them all."
    chosen = record.winner
    rows = tuple(
        (
            Cell(
                method_name(c.method),
                c.method,
                tone="candidate" if c.method == SEARCHED else color_of(record, c.method),
            ),
            Cell(str(c.index), c.index, "chosen" if c is chosen else ""),
            *(_score_cell(key, c.scores.get(key)) for key in scores),
            *(amount(c.costs.get(key)) for key in costs),
            Cell(seconds(spent), spent) if (spent := sum(c.seconds.values())) else EMPTY,
            *(plain(c.seconds.get(key)) for key in phases),
            Cell(c.status, c.status, c.error),
            EMPTY if c.seed is None else Cell(str(c.seed)),
            Cell(c.selection) if c.selection else EMPTY,
            Cell(c.error) if c.error else EMPTY,
            Cell(" ".join(map(str, c.widths))),
        )
        for c in shown
    )
    return Table("candidates", "Candidates", columns, rows, note)


def _keys(record: RunRecord, attribute: str, first: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    for candidate in record.candidates:
        found.update(dict.fromkeys(getattr(candidate, attribute)))
    return sorted(found, key=lambda key: (first.index(key) if key in first else len(first), key))


def _score_title(key: str) -> str:
    known = {
        SEARCH_TOP1: "Search accuracy",
        FINALIST_TOP1: "Search accuracy as finalist",
        PROXY: "Proxy",
    }
    return known.get(key, key)


def _score_cell(key: str, value: float | None) -> Cell:
    if value is None:
        return EMPTY
    is_share = "top1" in key or "top5" in key
    return Cell(percent(value, 2) if is_share else f"{value:.4g}".replace("-", "−"), value)


def best_of_n_table(curve: BestOfN) -> Table:
    """The best-of-n curve as numbers."""
    columns = (
        Column("n", "n", True),
        Column("expected_best", "Expected best", True),
        Column("low", "Lower edge", True),
        Column("high", "Upper edge", True),
        Column("mean_low", "Interval of the expectation, from", True),
        Column("mean_high", "to", True),
    )
    values = (curve.mean, curve.low, curve.high, curve.mean_low, curve.mean_high)
    rows = tuple(
        (
            Cell(number(n), n),
            *(EMPTY if v != v else Cell(percent(v, 2), v) for v in row),  # NaN: no interval
        )
        for n, *row in zip(curve.counts.tolist(), *(v.tolist() for v in values), strict=True)
    )
    return Table("best_of_n", "Best of n candidates", columns, rows)


# -- the network itself ------------------------------------------------------------------------


def role_widths(record: RunRecord, role: str) -> tuple[int, ...] | None:
    """The configuration of a role: of its network, else of its only candidate."""
    rows = [row for row in record.networks if row.role == role and row.widths]
    if rows:
        return rows[-1].widths
    proposed = [c for c in record.candidates if c.method == role]
    return proposed[0].widths if len(proposed) == 1 else None


def chosen_widths(record: RunRecord) -> tuple[int, ...] | None:
    """The chosen configuration; while the search goes on, that of the best candidate so far."""
    winner: Candidate | None = record.winner
    if winner is not None:
        return winner.widths
    found = role_widths(record, SEARCHED)
    if found is not None:
        return found
    scored = record.scored(SEARCHED)
    return max(scored, key=lambda c: c.scores[SEARCH_TOP1]).widths if scored else None


def widths(record: RunRecord) -> Table | None:
    """Channels of each group before and after, and at uniform width."""
    space, kept = record.milestone(SpaceInfo), chosen_widths(record)
    if space is None or kept is None or len(kept) != len(space.groups):
        return None
    uniform = role_widths(record, UNIFORM)
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
        Column("channels", "Frozen channels", True),
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
    return Table("frozen", "Frozen parts", columns, rows)


# -- training and cost -------------------------------------------------------------------------


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


def ledger_phases(entries: Sequence[CostEntry]) -> dict[str, CostEntry]:
    """Sums of the ledger by phase, in the order in which phases began."""
    sums: dict[str, CostEntry] = {}
    for entry in entries:
        before = sums.get(entry.phase, CostEntry(entry.phase, device=entry.device))
        devices = dict.fromkeys([*before.device.split(" + "), entry.device])
        sums[entry.phase] = replace(
            before,
            candidates=before.candidates + entry.candidates,
            images_forward=before.images_forward + entry.images_forward,
            images_backward=before.images_backward + entry.images_backward,
            macs_spent=before.macs_spent + entry.macs_spent,
            seconds=before.seconds + entry.seconds,
            device=" + ".join(devices),
        )
    return sums


def ledger(entries: Sequence[CostEntry]) -> Table:
    """What each phase cost, and the sum."""
    columns = (
        Column("phase", "Phase"),
        Column("candidates", "Candidates", True),
        Column("images_forward", "Images forward", True),
        Column("images_backward", "Images backward", True),
        Column("macs_spent", "MACs spent", True),
        Column("seconds", "Time", True),
        Column("device", "Device"),
    )
    phases = ledger_phases(entries)
    whole = CostEntry("total")
    for phase in phases.values():
        whole = replace(
            whole,
            candidates=whole.candidates + phase.candidates,
            images_forward=whole.images_forward + phase.images_forward,
            images_backward=whole.images_backward + phase.images_backward,
            macs_spent=whole.macs_spent + phase.macs_spent,
            seconds=whole.seconds + phase.seconds,
            device="",
        )
    return Table(
        "ledger",
        "Cost ledger",
        columns,
        tuple(_ledger_cells(entry) for entry in phases.values()),
        "A training step counts as three forward passes: its own and two for the backward pass.",
        total=_ledger_cells(whole) if phases else (),
    )


def _ledger_cells(entry: CostEntry) -> tuple[Cell, ...]:
    return (
        Cell(entry.phase),
        Cell(number(entry.candidates), entry.candidates) if entry.candidates else EMPTY,
        Cell(number(entry.images_forward), entry.images_forward) if entry.images_forward else EMPTY,
        Cell(number(entry.images_backward), entry.images_backward)
        if entry.images_backward
        else EMPTY,
        Cell(si(entry.macs_spent), entry.macs_spent) if entry.macs_spent else EMPTY,
        Cell(seconds(entry.seconds), entry.seconds),
        Cell(entry.device),
    )


def ledger_entries(entries: Sequence[CostEntry]) -> Table:
    """Every ledger entry as recorded."""
    names = ("phase", "key", "candidates", "images_forward", "images_backward", "macs_spent")
    columns = tuple(Column(name) for name in (*names, "seconds", "device"))
    rows = tuple(
        tuple(
            Cell(str(value), value) for value in (getattr(entry, column.name) for column in columns)
        )
        for entry in entries
    )
    return Table("ledger", "Ledger entries", columns, rows)
