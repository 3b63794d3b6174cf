"""The protocol of a benchmark in words, made from its record."""

from __future__ import annotations

from collections.abc import Mapping

from randprune.bench.analysis import Analysis
from randprune.report.document import Block, Facts, Text
from randprune.report.estimates import magnitude
from randprune.report.format import number, often, percent, seconds, si
from randprune.report.names import METRIC_NAMES, Names, spaced
from randprune.report.status import shared_openings
from randprune.report.table import Cell, Column, Table

_RANKED = {
    "kl": "the divergence of their outputs from the dense network's",
    "loss": "their loss",
    "accuracy": "their accuracy",
}


def protocol_blocks(analysis: Analysis, names: Names) -> tuple[Block, ...]:
    """What was fixed before the first result, for readers and for a paper's appendix."""
    return (
        *sentences(analysis, names),
        Facts("Fixed for all rows", _facts(analysis, names)),
        methods(analysis, names),
    )


def sentences(analysis: Analysis, names: Names) -> tuple[Text, ...]:
    """The rules, one paragraph each."""
    run, protocol = analysis.run, analysis.run.protocol
    metric = METRIC_NAMES.get(run.budget.metric, run.budget.metric)
    images = run.model.images
    draws, trainings = len(protocol.draw_seeds), len(protocol.training_seeds)
    lengths = ", ".join(number(epochs) for epochs in protocol.epochs)
    split = ", ".join(f"{number(count)} {name}" for name, count in images.items())
    use, words = run.test_set, names.words
    of, least = ("", "channels") if names.ranked else (" of the dense network", "largest width")
    judged = (
        ""
        if names.ranked
        else (", each with its slice of the shared weights and batch-norm statistics of its own")
    )
    return (
        Text(
            f"{words.setting} A method only proposes a network; the runner alone "
            f"{words.runner.format(recovery=protocol.recovery)}, in the same way for all. "
            f"Each network keeps {percent(run.budget.ratio)} ± {percent(run.budget.tolerance)} of "
            f"the {metric}{of}, each group at least {percent(protocol.min_keep, 0)} of its {least}"
            + (f", in multiples of {protocol.round_to}." if protocol.round_to > 1 else ".")
        ),
        Text(
            f"{draws} {'draw' if draws == 1 else 'draws'} of configurations, the same for all "
            f"rows, and {trainings} {'training' if trainings == 1 else 'trainings'} of each "
            f"network for {lengths} epochs{words.none}. Candidates are compared by "
            f"{_RANKED.get(protocol.rank_by, protocol.rank_by)} on the search images{judged}. The "
            "last epoch counts, never the best one."
        ),
        Text(
            (f"Images: {split}. " if split else "")
            + f"The test set was read {often(use.before_final)} before the final evaluation"
            + (
                f" and {often(use.final)} in it.{shared_openings(run.openings)}"
                if use.final
                else "; the final evaluation is still to come."
            )
        ),
        *(Text(f"{note.rstrip('.')}.") for note in protocol.notes),
        Text(
            f"Differences are taken to {names.reference_name} within each "
            f"draw. Smaller ones than {magnitude(protocol.margin)} count as equivalent; "
            f"intervals and tests are at {percent(protocol.confidence, 0)} confidence."
        ),
    )


def _facts(analysis: Analysis, names: Names) -> dict[str, str]:
    run, protocol = analysis.run, analysis.run.protocol
    spent = sum(entry.seconds for entry in run.ledger)
    facts = {
        "Network": run.model.title,
        "Data": run.model.data,
        names.words.checkpoint: protocol.weights_hash,
        "Dense MACs": si(run.dense.macs),
        "Dense parameters": si(run.dense.params),
        "Seeds of draws": ", ".join(map(str, protocol.draw_seeds)),
        "Seeds of trainings": ", ".join(map(str, protocol.training_seeds)),
        **_listed("Widening", protocol.widen),
        **_listed("Shared weights", protocol.supernet),
        **_listed(names.words.heading, protocol.finetune),
        "Time spent": seconds(spent) if spent else "",
    }
    return {name: value for name, value in facts.items() if value}


def _listed(what: str, keys: Mapping[str, object]) -> dict[str, str]:
    return {f"{what}, {spaced(key)}": str(value) for key, value in keys.items()}


def methods(analysis: Analysis, names: Names) -> Table:
    """The methods with what they do and how they were set."""
    columns = (
        Column("label", "Method"),
        Column("words", "What it does"),
        Column("criteria", "Criteria", shown="both" if names.ranked else "csv"),
        Column("options", "Options"),
        Column("epochs", "Epochs"),
    )
    rows = tuple(
        (
            Cell(info.label, info.label, info.method if info.method != info.label else ""),
            Cell(info.words or "–"),
            Cell(", ".join(map(spaced, info.criteria))),
            Cell(
                ", ".join(f"{key} = {value}" for key, value in info.options.items()) or "defaults"
            ),
            Cell(", ".join(map(str, info.epochs))),
        )
        for info in analysis.run.protocol.methods
    )
    return Table("methods", "Methods", columns, rows)
