"""Which finalist keeps a latency budget by measurement, not by prediction alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from randprune.cost import LATENCY
from randprune.jobs.session import Session
from randprune.latency import LatencyCost, Runner, paired_ms
from randprune.latency.build import NOISY, inputs_for
from randprune.latency.timing import named_runtime
from randprune.store import Candidate

MEASURED = "latency_measured"
"""The key of a candidate's costs that holds its measured latency, in milliseconds."""
_OVER = 0.05
"""A network keeps the budget where it takes no more than this share beyond it."""


def latency_of(session: Session) -> LatencyCost | None:
    """The session's latency cost, where its budget is one of latency."""
    if session.budget.metric != LATENCY:
        return None
    cost = session.space.cost(LATENCY)
    assert isinstance(cost, LatencyCost)
    return cost


class OnTime:
    """Measures finalists beside the dense network, in the budget's runtime.

    Args:
        session: of the job, with a latency budget.
        cost: its latency cost.
    """

    def __init__(self, session: Session, cost: LatencyCost) -> None:
        self._session, self._cost, self._dense = session, cost, None
        self.notes: list[str] = []

    _dense: Runner | None

    def first(
        self, ranked: Sequence[Candidate], network: Callable[[Candidate], nn.Module]
    ) -> Candidate:
        """The first candidate that keeps the budget, else the fastest; measured ones are recorded.

        Milliseconds refer to the dense network's in the table: what is measured is the share of it.

        Args:
            ranked: best first.
            network: makes the network of a candidate.
        """
        allowed = self._session.budget.ratio * self._cost.dense
        measured: list[Candidate] = []
        for candidate in ranked:
            measured.append(self._measured(candidate, network))
            found = measured[-1].costs[MEASURED]
            if found <= allowed * (1.0 + _OVER):
                self.notes.append(
                    f"Latency in {self._cost.setting.runtime}: {found:.3g} ms measured, "
                    f"{candidate.costs[LATENCY]:.3g} ms predicted, {allowed:.3g} ms asked, "
                    f"{self._cost.dense:.3g} ms dense."
                )
                break
            self.notes.append(
                f"Candidate {candidate.index} was passed over: measured "
                f"{measured[-1].costs[MEASURED]:.3g} ms, predicted "
                f"{candidate.costs[LATENCY]:.3g} ms, {allowed:.3g} ms asked."
            )
        else:
            self.notes.append(
                f"No finalist keeps the budget of {allowed:.3g} ms by measurement: the fastest one "
                "was taken. Ask for a smaller budget, or for more finalists."
            )
            return min(measured, key=lambda c: c.costs[MEASURED])
        return measured[-1]

    def _measured(
        self, candidate: Candidate, network: Callable[[Candidate], nn.Module]
    ) -> Candidate:
        if MEASURED in candidate.costs:
            return candidate
        session, cost, start = self._session, self._cost, time.perf_counter()
        runtime, setting = named_runtime(cost.setting.runtime), cost.setting
        inputs = inputs_for(session.space, setting.batch)
        if self._dense is None:
            self._dense = runtime.prepare(session.network, inputs, setting.threads)
        runner = runtime.prepare(network(candidate), inputs, setting.threads)
        found = paired_ms(self._dense, runner)
        if found.spread > NOISY:
            self.notes.append(
                f"The machine is too noisy to decide about candidate {candidate.index}: two "
                f"measurements of one network differ by {found.spread:.0%}."
            )
        milliseconds = found.ratio * cost.dense
        done = replace(candidate, costs={**candidate.costs, MEASURED: milliseconds})
        session.ledger.record_candidate(done)
        session.spend("latency", f"latency/{candidate.method}/{candidate.index}", start)
        return done
