"""The final numbers: the test set, opened once, and the clock, for all networks side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from randprune.artifact import save
from randprune.graph.program import Inputs, as_inputs, private_copy
from randprune.graph.trees import map_tensors
from randprune.jobs.ledger import cost_entry
from randprune.jobs.on_time import latency_of
from randprune.jobs.quality import Judge
from randprune.jobs.session import Session
from randprune.latency import LatencyCost, Timing, measure_latency
from randprune.latency.build import inputs_for
from randprune.store import (
    Latency,
    NetworkRow,
    Run,
    UseOfTestSet,
)

# Latency is measured at these batch sizes, in so many rounds.
_BATCHES = (1, 32)
_MOST_ROUNDS, _LEAST_ROUNDS = 50, 7


@dataclass(frozen=True, slots=True, eq=False)
class Entrant:
    """A network at one stage, and what is known of it before the test set is opened.

    `timed`: whether its latency is measured; stages of one network are equally fast.
    """

    row: NetworkRow
    network: nn.Module
    timed: bool = True


def measure(
    session: Session,
    run: Run,
    entrants: Sequence[Entrant],
    latency_seconds: float,
    opened_before: int,
) -> None:
    """Record the rows of all networks, complete: test accuracy in float32, size, latency.

    The test set is opened here, and nowhere else in a job, for all networks at once.

    Args:
        session: of the job.
        run: its records.
        entrants: the networks.
        latency_seconds: how long latency is measured, per batch size; 0: not at all.
        opened_before: how often the test set was opened while anything could still be chosen.
    """
    recorded = {(row.label, row.stage, row.seed): row for row in run.networks()}
    missing = [
        e
        for e in entrants
        if (known := recorded.get((e.row.label, e.row.stage, e.row.seed))) is None
        or known.test is None
    ]
    if not missing:
        return
    latency = _latencies(session, entrants, latency_seconds) if latency_seconds else {}
    judge = session.test_judge(f"final numbers of a {session.space.model}")
    use = run.read(UseOfTestSet) or UseOfTestSet(opened_before, 0)
    run.write(UseOfTestSet(use.before_final, use.final + 1))
    done = len(entrants) - len(missing)
    with session.phase("test", "Test accuracy", total=len(entrants), done=done) as running:
        for entrant in missing:
            timed = latency.get(entrant.row.label, ()) if entrant.timed else ()
            row = _complete(session, run, entrant, judge, timed)
            running.step(test_top1=row.test.share if row.test else 0.0)


def _complete(
    session: Session,
    run: Run,
    entrant: Entrant,
    judge: Judge,
    latency: tuple[Latency, ...],
) -> NetworkRow:
    """Measure, and record, one network."""
    row = entrant.row
    found = judge.quality(entrant.network, row.label)
    path = save(entrant.network, session.work.file("size"))
    complete = replace(
        row,
        test=found.result,
        params=sum(p.numel() for p in entrant.network.parameters()),
        size_bytes=path.stat().st_size,
        latency=latency,
    )
    path.unlink()
    entry = cost_entry(
        "test",
        f"test/{row.label}/{row.stage}" + ("" if row.seed is None else f"/{row.seed}"),
        seconds=found.seconds,
        device=session.device,
        forward={row.macs or 0.0: found.samples},
    )
    with run.transaction():
        run.put_network(complete)
        run.add_cost(entry)
    return complete


def _latencies(
    session: Session, entrants: Sequence[Entrant], budget: float
) -> dict[str, tuple[Latency, ...]]:
    """Latency of each timed network, by label: measured in turns, at several batch sizes."""
    place = session.device or ("cuda" if torch.cuda.is_available() else "cpu")
    networks = {e.row.label: private_copy(e.network).to(place) for e in entrants if e.timed}
    found: dict[str, list[Latency]] = {label: [] for label in networks}
    start = time.perf_counter()
    asked = latency_of(session)
    total = len(_BATCHES) + (asked is not None)
    with session.phase("latency", "Latency", total=total) as running:
        if asked is not None:
            # The first latency is the one that people read.
            for label, timed in _in_its_runtime(session, entrants, asked, budget).items():
                found[label].append(timed)
            running.step()
        for batch in _BATCHES:
            inputs = map_tensors(partial(_repeated, place, batch), as_inputs(session.example))
            rounds = _rounds(networks, inputs, budget)
            for label, timing in measure_latency(networks, inputs, repeats=rounds).items():
                found[label].append(_row(timing))
            running.step()
    session.spend("latency", "latency", start)
    return {label: tuple(rows) for label, rows in found.items()}


def _in_its_runtime(
    session: Session, entrants: Sequence[Entrant], cost: LatencyCost, budget: float
) -> dict[str, Latency]:
    """Latency in the runtime, with the threads and the batch, that the budget is about."""
    networks = {e.row.label: private_copy(e.network).cpu() for e in entrants if e.timed}
    setting = cost.setting
    seconds = cost.dense * len(networks) / 1000.0
    rounds = int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, budget / max(seconds, 1e-6))))
    found = measure_latency(
        networks,
        inputs_for(session.space, setting.batch),
        repeats=rounds,
        threads=setting.threads,
        runtime=setting.runtime,
    )
    return {label: _row(timing) for label, timing in found.items()}


def _row(timing: Timing) -> Latency:
    return Latency(
        seconds=tuple(ms / 1000.0 for ms in timing.samples_ms),
        batch_size=timing.batch,
        device=timing.device,
        dtype=timing.dtype,
        threads=timing.threads,
        interleaved=True,
        runtime=timing.runtime,
    )


def _repeated(place: str, times: int, value: Tensor) -> Tensor:
    """One sample's tensor as a batch of so many of it."""
    return value.to(place).repeat(times, *[1] * (value.ndim - 1)) if value.ndim else value.to(place)


def _rounds(networks: Mapping[str, nn.Module], inputs: Inputs, budget: float) -> int:
    """How many rounds fit into `budget` seconds, judged by one round."""
    once = measure_latency(networks, inputs, repeats=1, warmup=1)
    seconds = sum(latency.median_ms for latency in once.values()) / 1000.0
    return int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, budget / max(seconds, 1e-6))))


def entrant(
    session: Session, network: nn.Module, row: NetworkRow, *, timed: bool = False
) -> Entrant:
    """A network to be measured; its MACs follow from the row's widths, where it has none all."""
    widths = row.widths or tuple(session.space.widths.tolist())
    macs = session.macs(session.space.check_widths(widths))
    return Entrant(replace(row, widths=widths, macs=macs), network, timed)
