"""The final numbers: the test set, opened once, and the clock, for all networks side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from randprune.artifact import save
from randprune.evaluate import Evaluator
from randprune.graph.program import private_copy
from randprune.jobs.job import Job
from randprune.latency import measure_latency
from randprune.store import (
    DENSE,
    Accuracy,
    Latency,
    NetworkRow,
    Stage,
    UseOfTestSet,
)
from randprune.zoo.data import in_memory

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


def final_numbers(job: Job[Any], entrants: Sequence[Entrant]) -> tuple[NetworkRow, ...]:
    """The rows of all networks, complete: test accuracy in float32, size on disk, latency.

    The test set is opened here, and nowhere else in a job, for all networks at once.
    """
    recorded = {(row.label, row.stage, row.seed): row for row in job.run.networks()}
    missing = [
        e
        for e in entrants
        if (known := recorded.get((e.row.label, e.row.stage, e.row.seed))) is None
        or known.test is None
    ]
    if missing:
        latency = _latencies(job, entrants)
        before = job.data.test_opened
        test = in_memory(job.data.open_test(f"final numbers of a {job.space.model}"))
        use = job.run.read(UseOfTestSet) or UseOfTestSet(before, 0)
        job.run.write(UseOfTestSet(use.before_final, use.final + 1))
        evaluator = job.evaluator(test, "test", "float32")
        done = len(entrants) - len(missing)
        with job.phase("test", "Test accuracy", total=len(entrants), done=done) as running:
            for entrant in missing:
                row = _complete(job, entrant, evaluator, latency.get(entrant.row.label, ()))
                running.step(test_top1=row.test.share if row.test else 0.0)
    return job.run.networks()


def _complete(
    job: Job[Any], entrant: Entrant, evaluator: Evaluator, latency: tuple[Latency, ...]
) -> NetworkRow:
    """Measure, and record, one network."""
    row = entrant.row
    found = evaluator.accuracy(entrant.network, name=row.label)
    fields = {name: getattr(row, name) for name in NetworkRow.__dataclass_fields__}
    path = save(entrant.network, job.work / "size.safetensors")
    fields |= {
        "test": Accuracy(found.correct, found.n),
        "params": sum(p.numel() for p in entrant.network.parameters()),
        "size_bytes": path.stat().st_size,
        "latency": latency if entrant.timed else (),
    }
    complete = NetworkRow(**fields)
    entry = job.entry(
        "test",
        f"test/{row.label}/{row.stage}" + ("" if row.seed is None else f"/{row.seed}"),
        seconds=found.seconds,
        forward={row.macs or 0.0: found.n},
    )
    with job.run.transaction():
        job.run.put_network(complete)
        job.run.add_cost(entry)
    path.unlink()
    return complete


def _latencies(job: Job[Any], entrants: Sequence[Entrant]) -> dict[str, tuple[Latency, ...]]:
    """Latency of each timed network, by label: measured in turns, at several batch sizes."""
    budget = job.recipe.output.latency_seconds
    if budget == 0:
        return {}
    place = job.device or ("cuda" if torch.cuda.is_available() else "cpu")
    networks = {e.row.label: private_copy(e.network).to(place) for e in entrants if e.timed}
    found: dict[str, list[Latency]] = {label: [] for label in networks}
    start = time.perf_counter()
    with job.phase("latency", "Latency", total=len(_BATCHES)) as running:
        for batch in _BATCHES:
            images = job.example.to(place).repeat(batch, *[1] * (job.example.ndim - 1))
            rounds = _rounds(networks, images, budget)
            for label, latency in measure_latency(networks, images, repeats=rounds).items():
                found[label].append(
                    Latency(
                        seconds=tuple(ms / 1000.0 for ms in latency.samples_ms),
                        batch_size=latency.batch,
                        device=latency.device,
                        dtype=latency.dtype,
                        threads=latency.threads,
                        interleaved=True,
                    )
                )
            running.step()
    job.run.add_cost(job.entry("latency", "latency", seconds=time.perf_counter() - start))
    return {label: tuple(rows) for label, rows in found.items()}


def _rounds(networks: Mapping[str, nn.Module], images: Tensor, budget: float) -> int:
    """How many rounds fit into `budget` seconds, judged by one round."""
    once = measure_latency(networks, images, repeats=1, warmup=1)
    seconds = sum(latency.median_ms for latency in once.values()) / 1000.0
    return int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, budget / max(seconds, 1e-6))))


def entrant(
    job: Job[Any],
    network: nn.Module,
    *,
    role: str,
    label: str,
    stage: Stage,
    widths: tuple[int, ...] = (),
    search: Accuracy | None = None,
    candidate: int | None = None,
    recovery: str = "",
    epochs: float | None = None,
    timed: bool = False,
    seed: int | None = None,
) -> Entrant:
    """A network to be measured; its MACs follow from its widths."""
    configuration = job.space.check_widths(widths) if widths else job.space.widths
    row = NetworkRow(
        label=label,
        role=role,
        stage=stage,
        search=search,
        macs=float(job.space.cost("macs")(configuration)),
        widths=widths or tuple(job.space.widths.tolist()),
        candidate=candidate,
        recovery=recovery if role != DENSE else "",
        epochs=epochs,
        seed=seed,
    )
    return Entrant(row, network, timed)
