"""One run as a page: the sentence at its top, key figures, and the sections in reading order."""

from __future__ import annotations

from collections.abc import Iterable

from randprune.provenance import portable
from randprune.report import figures, tables
from randprune.report.chart import Chart
from randprune.report.format import moment, number, often, percent, seconds, si, size, speed, tiny
from randprune.report.html import Block, Facts, Folded, Page, Section, Text, Tile, Tone
from randprune.report.names import METRIC_NAMES, stage_name, training_name
from randprune.report.networks import accuracy_interval, results
from randprune.report.records import RunRecord
from randprune.report.reproduce import reproduce, version, versions_used
from randprune.report.table import Table
from randprune.report.timing import Speedup, speedup
from randprune.store import (
    SEARCH_TOP1,
    SEARCHED,
    ArtifactInfo,
    BudgetInfo,
    ModelInfo,
    NetworkRow,
    Notes,
    Reproduce,
    RunStatus,
    SearchInfo,
    SpaceInfo,
    UseOfTestSet,
    Verification,
)

STATUS: dict[RunStatus, tuple[str, Tone]] = {
    "finished": ("finished", "good"),
    "running": ("still running", "busy"),
    "interrupted": ("interrupted", "warn"),
    "failed": ("failed", "bad"),
}
"""A run's status as a word and its tone."""
_KINDS = {
    "prune": "Pruning a pre-trained network",
    "scratch": "Pruning from scratch",
    "bench": "Benchmark",
}


def build_page(record: RunRecord) -> Page:
    """The page of one run, with whatever it has recorded so far."""
    charts = {chart.id: chart for chart in figures.figures(record)}
    info = record.info
    again = reproduce(info, record.milestone(Reproduce), record.sessions)
    sections = (
        Section("result", "Result", _result(record, charts)),
        Section("search", "Search", _search(record, charts)),
        Section("network", "Network", _network(record, charts)),
        Section("training", training_name(record), _pick(charts, "epochs-accuracy", "epochs-loss")),
        Section("cost", "Cost", _cost(record, charts)),
        Section("reproduce", "Reproduce", again),
    )
    return Page(
        title=f"{record.title} – randprune report",
        kicker=f"{_KINDS[info.kind]} · {record.title} · seed {info.seed} · {moment(info.started)}",
        headline=headline(record),
        status=STATUS[record.status],
        sections=tuple(section for section in sections if section.blocks),
        tiles=_tiles(record),
        notices=_notices(record),
        footer=f"Written by randprune {version(info)} from run {info.id} of "
        f"{record.runs_in_folder} in its folder (recipe {info.recipe_hash}). One MAC is one "
        "multiply-add; FLOPs are twice the MACs. "
        "Ratios say what remains.",
    )


def headline(record: RunRecord) -> str:
    """The result in one sentence, or how far the run has come."""
    row, dense = record.chosen, record.dense
    share, dense_share = record.test_share(row), record.test_share(dense)
    if row is not None and share is not None:
        parts = []
        if row.macs is not None and dense is not None and dense.macs:
            parts.append(f"{percent(row.macs / dense.macs)} of the MACs")
        faster = _speedup(record, row)
        if faster is not None:
            parts.append(speed(faster.median))
        accuracy = f"{percent(share)} test accuracy"
        accuracy += "" if row.stage == "finetuned" else " without any training"
        if dense_share is not None:
            accuracy += f" (dense {percent(dense_share)})"
        return f"{record.title}: {', '.join([*parts, accuracy])}"
    scored = record.scored(SEARCHED)
    if scored:
        best = max(c.scores[SEARCH_TOP1] for c in scored)
        search = record.milestone(SearchInfo)
        planned = f" of {number(search.planned)}" if search else ""
        return (
            f"{record.title}: {number(len(scored))}{planned} candidates evaluated, "
            f"the best so far {percent(best)} on the search images"
        )
    return f"{record.title}: nothing evaluated yet"


def summary(record: RunRecord) -> dict[str, object]:
    """The result as JSON-ready data, for `--json` and for scripts."""
    row, faster = record.chosen, None
    if row is not None:
        faster = _speedup(record, row)
    return {
        "headline": headline(record),
        "status": record.status,
        "error": record.info.error,
        "run": record.info.id,
        "candidates": len(record.candidates),
        "speedup": None if faster is None else faster.median,
        "networks": [
            {
                "label": n.label,
                "role": n.role,
                "stage": n.stage,
                "seed": n.seed,
                "test_top1": n.test.share if n.test else None,
                "search_top1": n.search.share if n.search else None,
                "macs": n.macs,
                "params": n.params,
                "size_bytes": n.size_bytes,
                "error": n.error,
            }
            for n in record.networks
        ],
    }


