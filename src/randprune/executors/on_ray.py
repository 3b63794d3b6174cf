"""A Ray cluster: workers that Ray places on its nodes, each doing one unit at a time.

    randprune bench f1 ... --executor ray --address auto        # needs 'randprune[ray]'

What goes to workers and comes from them is the JSON that local processes get, one unit in flight a
worker: ten thousand units wait in the driver, not in the cluster's memory. The driver alone writes
records. A worker opens the work once, reads the network and its statistics from the work folder,
and keeps them for all its units.

A worker or a node that is lost gives its unit back, which another one takes up. Nodes are refused,
with a sentence, where their versions of randprune, torch or Python differ from the driver's, or
where they do not see the work folder: it has to lie on a file system that all nodes share.

Known shortcomings: no data travels, each node reads its own by the recipe's name (and the work's
opening fails there where it is missing); one thread a unit.
"""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, assert_never

import torch

from randprune.errors import InvalidInputError
from randprune.executors.base import Advance, Failure, O, U, Work
from randprune.executors.serve import (
    ANSWERS,
    QUESTIONS,
    Asked,
    Fatal,
    Found,
    Opening,
    answered,
    opened,
)
from randprune.store.codec import Json

_ATTEMPTS = 3
_LOOK = 1.0
"""Seconds after which shares of units are asked for."""
_PATIENCE = 600.0
"""Seconds that a worker may take to come, where none is there."""


