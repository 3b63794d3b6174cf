"""The networks of a run as tables: side by side for people, one row each for CSV."""

from __future__ import annotations

from dataclasses import replace

from randprune.report.format import number, percent, seconds, size, times
from randprune.report.run.analysis import NetworkResult, RunAnalysis, StageResult
from randprune.report.scale import Scale
from randprune.report.table import EMPTY, Cell, Column, Table, amount, plain, said, share
from randprune.store import DENSE, Accuracy, Latency, NetworkRow, Result, Stage
from randprune.store.speedup import Speedup, quartiles, speedup


def results(analysis: RunAnalysis) -> Table | None:
    """One row a network: cost, speed, and accuracy at each stage that any of them reached."""
    found, record, words = analysis.networks, analysis.record, analysis.words
    if not found:
        return None
    stages: list[Stage] = [
        stage
        for stage in ("finetuned", "repaired", "cut")  # what matters most stands first
        if any(r.stage == stage and (r.test or r.error) for r in record.networks)
    ]
    dense = analysis.dense
    if not stages and dense is not None and dense.last is not None:
        stages = ["dense"]
    timed = next((n.latency for n in found if n.latency), None)
    columns = [
        Column("network", "Network"),
        *(
            Column(
                f"test_{stage}",
                analysis.scale.title("test"),
                True,
                hint=words.stage(stage),
                minor=i > 0,
            )
            for i, stage in enumerate(stages)
        ),
        Column("macs", "MACs", True, hint="FLOPs = 2 × MACs"),
        Column("params", "Parameters", True, minor=True),
        Column("size", "Size on disk", True, minor=True),
        Column(
            "latency", "Latency", True, hint=setting_in_words(timed) if timed else "", minor=True
        ),
        Column("speedup", "Speed-up", True),
    ]
    rows = [_result_row(network, stages, analysis) for network in found]
    # What nobody has is no column: the page of a run that has just begun is not all dashes.
    used = [
        i for i, _ in enumerate(columns) if i == 0 or any(row[i].text != EMPTY.text for row in rows)
    ]
    return Table(
        "results",
        "The networks side by side",
        tuple(columns[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in rows),
        _note(analysis),
    )


def _note(analysis: RunAnalysis) -> str:
    record, words = analysis.record, analysis.words
    images = sorted({test.images for test in analysis.intervals})
    parts = []
    if images:
        parts.append(
            f"{analysis.scale.title()} on {' or '.join(number(n) for n in images)} test images; "
            + (
                "the second line is the 95\u00a0% Wilson interval, which covers the choice of "
                "images, not that of training or search, and the third the difference to the dense "
                "network."
                if all(found is not None for found in analysis.intervals.values())
                else "the second line is the difference to the dense network. "
                f"{_direction(analysis)}"
            )
        )
    if any(len(stage.rows) > 1 for n in analysis.networks for stage in n.stages.values()):
        parts.append(
            "Of several seeds it is the mean with its 95\u00a0% t interval, which covers the "
            "chance of training."
        )
    repetitions = [len(r.latency[0].seconds) for r in record.networks if r.latency]
    if repetitions:
        parts.append(
            f"Latency is the median of {min(repetitions)} or more repetitions, the second line its "
            "middle half."
        )
    how = {row.recovery for row in record.networks if row.stage == "repaired" and row.recovery}
    if how:
        parts.append(f"Repair: {', '.join(sorted(how))}.")
    trained = {row.epochs for row in record.networks if row.epochs is not None}
    if trained:
        parts.append(f"{words.heading}: {', '.join(map(number, sorted(trained)))} epochs.")
    return " ".join(parts)


def _direction(analysis: RunAnalysis) -> str:
    better = "Higher" if analysis.scale.metric.higher_is_better else "Lower"
    return f"{better} is better."


def _value(scale: Scale, found: Result | None) -> Cell:
    return measured(scale, None if found is None else found.share)


def measured(scale: Scale, value: float | None) -> Cell:
    """A value of the run's metric, with its unit."""
    if value is None:
        return EMPTY
    return share(value) if scale.shares else Cell(scale.text(value), value)


def _result_row(network: NetworkResult, stages: list[Stage], analysis: RunAnalysis) -> list[Cell]:
    dense = analysis.dense
    other = None if dense is None or dense is network else dense
    share = None if dense is None or dense.last is None else dense.last.share
    accuracies = [
        _accuracy_cell(analysis.scale, network.stages.get(stage), share) for stage in stages
    ]
    if network.role == DENSE:
        # The dense network is what it is: its one accuracy stands in every column to compare.
        cell = _accuracy_cell(analysis.scale, network.stages.get("dense"), None)
        how = "same training" if analysis.record.info.kind == "scratch" else "as given"
        cell = replace(cell, note=f"{cell.note}\n{how}") if cell.note else cell
        accuracies = [cell] * len(stages)
    detail = "" if network.candidate is None else f"candidate {network.candidate}"
    bytes_ = network.size_bytes
    return [
        Cell(network.label, network.label, detail, tone=network.color),
        *accuracies,
        amount(network.macs, other.macs if other else None, flops=True),
        amount(network.params, other.params if other else None),
        EMPTY if bytes_ is None else Cell(size(bytes_), bytes_, _share(bytes_, other)),
        EMPTY if network.latency is None else _latency_cell(network.latency),
        EMPTY if network.speedup is None else _speedup_cell(network.speedup),
    ]


def _share(size_bytes: int, dense: NetworkResult | None) -> str:
    return percent(size_bytes / dense.size_bytes) if dense and dense.size_bytes else ""


def _latency_cell(latency: Latency) -> Cell:
    low, median, high = quartiles(latency)
    return Cell(seconds(median), median, f"{seconds(low)} – {seconds(high)}")


def _speedup_cell(found: Speedup) -> Cell:
    how = "" if found.paired else " unpaired"
    return Cell(times(found.median), found.median, f"{found.low:.2f} – {found.high:.2f}{how}")


def _accuracy_cell(scale: Scale, result: StageResult | None, dense_share: float | None) -> Cell:
    if result is None:
        return EMPTY
    if result.share is None:
        return Cell("failed", None, result.error) if result.error else EMPTY
    note = ""
    if result.interval is not None:
        note = " – ".join(map(scale.bare, result.interval))
    if len(result.tests) > 1:
        note = f"{len(result.tests)} seeds, {note}"
    if dense_share is not None:
        note = f"{note}\n{scale.difference(result.share - dense_share, 2)}".lstrip()
    return Cell(scale.text(result.share, 2), result.share, note)


def setting_in_words(latency: Latency) -> str:
    """Where and how a latency was measured: "onnxruntime, batch of 1, float32, cpu, 1 thread"."""
    threads = ""
    if latency.threads is not None:
        threads = f", {latency.threads} thread{'s' if latency.threads > 1 else ''}"
    runtime = "" if latency.runtime == "torch" else f"{latency.runtime}, "
    return f"{runtime}batch of {latency.batch_size}, {latency.dtype}, {latency.device}{threads}"


def networks(analysis: RunAnalysis) -> Table:
    """One row per network, stage and seed, with counts and intervals; one per further latency."""
    columns = (
        Column("label", "Network"),
        Column("role", shown="csv"),
        Column("stage", "Stage"),
        Column("seed", "Seed", True, "csv"),
        Column("test_top1", analysis.scale.title("test"), True),
        Column("test_low", shown="csv"),
        Column("test_high", shown="csv"),
        Column("test_correct", shown="csv"),
        Column("test_images", "Test images", True),
        Column("search_top1", analysis.scale.title("search"), True),
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
    found = analysis.record.networks
    dense = next((row.latency for row in found if row.role == DENSE), ())
    # A second latency of the same network is another line, told by its setting.
    rows = [
        _network_cells(row, analysis, item, dense)
        for row in found
        for item in row.latency or (None,)
    ]
    return Table("networks", "Networks", columns, tuple(rows))


def _network_cells(
    row: NetworkRow, analysis: RunAnalysis, latency: Latency | None, dense: tuple[Latency, ...]
) -> tuple[Cell, ...]:
    low, high = (analysis.intervals[row.test] if row.test else None) or (None, None)
    timing = [EMPTY] * 5
    ratio = [EMPTY] * 4
    if latency is not None:
        q25, median, q75 = quartiles(latency)
        timing = [
            Cell(setting_in_words(latency)),
            *(plain(v) for v in (median, q25, q75, len(latency.seconds))),
        ]
        pairs = [speedup(other, latency) for other in dense]
        found = next((pair for pair in pairs if pair is not None), None)
        if found is not None:
            ratio = [plain(v) for v in (found.median, found.low, found.high, found.paired)]
    return (
        Cell(row.label),
        Cell(row.role),
        Cell(analysis.words.stage(row.stage), row.stage),
        plain(row.seed),
        _value(analysis.scale, row.test),
        plain(low),
        plain(high),
        plain(row.test.correct if isinstance(row.test, Accuracy) else None),
        plain(row.test.images if row.test else None),
        _value(analysis.scale, row.search),
        plain(row.search.images if row.search else None),
        amount(row.macs),
        plain(None if row.macs is None else 2 * row.macs),
        amount(row.params),
        plain(row.size_bytes),
        *timing,
        *ratio,
        plain(row.candidate),
        said(row.recovery),
        plain(row.epochs),
        said(row.error),
        said(" ".join(map(str, row.widths))),
    )
