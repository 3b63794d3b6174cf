"""One run as a report: the sentence at its top, key figures, and the sections in reading order."""

from __future__ import annotations

from dataclasses import asdict

from randprune.provenance import portable
from randprune.report.document import Facts, Folded, Page, Report, Section, Text, Tile, present
from randprune.report.format import moment, number, often, percent, seconds, si, size, speed, tiny
from randprune.report.ledger import ledger_chart, ledger_entries, ledger_table
from randprune.report.names import IMAGE_NAMES, METRIC_NAMES
from randprune.report.reproduce import footer, reproduce
from randprune.report.run import curve, figures, tables
from randprune.report.run.analysis import RunAnalysis
from randprune.report.run.networks import networks, results
from randprune.report.run.records import RunRecord
from randprune.report.status import (
    STATUS,
    early_reading_notices,
    shared_openings,
    status_notices,
    versions_notices,
)
from randprune.store import (
    SEARCH_TOP1,
    SEARCHED,
    ArtifactInfo,
    BudgetInfo,
    ModelInfo,
    Notes,
    Reproduce,
    SearchInfo,
    SpaceInfo,
    UseOfTestSet,
    Verification,
)

_KINDS = {
    "prune": "Pruning a pre-trained network",
    "scratch": "Pruning from scratch",
    "bench": "Benchmark",
}


def run_report(record: RunRecord) -> Report:
    """The report of one run, with whatever it has recorded so far."""
    analysis, info = RunAnalysis(record), record.info
    side_by_side, rows = results(analysis), networks(analysis)
    candidates, frozen = tables.candidates(analysis), tables.frozen(record)
    widths, epochs = tables.widths(analysis), tables.epochs(record)
    budgets = curve.table(analysis)
    sentence = _headline(analysis)
    sections = (
        Section.of("budgets", "Budgets", curve.chart(analysis, budgets), budgets),
        # What was asked for comes first, the words behind it.
        Section.of(
            "result",
            "Result",
            figures.stages(analysis, rows),
            figures.tradeoff(analysis),
            figures.time_tradeoff(analysis),
            side_by_side,
            _use_of_test_set(record),
        ),
        Section.of(
            "search",
            "Search",
            figures.spread(analysis),
            figures.best_of(analysis),
            figures.candidate_costs(analysis),
            figures.proxy(analysis),
            Facts("How candidates were made", _search_facts(record)),
            Folded(tables.first_candidates(candidates)),
        ),
        Section.of(
            "network",
            "Network",
            figures.widths(analysis, widths),
            Facts("The network", _network_facts(record)),
            Facts("Exactness check", _verification_facts(record)),
            frozen,
        ),
        Section.of(
            "training",
            analysis.words.heading,
            figures.accuracy(analysis, epochs),
            figures.loss(analysis),
        ),
        Section.of("cost", "Cost", ledger_chart(analysis.ledger), ledger_table(analysis.ledger)),
        Section.of(
            "reproduce",
            "Reproduce",
            *reproduce(info, record.milestone(Reproduce), record.sessions),
        ),
    )
    page = Page(
        title=f"{record.title} – randprune report",
        kicker=f"{_KINDS[info.kind]} · {record.title} · seed {info.seed} · {moment(info.started)}",
        headline=sentence,
        status=STATUS[record.status],
        sections=tuple(section for section in sections if section.blocks),
        tiles=_tiles(analysis),
        notices=_notices(record),
        footer=footer(info, f" of {record.runs_in_folder}"),
    )
    csv = (budgets, rows, candidates, widths, epochs, ledger_entries(analysis.ledger), frozen)
    return Report(page, present(csv), _summary(analysis, sentence), budgets or side_by_side)


def _headline(analysis: RunAnalysis) -> str:
    """The result in one sentence, or how far the run has come."""
    record, chosen, dense = analysis.record, analysis.chosen, analysis.dense
    if record.curve:
        return curve.headline(analysis)
    last = chosen.last if chosen else None
    if chosen is not None and last is not None and last.share is not None:
        parts = []
        if chosen.macs is not None and dense is not None and dense.macs:
            parts.append(f"{percent(chosen.macs / dense.macs)} of the MACs")
        if chosen.speedup is not None and chosen.speedup.clear:
            parts.append(speed(chosen.speedup.median))
        accuracy = f"{analysis.scale.text(last.share)} test {analysis.scale.noun}"
        short = " after a short distillation" if analysis.distilled else " without any training"
        accuracy += "" if last.stage == "finetuned" else short
        if dense is not None and dense.last is not None and dense.last.share is not None:
            accuracy += f" (dense {analysis.scale.text(dense.last.share)})"
        return f"{record.title}: {', '.join([*parts, accuracy])}"
    if analysis.scored:
        best = max(c.scores[SEARCH_TOP1] for c in analysis.scored)
        search = record.milestone(SearchInfo)
        planned = f" of {number(search.planned)}" if search else ""
        return (
            f"{record.title}: {number(len(analysis.scored))}{planned} candidates evaluated, "
            f"the best so far {analysis.scale.of_score(best)} on the search images"
        )
    return f"{record.title}: nothing evaluated yet"