class Serving:
    """What runs on a node: opens the work once, and does one unit after the other.

    It is made an actor by `OnRay`; two calls may run at once, so that a share can be asked for
    while a unit is done.

    Args:
        opening: what to open, as a document.
        folder: of the driver's command, which names of files are relative to; used if it exists.
        paths: where the driver finds modules; those that exist here are looked through as well.
        token: a file that the driver has put into the work folder.
    """

    def __init__(self, opening: Json, folder: str, paths: Sequence[str], token: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        sys.path.extend(p for p in paths if p not in sys.path and os.path.isdir(p))
        self._opening: Opening = QUESTIONS.value(opening)
        self._token = token
        self._share = 0.0

    def ready(self) -> dict[str, Any]:
        """The node, its versions, and whether it sees the work folder; opens the work if so."""
        seen = os.path.exists(self._token)
        if seen:
            self._work, self._do = opened(self._opening)
        return {"node": platform.node(), "sees_folder": seen, **versions()}

    def do(self, asked: Json) -> Json:
        """Do one unit."""
        self._share = 0.0
        found = answered(self._work, self._do, QUESTIONS.value(asked), self._tell)
        return ANSWERS.document(found)

    def share(self) -> float:
        """How much of the unit at hand is done."""
        return self._share

    def _tell(self, share: float) -> None:
        self._share = share


@dataclass(slots=True, eq=False)
class _Worker(Generic[U]):
    """An actor, the unit that it does, and the answer to how far that is."""

    actor: Any
    unit: U | None = None
    share: Any = None
    told: float = 0.0


@dataclass(frozen=True, slots=True)
class _Lost:
    """Stands for the answer of a worker that is gone."""

    reason: str


@dataclass(slots=True, eq=False)
class OnRay(Generic[U, O]):
    """Up to `count` workers of a Ray cluster; see `Executor`.

    Args:
        work: what they do.
        document: opens it, on each of them.
        count: how many; None: as many as the cluster has CPUs.
        address: of the cluster, as `ray.init` takes it; "": one of this machine, for this run.
        folder: that driver and workers share.

    Raises:
        InvalidInputError: Ray is not installed, or nobody answers at the address.
    """

    work: Work[U, O]
    document: Json
    count: int | None
    address: str
    folder: Path
    _ray: Any = field(init=False)
    _own: bool = field(init=False)
    _token: Path = field(init=False)
    _workers: dict[Any, _Worker[U]] = field(init=False, default_factory=dict)
    """By what is awaited of them: that they are ready, or the answer to a unit."""
    _idle: list[_Worker[U]] = field(init=False, default_factory=list)
    _refused: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._ray = require_ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            try:
                self._ray.init(
                    address=self.address or "local",
                    log_to_driver=False,
                    include_dashboard=None if self.address else False,
                    logging_level="error",
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0][:200]
                raise InvalidInputError(
                    f"No Ray cluster answers at {self.address!r}: {reason}. Start one with "
                    "`ray start --head`, or leave the address out."
                ) from error
        self._token = self.folder / f"ray-{secrets.token_hex(8)}"
        self._token.touch()

    @property
    def most(self) -> int:
        """How many workers there are, at most."""
        return self.count or max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def run(
        self, units: Sequence[U], advance: Advance[U], *, total: int | None = None
    ) -> Iterator[tuple[U, O | Failure]]:
        """See `Executor`."""
        waiting, attempts = deque(units), dict.fromkeys(units, 0)
        count = self.most
        single = (len(units) if total is None else total) == 1
        threads = min(count, torch.get_num_threads()) if single else 1
        last = time.monotonic()
        while waiting or self._busy:
            while waiting and self._idle:
                unit = waiting.popleft()
                attempts[unit] += 1
                self._ask(self._idle.pop(), unit, threads)
            self._hire(min(count, len(waiting) + len(self._workers)))
            done, _ = self._ray.wait(list(self._workers), num_returns=1, timeout=_LOOK)
            if not done:
                self._look(advance)
                self._check_patience(last)
                continue
            last = time.monotonic()
            worker = self._workers.pop(done[0])
            of = worker.unit
            worker.unit = None
            said = self._said(done[0])
            if of is None:
                self._welcome(worker, said)
            elif isinstance(said, _Lost):
                if attempts[of] < _ATTEMPTS:
                    waiting.appendleft(of)
                else:
                    text = f"Its worker was lost {_ATTEMPTS} times, at last: {said.reason}"
                    yield of, Failure(text)
            else:
                self._idle.append(worker)
                match said if isinstance(said, Failure) else ANSWERS.value(said):
                    case Found(outcome):
                        yield of, self.work.outcomes.value(outcome)
                    case Failure() as failure:
                        yield of, failure
                    case Fatal() as fatal:
                        raise fatal.error
                    case other:
                        assert_never(other)

    def close(self) -> None:
        """Stop all workers, whatever they do; leave a cluster that was there before."""
        self._token.unlink(missing_ok=True)
        for worker in [*self._idle, *self._workers.values()]:
            self._ray.kill(worker.actor)
        self._idle, self._workers = [], {}
        if self._own:
            self._ray.shutdown()

    # -- workers -------------------------------------------------------------------------------

    def _hire(self, wanted: int) -> None:
        """Have workers placed until there are so many, or the cluster has no more room."""
        missing = wanted - len(self._workers) - len(self._idle)
        if missing <= 0:
            return
        opening = QUESTIONS.document(Opening(self.work.module, self.work.name, self.document))
        paths = [p or os.getcwd() for p in sys.path]
        for _ in range(missing):
            serving = self._ray.remote(Serving).options(
                num_cpus=1, max_concurrency=2, name=f"randprune {secrets.token_hex(4)}"
            )
            actor = serving.remote(opening, os.getcwd(), paths, str(self._token.resolve()))
            self._workers[actor.ready.remote()] = _Worker(actor)

    def _ask(self, worker: _Worker[U], unit: U, threads: int) -> None:
        asked = QUESTIONS.document(Asked(self.work.units.document(unit), threads))
        worker.unit, worker.share, worker.told = unit, None, 0.0
        self._workers[worker.actor.do.remote(asked)] = worker

    def _said(self, awaited: Any) -> Any:
        """What a worker answers; a `Failure` where it raises, `_Lost` where it is gone."""
        try:
            return self._ray.get(awaited)
        except self._ray.exceptions.RayTaskError as error:
            # Units answer with what they raise: this is an opening, or an answer that cannot be
            # written.
            return Failure(f"{type(error.cause).__name__}: {error.cause}")
        except self._ray.exceptions.RayError as error:
            return _Lost(str(error).strip().splitlines()[0][:200])

    def _welcome(self, worker: _Worker[U], said: Any) -> None:
        """Take a worker into service, if it could open the work and its node is like this one."""
        if isinstance(said, _Lost):
            return
        if isinstance(said, Failure):
            self._refuse(said.error)
            return
        other = {name: said[name] for name, own in versions().items() if said[name] != own}
        if not other and said["sees_folder"]:
            self._refused.clear()
            self._idle.append(worker)
            return
        self._ray.kill(worker.actor)
        if other:
            listed = ", ".join(f"{name} {found}" for name, found in other.items())
            here = ", ".join(f"{name} {versions()[name]}" for name in other)
            self._refuse(f"{said['node']} has {listed}, this process {here}. Install the same.")
        else:
            self._refuse(
                f"{said['node']} does not see {self.folder}. Give an --out that all nodes share."
            )

    def _refuse(self, reason: str) -> None:
        """Note why a worker cannot work.

        Raises:
            InvalidInputError: none can.
        """
        self._refused.append(reason)
        if len(self._refused) >= _ATTEMPTS and not self._idle and not self._busy:
            raise InvalidInputError(f"No worker of the Ray cluster can do this: {reason}")

    @property
    def _busy(self) -> bool:
        return any(worker.unit is not None for worker in self._workers.values())

    def _check_patience(self, last: float) -> None:
        """Raise InvalidInputError where nobody has worked, or come, for too long."""
        if self._busy or self._idle or time.monotonic() - last < _PATIENCE:
            return
        raise InvalidInputError(
            f"No worker of the Ray cluster has come in {_PATIENCE:.0f} s: it may have no free CPU, "
            "or open the work slowly. Look at `ray status`, or add nodes."
        )

    def _look(self, advance: Advance[U]) -> None:
        """Tell how far units are; an answer may come at a later look."""
        for worker in self._workers.values():
            if worker.unit is None:
                continue
            if worker.share is None:
                worker.share = worker.actor.share.remote()
                continue
            ready, _ = self._ray.wait([worker.share], timeout=0)
            if ready:
                try:
                    share = float(self._ray.get(worker.share))
                except self._ray.exceptions.RayError:
                    share = worker.told  # its unit will tell that it is lost
                worker.share = None
                if share > worker.told:
                    worker.told = share
                    advance(worker.unit, share)


def versions() -> dict[str, str]:
    """What has to be the same everywhere."""
    return {
        "randprune": version("randprune"),
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }


def require_ray() -> Any:
    """The package.

    Raises:
        InvalidInputError: it is not installed.
    """
    if find_spec("ray") is None:
        raise InvalidInputError(
            "The executor 'ray' needs Ray, which is not installed: pip install 'randprune[ray]'."
        )
    import ray

    return ray
