"""Records of a benchmark: what is written is read back, joined into results."""

from __future__ import annotations

from pathlib import Path

import pytest

from randprune.bench import BenchRun
from randprune.bench.keys import Row
from randprune.bench.results import PROPOSE, SCORES, TRAIN
from randprune.errors import StorageError
from randprune.store import RunKey, Store
from randprune.testing import write_bench_run

EFFECTS = {
    Row("random_search", "l1"): 0.0,
    Row("random_search", "kl"): 0.01,
    Row("uniform", "l1"): -0.02,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> BenchRun:
    folder = tmp_path_factory.mktemp("bench")
    return write_bench_run(
        folder, EFFECTS, epochs=(0, 2), draws=2, trainings=2, failed=[Row("uniform", "l1")]
    )


def test_results_join_proposals_and_trainings_in_the_order_of_the_protocol(run: BenchRun) -> None:
    assert run.protocol.rows == tuple(EFFECTS)
    assert run.protocol.epochs == (0, 2)
    found = [(r.row, r.draw, r.epochs, r.training) for r in run.results if r.status == "ok"]
    whole = [(row, draw, *rest) for row in EFFECTS for draw in (0, 1)
             for rest in ((0, 0), (2, 0), (2, 1))]  # fmt: skip
    assert found == [r for r in whole if r[:2] != (Row("uniform", "l1"), 0)]
    untrained, trained = run.results[0], run.results[1]
    assert untrained.test == untrained.test_before == trained.test_before
    assert trained.test is not None
    assert trained.test.share > 0.85
    history = {training.key: training.history for training in run.trainings}
    assert [metrics["train_loss"] for metrics in history[trained.key]] == [0.5, 0.25]


def test_a_result_costs_its_scores_its_search_and_its_training(run: BenchRun) -> None:
    untrained, trained = run.results[0], run.results[1]
    assert untrained.spent.keys() == {SCORES, PROPOSE}
    assert trained.spent.keys() == {SCORES, PROPOSE, TRAIN}
    assert trained.total.macs == pytest.approx(sum(s.macs for s in trained.spent.values()))
    assert trained.total.candidates == len(run.candidates[trained.proposal.key]) == 10
    assert trained.total.images_backward == 1_000 + 2 * 50_000


def test_a_failed_proposal_is_listed_at_each_length(run: BenchRun) -> None:
    failed = [(r.row, r.draw, r.epochs, r.error) for r in run.failures]
    assert failed == [(Row("uniform", "l1"), 0, e, "DataError: planted") for e in (0, 2)]


def test_other_jobs_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.run(RunKey("prune", {}, 0)):
        pass
    with pytest.raises(StorageError, match="is a 'prune' job, not a benchmark"):
        BenchRun.load(tmp_path)
