"""Every single record of a benchmark as tables: what each number of the page leads to."""

from __future__ import annotations

from collections.abc import Sequence

from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.bench.results import Result
from randprune.report.format import seconds
from randprune.report.names import Names
from randprune.report.table import (
    EMPTY,
    Cell,
    Column,
    Table,
    amount,
    plain,
    row_anchor,
    said,
    share,
)

RECORDS = "results"
"""The table that every number links to."""


def records_link(row: Row, epochs: int) -> str:
    """The anchor of a row's results at a length."""
    return row_anchor(RECORDS, _group(row, epochs))


def _group(row: Row, epochs: int) -> str:
    return f"{row}/epochs-{epochs}"


def results(analysis: Analysis, names: Names) -> Table:
    """Every single result, also what failed."""
    protocol = analysis.run.protocol
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("draw", "Draw", True),
        Column("draw_seed", shown="csv"),
        Column("epochs", "Epochs", True),
        Column("training", "Training", True),
        Column("test_top1", "Test accuracy", True),
        Column("test_correct", shown="csv"),
        Column("test_images", shown="csv"),
        Column("test_before", "before training", True, minor=True),
        Column("search_top1", "Search accuracy", True, hint=names.words.untrained, minor=True),
        Column("proxy", "Proxy", True, minor=True),
        Column("macs", "MACs", True, minor=True),
        Column("params", "Parameters", True, minor=True),
        Column("ratio", shown="csv"),
        Column("candidates", "Candidates", True, minor=True),
        Column("images_forward", shown="csv"),
        Column("images_backward", shown="csv"),
        Column("compute_macs", "Compute", True, hint="MACs", minor=True),
        Column("seconds", "Time", True, minor=True),
        Column("device", shown="csv"),
        Column("selection", "Selection", hint="hash", minor=True),
        Column("status", "Status"),
        Column("error", shown="csv"),
        Column("widths", shown="csv"),
    )
    found = analysis.results
    rows = tuple(_result(r, names, protocol.draw_seeds) for r in found)
    groups = tuple(_group(r.row, r.epochs) for r in found)
    note = (
        f"One line per draw, {names.words.training} length and training; results.csv has the "
        "widths too."
    )
    table = Table(RECORDS, "Every result", columns, rows, note, groups=groups)
    return table if names.ranked else table.without_empty()


def _result(result: Result, names: Names, seeds: Sequence[int]) -> tuple[Cell, ...]:
    proposal, total = result.proposal, result.total
    seed = seeds[result.draw] if result.draw < len(seeds) else None
    return (
        Cell(names.of(result.row), names.of(result.row), tone=names.look(result.row).color),
        Cell(str(result.row)),
        plain(result.draw),
        plain(seed),
        plain(result.epochs),
        plain(result.training),
        share(result.test.share if result.test else None),
        plain(result.test.correct if result.test else None),
        plain(result.test.images if result.test else None),
        share(result.test_before.share if result.test_before else None),
        share(proposal.search.share if proposal.search else None),
        plain(proposal.proxy),
        amount(proposal.macs),
        amount(proposal.params),
        plain(proposal.ratio),
        plain(total.candidates),
        plain(total.images_forward),
        plain(total.images_backward),
        amount(total.macs or None),
        Cell(seconds(total.seconds), total.seconds),
        said(total.device),
        Cell(proposal.selection[:8], proposal.selection) if proposal.selection else EMPTY,
        Cell(result.status, result.status, result.error),
        said(result.error),
        said(" ".join(map(str, proposal.widths))),
    )


def failures(analysis: Analysis, names: Names) -> Table | None:
    """What could not be had, and why; None where all went well."""
    failed = analysis.failures
    if not failed:
        return None
    columns = (
        Column("name", "Method"),
        Column("row", shown="csv"),
        Column("draw", "Draw", True),
        Column("epochs", "Epochs"),
        Column("error", "Error"),
    )
    lengths: dict[tuple[Row, int, str], list[int]] = {}
    for result in failed:
        lengths.setdefault((result.row, result.draw, result.error), []).append(result.epochs)
    rows = tuple(
        (
            Cell(names.of(row), tone=names.look(row).color),
            Cell(str(row)),
            plain(draw),
            Cell(", ".join(map(str, dict.fromkeys(epochs)))),
            Cell(error),
        )
        for (row, draw, error), epochs in lengths.items()
    )
    note = "The other results of these rows and all other rows went on."
    return Table("failures", "What failed", columns, rows, note)


def candidates(analysis: Analysis) -> Table:
    """Every candidate of every search, for CSV."""
    keys: dict[str, None] = {}
    for pool in analysis.run.candidates.values():
        for candidate in pool:
            keys.update(dict.fromkeys(candidate.scores))
    columns = (
        Column("proposal"),
        Column("candidate", numeric=True),
        *(Column(f"score_{key}", numeric=True) for key in keys),
        Column("macs", numeric=True),
        Column("status"),
        Column("error"),
        Column("widths"),
    )
    rows = tuple(
        (
            Cell(str(key)),
            plain(c.index),
            *(plain(c.scores.get(score)) for score in keys),
            plain(c.costs.get("macs")),
            Cell(c.status),
            said(c.error),
            Cell(" ".join(map(str, c.widths))),
        )
        for key, pool in analysis.run.candidates.items()
        for c in pool
    )
    return Table("candidates", "Candidates", columns, rows)


def training_epochs(analysis: Analysis) -> Table:
    """Every metric of every epoch, for CSV."""
    run = analysis.run
    epochs = [(row.network, row.epoch, row.metrics) for row in run.preparation]
    epochs += [
        (str(training.key), number, metrics)
        for training in sorted(run.trainings, key=lambda training: training.key)
        for number, metrics in enumerate(training.history, start=1)
    ]
    keys = list(dict.fromkeys(key for _, _, metrics in epochs for key in metrics))
    columns = (
        Column("training"),
        Column("epoch", numeric=True),
        *(Column(key, numeric=True) for key in keys),
    )
    rows = tuple(
        (Cell(name), plain(number), *(plain(metrics.get(key)) for key in keys))
        for name, number, metrics in epochs
    )
    return Table("epochs", "Epochs", columns, rows)