def _speedup(record: RunRecord, row: NetworkRow) -> Speedup | None:
    """The chosen network's; timed at any of its stages, as training does not change its speed."""
    timed = [r for r in record.networks if r.label == row.label and r.latency]
    dense = record.dense
    if not timed or dense is None or not dense.latency:
        return None
    return speedup(dense.latency[0], timed[-1].latency[0])


# -- top of the page ---------------------------------------------------------------------------


def _tiles(record: RunRecord) -> tuple[Tile, ...]:
    row, dense = record.chosen, record.dense
    found: list[Tile] = []
    if row is not None and row.test is not None:
        same = [r for r in record.networks if (r.label, r.stage) == (row.label, row.stage)]
        tests = [r.test for r in same if r.test is not None]
        low, high = accuracy_interval(tests)
        spread = f"{percent(low)} – {percent(high)}"
        if len(tests) > 1:
            spread = f"{len(tests)} seeds, {spread}"
        found.append(
            Tile(
                "Test accuracy",
                percent(record.test_share(row) or 0.0, 2),
                f"{spread}, {stage_name(record, row.stage)}",
            )
        )
        if row.macs is not None and dense is not None and dense.macs:
            ratio = percent(row.macs / dense.macs)
            found.append(Tile("MACs kept", ratio, f"{si(row.macs)} of {si(dense.macs)}"))
        if row.params is not None and dense is not None and dense.params:
            ratio = percent(row.params / dense.params)
            found.append(Tile("Parameters kept", ratio, f"{si(row.params)} of {si(dense.params)}"))
        faster = _speedup(record, row)
        if faster is not None:
            note = f"measured speed-up, {faster.low:.2f} – {faster.high:.2f}"
            found.append(Tile("Speed", speed(faster.median), note))
    artifact = record.milestone(ArtifactInfo)
    if artifact is not None:
        found.append(Tile("File", size(artifact.size_bytes), artifact.file))
    spent = sum(entry.seconds for entry in record.ledger)
    if spent:
        found.append(Tile("Time spent", seconds(spent), f"{number(_evaluated(record))} candidates"))
    verification = record.milestone(Verification)
    if verification is not None:
        error = verification.relative_error
        note = "" if error is None else f"relative error {tiny(error)}"
        found.append(Tile("Exactness", "verified" if verification.passed else "failed", note))
    return tuple(found)


def _evaluated(record: RunRecord) -> int:
    return sum(SEARCH_TOP1 in c.scores for c in record.candidates)


def _notices(record: RunRecord) -> tuple[Text, ...]:
    info, found = record.info, []
    if record.status == "running":
        found.append(
            Text(
                "This run is still at work. The page shows what was recorded when it was written; "
                "write it again for more.",
                "busy",
            )
        )
    elif record.status == "interrupted":
        found.append(
            Text(
                "This run was interrupted before its end. The page shows what was recorded until "
                "then; the same command continues it where it stopped.",
                "warn",
            )
        )
    elif record.status == "failed":
        found.append(Text(f"This run failed: {info.error}", "bad"))
    verification = record.milestone(Verification)
    if verification is not None and not verification.passed:
        found.append(
            Text(
                "The cut network does not compute what the masked dense network computes: "
                f"{verification.message or 'verification failed'}. Do not use it.",
                "bad",
            )
        )
    use = record.milestone(UseOfTestSet)
    if use is not None and use.before_final:
        found.append(
            Text(
                f"The test set was read {often(use.before_final)} before the final "
                "evaluation: its accuracy is not that of unseen images.",
                "bad",
            )
        )
    notes = record.milestone(Notes)
    found += [Text(line, "warn") for line in (notes.lines if notes else ())]
    if len(versions_used(record.sessions)) > 1:
        found.append(
            Text("The sessions of this run used different versions; see Reproduce.", "warn")
        )
    return tuple(found)


# -- sections ----------------------------------------------------------------------------------


def _result(record: RunRecord, charts: dict[str, Chart]) -> tuple[Block, ...]:
    table = results(record)
    blocks: list[Block] = [] if table is None else [table]
    use = record.milestone(UseOfTestSet)
    if use is not None:
        blocks.append(
            Text(
                f"Candidates were compared on held-out training images. The test set was read "
                f"{often(use.before_final)} before the final evaluation and {often(use.final)} in "
                "it, for all networks and stages."
            )
        )
    blocks += _pick(charts, "accuracy-stages", "accuracy-macs")
    return tuple(blocks)