def _summary(analysis: RunAnalysis, headline: str) -> dict[str, object]:
    """The result as JSON-ready data, for `--json` and for scripts."""
    record, chosen = analysis.record, analysis.chosen
    faster = chosen.speedup if chosen else None
    return {
        "headline": headline,
        "status": record.status,
        "error": record.info.error,
        "run": record.info.id,
        "candidates": len(record.candidates),
        "speedup": None if faster is None else faster.median,
        "metric": asdict(analysis.scale.metric),
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


# -- top of the page ---------------------------------------------------------------------------


def _tiles(analysis: RunAnalysis) -> tuple[Tile, ...]:
    record, chosen, dense = analysis.record, analysis.chosen, analysis.dense
    found: list[Tile] = []
    last = chosen.last if chosen else None
    if chosen is not None and last is not None and last.share is not None:
        scale, stage = analysis.scale, analysis.words.stage(last.stage)
        seeds = f"{len(last.tests)} seeds" if len(last.tests) > 1 else ""
        spread = " – ".join(map(scale.text, last.interval)) if last.interval else ""
        about = ", ".join(filter(None, (seeds, spread, stage)))
        found.append(Tile(scale.title("test"), scale.text(last.share, 2), about))
        for name, kept, whole in (
            ("MACs kept", chosen.macs, dense.macs if dense else None),
            ("Parameters kept", chosen.params, dense.params if dense else None),
        ):
            if kept is not None and whole:
                found.append(Tile(name, percent(kept / whole), f"{si(kept)} of {si(whole)}"))
        if chosen.speedup is not None:
            note = f"measured speed-up, {chosen.speedup.low:.2f} – {chosen.speedup.high:.2f}"
            said = speed(chosen.speedup.median) if chosen.speedup.clear else "undecided"
            found.append(Tile("Speed", said, note))
    artifact = record.milestone(ArtifactInfo)
    if artifact is not None:
        # A line may break before the suffix.
        stem, dot, suffix = artifact.file.rpartition(".")
        found.append(Tile("File", size(artifact.size_bytes), f"{stem}\u200b{dot}{suffix}"))
    if analysis.ledger.total.seconds:
        evaluated = sum(SEARCH_TOP1 in c.scores for c in record.candidates)
        spent = seconds(analysis.ledger.total.seconds)
        found.append(Tile("Time spent", spent, f"{number(evaluated)} candidates"))
    verification = record.milestone(Verification)
    if verification is not None:
        error = verification.relative_error
        note = "" if error is None else f"relative error {tiny(error)}"
        found.append(Tile("Exactness", "verified" if verification.passed else "failed", note))
    return tuple(found)


def _notices(record: RunRecord) -> tuple[Text, ...]:
    found = list(status_notices(record.status, record.info.error))
    verification = record.milestone(Verification)
    if verification is not None and not verification.passed:
        found.append(
            Text(
                "The cut network does not compute what the masked dense network computes: "
                f"{verification.message or 'verification failed'}. Do not use it.",
                "bad",
            )
        )
    use, notes = record.milestone(UseOfTestSet), record.milestone(Notes)
    found += early_reading_notices(use.before_final if use else 0)
    found += [Text(line, "warn") for line in (notes.lines if notes else ())]
    return (*found, *versions_notices(record.sessions))


# -- sections ----------------------------------------------------------------------------------


def _use_of_test_set(record: RunRecord) -> Text | None:
    use = record.milestone(UseOfTestSet)
    if use is None:
        return None
    return Text(
        f"Candidates were compared on held-out training images. The test set was read "
        f"{often(use.before_final)} before the final evaluation and {often(use.final)} in "
        f"it, for all networks and stages.{shared_openings(record.openings)}"
    )


def _search_facts(record: RunRecord) -> dict[str, str]:
    search, budget = record.milestone(SearchInfo), record.milestone(BudgetInfo)
    model, space = record.milestone(ModelInfo), record.milestone(SpaceInfo)
    facts: dict[str, str] = {}
    if budget is not None:
        metric = METRIC_NAMES.get(budget.metric, budget.metric)
        facts["Budget"] = f"{percent(budget.ratio)} ± {percent(budget.tolerance)} of the {metric}"
    if space is not None and space.reachable is not None:
        low, high = space.reachable
        facts["Budgets that can be met"] = f"{percent(low)} – {percent(high)}"
    if search is not None:
        done = sum(c.method == SEARCHED for c in record.candidates)
        facts["Candidates"] = f"{number(done)} of {number(search.planned)}"
        failed = sum(c.status == "failed" for c in record.candidates)
        if failed:
            facts["Failed candidates"] = number(failed)
        facts["Strategy"] = search.strategy
        facts["Criterion"] = search.criterion
        facts["Repair"] = search.recovery
        if search.images is not None:
            facts["Search images"] = number(search.images)
        if stopped := sum(c.stopped for c in record.candidates):
            facts["Stopped in the race"] = (
                f"{number(stopped)}, whose numbers are estimates from an eighth to a half of these "
                "images"
            )
        if search.draws is not None:
            met = search.acceptance
            rate = "" if met is None else f", {percent(met)} of them within the budget"
            facts["Configurations drawn"] = f"{number(search.draws)}{rate}"
    if model is not None:
        facts.update({IMAGE_NAMES.get(k, k): number(n) for k, n in model.images.items()})
    return {name: value for name, value in facts.items() if value}


def _network_facts(record: RunRecord) -> dict[str, str]:
    model, space = record.milestone(ModelInfo), record.milestone(SpaceInfo)
    artifact = record.milestone(ArtifactInfo)
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
            facts[f"Dense {METRIC_NAMES.get(name, name)}"] = si(cost) if cost else ""
    if artifact is not None:
        facts["Pruned network"] = f"{artifact.file}, {size(artifact.size_bytes)}"
        facts["SHA-256"] = artifact.sha256
    return {name: value for name, value in facts.items() if value}


def _verification_facts(record: RunRecord) -> dict[str, str]:
    verification = record.milestone(Verification)
    if verification is None:
        return {}
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
