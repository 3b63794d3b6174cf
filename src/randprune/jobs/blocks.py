"""Candidates made and judged side by side: in blocks, by whoever an executor has at work.

A block is a few configurations of one method. Who does it opens the same network and images by
their names, reads scores, statistics and the dense network's outputs from the work folder, and
hands back what it found; the job alone writes records. Each process has one thread, so that numbers
are those of any other such run; a search in the job's own process, with more threads, may differ in
the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from randprune.errors import DataError, InvalidInputError, StorageError
from randprune.executors import Do, Executor, Failure, OnRay, Processes, Tell, Wire, Work
from randprune.jobs.candidates import Evaluations, Repaired
from randprune.jobs.identity import data_fingerprint, network_name
from randprune.jobs.job import Given
from randprune.jobs.ledger import Gathered
from randprune.jobs.opening import images_of_recipe, network_of, task_of_recipe
from randprune.jobs.progress import Silent
from randprune.jobs.session import Session
from randprune.jobs.traced import traced_session
from randprune.jobs.work_folder import WorkFolder
from randprune.memory import memory_errors
from randprune.recipe import PruneRecipe
from randprune.store import Candidate, CostEntry
from randprune.store.codec import Json
from randprune.zoo.weights import weights_hash

_BLOCKS = 4
"""Blocks of a generation for each process, so that they end together."""
_MOST = 8
"""Candidates of a block, at most: so many are lost with a process."""


@dataclass(frozen=True, slots=True)
class Block:
    """Candidates of one method: their indices, with their widths.

    Attributes:
        method: as it is recorded.
        phase: of the ledger.
        rows: index and widths of each.
    """

    method: str
    phase: str
    rows: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a block."""

    candidates: tuple[Candidate, ...]
    ledger: tuple[CostEntry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SideBySide:
    """Makes and judges candidates by an executor of so many processes."""

    executor: Executor[Block, Judged]
    count: int

    def judged(
        self, method: str, phase: str, rows: Sequence[tuple[int, tuple[int, ...]]]
    ) -> Iterator[tuple[Candidate, tuple[CostEntry, ...]]]:
        """The candidates of these indices and widths, with what each cost, as they are done.

        Those of a block that nobody could do come as failed ones.
        """
        size = max(1, min(_MOST, -(-len(rows) // (_BLOCKS * self.count))))
        blocks = [
            Block(method, phase, tuple(rows[start : start + size]))
            for start in range(0, len(rows), size)
        ]
        # Of a single unit the processes would use all threads.
        for block, found in self.executor.run(blocks, lambda unit, share: None, total=2):
            if isinstance(found, Failure):
                for index, widths in block.rows:
                    failed = Candidate(index, widths, method, status="failed", error=found.error)
                    yield failed, ()
                continue
            costs = {entry.key: entry for entry in found.ledger}
            for candidate in found.candidates:
                cost = costs.get(f"{candidate.method}/{candidate.index}")
                yield candidate, () if cost is None else (cost,)


@contextmanager
def side_by_side(
    session: Session, recipe: PruneRecipe, criterion: str, recovery: str
) -> Iterator[SideBySide | None]:
    """Whoever the recipe asks for; None where that is this process.

    Args:
        session: of the job, which has made scores and dense outputs.
        recipe: of one budget.
        criterion: under whose name the scores are kept.
        recovery: of candidates.

    Raises:
        InvalidInputError: the network was given as an object, which other processes cannot open,
            or has no trained weights that they could read.
    """
    output = recipe.output
    if not output.workers and output.executor == "processes":
        yield None
        return
    if not network_name(recipe) or recipe.data is None:
        raise InvalidInputError(
            "Processes beside this one open the network and the images by their names. Name both "
            "in the recipe, or leave output.workers out."
        )
    work, weights = session.work.folder, weights_hash(session.network)
    _check_weights(recipe, network_of(recipe.network), weights)
    document = {
        "recipe": recipe.document(),
        "work": str(work.resolve()),
        "criterion": criterion,
        "recovery": recovery,
        "device": session.device,
        "weights": weights,
        "data": data_fingerprint(session.data),
    }
    executor: Executor[Block, Judged]
    if output.executor == "ray":
        ray: OnRay[Block, Judged] = OnRay(
            WORK, document, output.workers or None, output.address, work
        )
        executor, count = ray, ray.most
    else:
        local: Processes[Block, Judged] = Processes(WORK, document, output.workers, work)
        executor, count = local, output.workers
    try:
        yield SideBySide(executor, count)
    finally:
        executor.close()


def _check_weights(recipe: PruneRecipe, network: nn.Module, expected: str) -> None:
    """Raise an InvalidInputError where the named network is not the one that is searched."""
    if weights_hash(network) != expected:
        raise InvalidInputError(
            f"The network {recipe.network.spec} has other weights in another process: its weights "
            "come of chance, or of a file that differs there. Give a file (--weights) that all "
            "processes see, or leave output.workers out."
        )


def _open(document: Mapping[str, Json]) -> Do[Block, Judged]:
    recipe = PruneRecipe.parse(document["recipe"], "the recipe of this run").resolved()
    data, work = images_of_recipe(recipe), WorkFolder(Path(document["work"]))
    given = Given(
        network_of(recipe.network),
        data,
        work.folder,
        Silent(),
        device=document["device"],
        task=task_of_recipe(recipe, data),
    )
    _check_weights(recipe, given.model, document["weights"])
    if data_fingerprint(data) != document["data"]:
        raise DataError(
            f"The images {data.name} differ from those of the process that began the search. Give "
            "every node the same copy."
        )
    session = traced_session(recipe, given)
    session.work, session.device = work, given.device
    scores = session.kept_scores(document["criterion"])
    if scores is None:
        raise StorageError(f"The work folder {work.folder} holds no scores any more.")
    maker = Repaired(session, scores, document["recovery"])

    def do(block: Block, share: Tell) -> Judged:
        gathered = Gathered()
        with session.writing(gathered, Silent()), memory_errors("search.batch_size"):
            evaluations = Evaluations(
                session, maker, session.quick_judge, Candidate(0, (), block.method), block.phase
            )
            for done, (index, widths) in enumerate(block.rows, 1):
                evaluations.made(index, np.array(widths))
                share(done / len(block.rows))
        return Judged(gathered.candidates(), gathered.costs)

    return do


WORK: Work[Block, Judged] = Work(__name__, "WORK", _open, Wire(Block), Wire(Judged))