def _search(record: RunRecord, charts: dict[str, Chart]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    facts = _search_facts(record)
    blocks += _pick(charts, "spread", "best-of-n", "candidates-cost", "proxy")
    if facts:
        blocks.append(Facts("How candidates were made", facts))
    table = tables.candidates(record)
    if table.rows:
        blocks.append(Folded(table))
    return tuple(blocks)


def _search_facts(record: RunRecord) -> dict[str, str]:
    search, budget = record.milestone(SearchInfo), record.milestone(BudgetInfo)
    model, space = record.milestone(ModelInfo), record.milestone(SpaceInfo)
    facts: dict[str, str] = {}
    if budget is not None:
        metric = METRIC_NAMES.get(budget.metric, budget.metric)
        facts["Budget"] = f"{percent(budget.ratio)} ± {percent(budget.tolerance)} of the {metric}"
    if space is not None and space.reachable is not None:
        low, high = space.reachable
        facts["Reachable"] = f"{percent(low)} – {percent(high)}"
    if search is not None:
        done = sum(c.method == SEARCHED for c in record.candidates)
        facts["Candidates"] = f"{number(done)} of {number(search.planned)}"
        failed = sum(c.status == "failed" for c in record.candidates)
        if failed:
            facts["Failed candidates"] = number(failed)
        facts["Strategy"] = search.strategy
        facts["Criterion"] = search.criterion
        facts["Recovery"] = search.recovery
        if search.images is not None:
            facts["Search images"] = number(search.images)
        if search.draws is not None:
            rate = "" if search.acceptance is None else f", {percent(search.acceptance)} accepted"
            facts["Configurations drawn"] = f"{number(search.draws)}{rate}"
    if model is not None:
        facts.update({f"Images, {name}": number(n) for name, n in model.images.items()})
    return {name: value for name, value in facts.items() if value}


def _network(record: RunRecord, charts: dict[str, Chart]) -> tuple[Block, ...]:
    blocks: list[Block] = list(_pick(charts, "widths"))
    verification, model = record.milestone(Verification), record.milestone(ModelInfo)
    space, artifact = record.milestone(SpaceInfo), record.milestone(ArtifactInfo)
    facts: dict[str, str] = {}
    if model is not None:
        facts["Model"] = model.name
        facts["Input"] = " × ".join(map(str, model.input_shape))
        facts["Classes"] = "" if model.classes is None else number(model.classes)
        facts["Weights"] = portable(model.weights)
        facts["Data"] = portable(model.data)
    if space is not None:
        facts["Channel groups"] = number(len(space.groups))
        for name, cost in space.dense.items():
            facts[f"Dense {METRIC_NAMES.get(name, name)}"] = si(cost)
    if artifact is not None:
        facts["Pruned network"] = f"{artifact.file}, {size(artifact.size_bytes)}"
        facts["SHA-256"] = artifact.sha256
    facts = {name: value for name, value in facts.items() if value}
    if facts:
        blocks.append(Facts("The network", facts))
    if verification is not None:
        blocks.append(Facts("Exactness check", _verification_facts(verification)))
    frozen = tables.frozen(record)
    if frozen is not None and frozen.rows:
        blocks.append(frozen)
    return tuple(blocks)


def _verification_facts(verification: Verification) -> dict[str, str]:
    error, tolerance = verification.relative_error, verification.tolerance
    facts = {
        "Question": "Does the cut network compute what the dense one computes with the cut "
        "channels masked?",
        "Answer": "yes" if verification.passed else "no",
        "Relative error": "" if error is None else tiny(error),
        "Tolerance": "" if tolerance is None else tiny(tolerance),
        "Message": verification.message,
    }
    return {name: value for name, value in facts.items() if value}


def _cost(record: RunRecord, charts: dict[str, Chart]) -> tuple[Block, ...]:
    table: Table = tables.ledger(record.ledger)
    return (table, *_pick(charts, "ledger")) if table.rows else ()


def _pick(charts: dict[str, Chart], *names: str) -> tuple[Chart, ...]:
    return tuple(_present(charts.get(name) for name in names))


def _present(charts: Iterable[Chart | None]) -> Iterable[Chart]:
    return (chart for chart in charts if chart is not None)
