"""The networks of a run as tables: side by side for people, one row each for CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from randprune.bench.stats import mean_interval
from randprune.report.cells import amount, plain
from randprune.report.format import number, percent, points, seconds, size, times
from randprune.report.names import color_of, from_scratch, stage_name, training_name
from randprune.report.records import RunRecord
from randprune.report.table import EMPTY, Cell, Column, Table
from randprune.report.timing import quartiles, speedup
from randprune.store import DENSE, Accuracy, Latency, NetworkRow, Stage


def results(record: RunRecord) -> Table | None:
    """One row a network: cost, speed, and accuracy at each stage that any of them reached."""
    if not record.networks:
        return None
    stages: list[Stage] = [
        stage
        for stage in ("finetuned", "repaired", "cut")  # what matters most stands first
        if any(r.stage == stage and (r.test or r.error) for r in record.networks)
    ]
    dense = record.dense
    if not stages and dense is not None and dense.test is not None:
        stages = ["dense"]
    timed = next((r.latency[0] for r in record.networks if r.latency), None)
    columns = [
        Column("network", "Network"),
        *(
            Column(f"test_{stage}", "Test accuracy", True, hint=stage_name(record, stage))
            for stage in stages
        ),
        Column("macs", "MACs", True, hint="FLOPs = 2 × MACs"),
        Column("params", "Parameters", True),
        Column("size", "Size on disk", True),
        Column("latency", "Latency", True, hint="" if timed is None else _setting(timed)),
        Column("speedup", "Speed-up", True),
    ]
    rows = [_result_row(record, label, stages, dense) for label in record.labels]
    # What nobody has is no column: the page of a run that has just begun is not all dashes.
    used = [
        i for i, _ in enumerate(columns) if i == 0 or any(row[i].text != EMPTY.text for row in rows)
    ]
    how = {row.recovery for row in record.networks if row.stage == "repaired" and row.recovery}
    trained = {row.epochs for row in record.networks if row.epochs is not None}
    images = sorted({row.test.images for row in record.networks if row.test})
    note = (
        f"Accuracy on {' or '.join(number(n) for n in images)} test images; the second line is the "
        "95\u00a0% Wilson interval, which covers the choice of images, not that of training or "
        "search, and the third the difference to the dense network. "
        if images
        else ""
    )
    if any(len(rows) > 1 for label in record.labels for rows in record.stages(label).values()):
        note += (
            "Of several seeds it is the mean with its 95\u00a0% t interval, which covers the "
            "chance of training. "
        )
    if timed is not None:
        note += (
            "Latency is the median of "
            f"{min(len(r.latency[0].seconds) for r in record.networks if r.latency)} or more "
            "repetitions, the second line its middle half."
        )
    note += f" Repair: {', '.join(sorted(how))}." if how else ""
    if trained:
        note += f" {training_name(record)}: {', '.join(map(number, sorted(trained)))} epochs."
    return Table(
        "results",
        "The networks side by side",
        tuple(columns[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in rows),
        note.strip(),
    )


def _result_row(
    record: RunRecord, label: str, stages: list[Stage], dense: NetworkRow | None
) -> list[Cell]:
    by_stage = record.stages(label)
    # Costs are those of the widths, equal at every stage; the latest row that has them tells.
    merged = [row for rows in reversed(by_stage.values()) for row in rows]
    first = merged[0]
    macs = next((row.macs for row in merged if row.macs is not None), None)
    params = next((row.params for row in merged if row.params is not None), None)
    size_bytes = next((row.size_bytes for row in merged if row.size_bytes is not None), None)
    latency = next((row.latency[0] for row in merged if row.latency), None)
    is_dense = first.role == DENSE
    detail = "" if first.candidate is None else f"candidate {first.candidate}"
    share = record.test_share(dense)
    accuracies = [_accuracy_cell(by_stage.get(stage, ()), share) for stage in stages]
    if is_dense:
        # The dense network is what it is: its one accuracy stands in every column to compare.
        cell = _accuracy_cell(by_stage.get("dense", ()), None)
        how = "same training" if from_scratch(record) else "as given"
        cell = replace(cell, note=f"{cell.note}\n{how}") if cell.note else cell
        accuracies = [cell] * len(stages)
    return [
        Cell(label, label, detail, tone=color_of(record, label)),
        *accuracies,
        amount(macs, None if is_dense or dense is None else dense.macs, flops=True),
        amount(params, None if is_dense or dense is None else dense.params),
        EMPTY
        if size_bytes is None
        else Cell(size(size_bytes), size_bytes, _share(size_bytes, dense, is_dense)),
        EMPTY if latency is None else _latency_cell(latency),
        _speedup_cell(latency, dense, is_dense),
    ]


def _share(size_bytes: int, dense: NetworkRow | None, is_dense: bool) -> str:
    if is_dense or dense is None or not dense.size_bytes:
        return ""
    return percent(size_bytes / dense.size_bytes)


def _latency_cell(latency: Latency) -> Cell:
    low, median, high = quartiles(latency)
    return Cell(seconds(median), median, f"{seconds(low)} – {seconds(high)}")


def _speedup_cell(latency: Latency | None, dense: NetworkRow | None, is_dense: bool) -> Cell:
    if is_dense or latency is None or dense is None or not dense.latency:
        return EMPTY
    found = speedup(dense.latency[0], latency)
    if found is None:
        return EMPTY
    how = "" if found.paired else " unpaired"
    return Cell(times(found.median), found.median, f"{found.low:.2f} – {found.high:.2f}{how}")


def accuracy_interval(tests: Sequence[Accuracy]) -> tuple[float, float]:
    """The 95 % interval of test accuracy, in shares: Wilson's of one network, t over seeds.

    The first covers the choice of images, the second the chance of training.
    """
    if len(tests) == 1:
        return tests[0].interval()
    resolution = 1 / max(test.images for test in tests)
    found = mean_interval([test.share for test in tests], resolution=resolution)
    assert found.low is not None
    assert found.high is not None
    return max(0.0, found.low), min(1.0, found.high)


def _accuracy_cell(rows: tuple[NetworkRow, ...], dense_share: float | None) -> Cell:
    tests = [row.test for row in rows if row.test is not None]
    if not tests:
        failed = next((row.error for row in rows if row.error), "")
        return Cell("failed", None, failed) if failed else EMPTY
    mean = fmean(test.share for test in tests)
    low, high = accuracy_interval(tests)
    note = f"{100 * low:.2f} – {100 * high:.2f}"
    if len(tests) > 1:
        note = f"{len(tests)} seeds, {note}"
    if dense_share is not None:
        note += f"\n{points(mean - dense_share, 2)}"
    return Cell(percent(mean, 2), mean, note)


def _setting(latency: Latency) -> str:
    threads = ""
    if latency.threads is not None:
        threads = f", {latency.threads} thread{'s' if latency.threads > 1 else ''}"
    return f"batch of {latency.batch_size}, {latency.dtype}, {latency.device}{threads}"


def networks(record: RunRecord) -> Table:
    """One row per network, stage and seed, with counts and intervals; one per further latency."""
    columns = (
        Column("label", "Network"),
        Column("role", shown="csv"),
        Column("stage", "Stage"),
        Column("seed", "Seed", True, "csv"),
        Column("test_top1", "Test accuracy", True),
        Column("test_low", shown="csv"),
        Column("test_high", shown="csv"),
        Column("test_correct", shown="csv"),
        Column("test_images", "Test images", True),
        Column("search_top1", "Search accuracy", True),
        Column("search_images", shown="csv"),
        Column("macs", "MACs", True),
        Column("flops", shown="csv"),
        Column("params", "Parameters", True),
        Column("size_bytes", shown="csv"),
        Column("latency_setting", shown="csv"),
        Column("latency_median_s", shown="csv"),
        Column("latency_q25_s", shown="csv"),
        Column("latency_q75_s", shown="csv"),
        Column("latency_repetitions", shown="csv"),
        Column("speedup", shown="csv"),
        Column("speedup_q25", shown="csv"),
        Column("speedup_q75", shown="csv"),
        Column("speedup_paired", shown="csv"),
        Column("candidate", shown="csv"),
        Column("recovery", shown="csv"),
        Column("epochs", shown="csv"),
        Column("error", shown="csv"),
        Column("widths", shown="csv"),
    )
    rows: list[tuple[Cell, ...]] = []
    for row in record.networks:
        # A second latency of the same network is another line, told by its setting.
        name = stage_name(record, row.stage)
        rows += [_network_cells(row, name, item, record.dense) for item in row.latency or (None,)]
    return Table("networks", "Networks", columns, tuple(rows))


def _network_cells(
    row: NetworkRow, stage: str, latency: Latency | None, dense: NetworkRow | None
) -> tuple[Cell, ...]:
    low, high = row.test.interval() if row.test else (None, None)
    timing = [EMPTY] * 5
    ratio = [EMPTY] * 4
    if latency is not None:
        q25, median, q75 = quartiles(latency)
        timing = [
            Cell(_setting(latency)),
            *(plain(v) for v in (median, q25, q75, len(latency.seconds))),
        ]
        pairs = [speedup(other, latency) for other in dense.latency] if dense else []
        found = next((pair for pair in pairs if pair is not None), None)
        if found is not None:
            ratio = [plain(v) for v in (found.median, found.low, found.high, found.paired)]
    return (
        Cell(row.label),
        Cell(row.role),
        Cell(stage, row.stage),
        plain(row.seed),
        _share_cell(row.test),
        plain(low),
        plain(high),
        plain(row.test.correct if row.test else None),
        plain(row.test.images if row.test else None),
        _share_cell(row.search),
        plain(row.search.images if row.search else None),
        amount(row.macs),
        plain(None if row.macs is None else 2 * row.macs),
        amount(row.params),
        plain(row.size_bytes),
        *timing,
        *ratio,
        plain(row.candidate),
        Cell(row.recovery) if row.recovery else EMPTY,
        plain(row.epochs),
        Cell(row.error) if row.error else EMPTY,
        Cell(" ".join(map(str, row.widths))) if row.widths else EMPTY,
    )


def _share_cell(accuracy: Accuracy | None) -> Cell:
    return EMPTY if accuracy is None else Cell(percent(accuracy.share, 2), accuracy.share)
