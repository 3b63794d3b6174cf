"""What a run cost, phase by phase: the table, the figure and the CSV file of every kind of run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from randprune.report.chart import Axis, Bars, Chart
from randprune.report.format import number, percent, seconds, si
from randprune.report.table import EMPTY, Cell, Column, Table
from randprune.store import SEARCHED, CostEntry


@dataclass(frozen=True, slots=True)
class Ledger:
    """A run's costs: every entry, sums by phase in the order in which they began, and in all."""

    entries: tuple[CostEntry, ...]
    phases: Mapping[str, CostEntry]
    total: CostEntry

    @classmethod
    def of(cls, entries: Sequence[CostEntry]) -> Ledger:
        """The sums of these entries."""
        by_phase: dict[str, list[CostEntry]] = {}
        for entry in entries:
            by_phase.setdefault(entry.phase, []).append(entry)
        phases = {phase: _sum(phase, found) for phase, found in by_phase.items()}
        return cls(tuple(entries), phases, replace(_sum("total", phases.values()), device=""))


def _sum(phase: str, entries: Iterable[CostEntry]) -> CostEntry:
    found = list(entries)
    return CostEntry(
        phase,
        candidates=sum(entry.candidates for entry in found),
        images_forward=sum(entry.images_forward for entry in found),
        images_backward=sum(entry.images_backward for entry in found),
        macs_spent=sum(entry.macs_spent for entry in found),
        seconds=sum(entry.seconds for entry in found),
        device=" + ".join(dict.fromkeys(entry.device for entry in found)),
    )


def ledger_table(ledger: Ledger) -> Table:
    """What each phase cost, and the sum."""
    columns = (
        Column("phase", "Phase"),
        Column("candidates", "Candidates", True),
        Column("images_forward", "Images forward", True, minor=True),
        Column("images_backward", "Images backward", True, minor=True),
        Column("macs_spent", "MACs spent", True),
        Column("seconds", "Time", True),
        Column("device", "Device", minor=True),
    )
    return Table(
        "ledger",
        "Cost ledger",
        columns,
        tuple(_cells(entry) for entry in ledger.phases.values()),
        "A training step counts as three forward passes: its own and two for the backward pass.",
        total=_cells(ledger.total) if ledger.phases else (),
    )


def _cells(entry: CostEntry) -> tuple[Cell, ...]:
    counts = (entry.candidates, entry.images_forward, entry.images_backward)
    return (
        Cell(entry.phase),
        *(Cell(number(count), count) if count else EMPTY for count in counts),
        Cell(si(entry.macs_spent), entry.macs_spent) if entry.macs_spent else EMPTY,
        Cell(seconds(entry.seconds), entry.seconds),
        Cell(entry.device),
    )


def ledger_entries(ledger: Ledger) -> Table:
    """Every entry as recorded, for CSV."""
    names = ("phase", "key", "candidates", "images_forward", "images_backward", "macs_spent")
    columns = tuple(Column(name) for name in (*names, "seconds", "device"))
    rows = tuple(
        tuple(
            Cell(str(value), value) for value in (getattr(entry, column.name) for column in columns)
        )
        for entry in ledger.entries
    )
    return Table("ledger", "Ledger entries", columns, rows)


def ledger_chart(ledger: Ledger) -> Chart | None:
    """Seconds by phase."""
    if not ledger.phases:
        return None
    names, total = list(ledger.phases), ledger.total.seconds
    dearest = max(names, key=lambda name: ledger.phases[name].seconds)
    spent = ledger.phases[dearest].seconds
    share = f", {percent(spent / total, 0)} of it on {dearest}" if total else ""
    bars = Bars(
        "seconds",
        names,
        [phase.seconds for phase in ledger.phases.values()],
        SEARCHED,
        width=0.7,
        horizontal=True,
        labels=[
            f"{name}: {seconds(p.seconds)}, {number(p.images_forward)} images forward, "
            f"{number(p.images_backward)} backward, {si(p.macs_spent, 'MACs')}"
            for name, p in ledger.phases.items()
        ],
    )
    return Chart(
        "ledger",
        "Where the time went",
        f"{seconds(total)} in all{share}.",
        Axis("seconds"),
        Axis("", kind="category"),
        (bars,),
        wide=True,
        height=100 + 34 * len(names),
    )
