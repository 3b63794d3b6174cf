"""Runs to report on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic_run as synthetic

from randprune.report import RunRecord
from randprune.store import Run, RunKey, Store

KEY = RunKey("prune", {"budget": 0.5}, 0, "a4f9137be5a20d11", "w1", "d1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "out") as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> Run:
    """A run of which nothing but its existence is recorded."""
    return store.run(KEY, synthetic.MADE_WITH)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A whole run."""
    with Store.open(tmp_path_factory.mktemp("finished")) as store:
        with store.run(KEY, synthetic.MADE_WITH) as run:
            synthetic.begin(run)
            synthetic.search(run)
            synthetic.evaluate(run)
        return RunRecord.of(run)
