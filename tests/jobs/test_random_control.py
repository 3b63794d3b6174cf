"""Random search of the same number of candidates, as a control beside another strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning_jobs import SETTINGS, Watch, job

from randprune.store import RANDOM_SEARCH, SEARCHED

WITH: dict[str, Any] = {**SETTINGS, "controls": {"random_search": True}}


def test_the_control_is_the_search_of_the_random_strategy(tmp_path: Path) -> None:
    watch = Watch()
    result = job(tmp_path, watch, settings=WITH, finetune=None)
    assert (RANDOM_SEARCH, 6, 0) in watch.phases
    random = job(None, settings=SETTINGS, finetune=None, strategy="random")
    drawn = [c.widths for c in result.candidates if c.method == RANDOM_SEARCH]
    searched = random.configurations.tolist()
    assert [list(widths) for widths in drawn[: len(searched) - 1]] == searched[1:]
    row = result.network(RANDOM_SEARCH)
    assert row.stage == "repaired"
    assert row.label == "best of random search"
    assert row.test is not None
    # It is a control: the winner is one of the strategy's own candidates.
    assert result.winner.method == SEARCHED
    again = Watch()
    job(tmp_path, again, settings=WITH, finetune=None)
    assert [phase for phase, *_ in again.phases] == ["trace"]


def test_a_random_search_is_no_control_of_itself() -> None:
    watch = Watch()
    result = job(None, watch, settings=WITH, finetune=None, strategy="random")
    assert all(phase != RANDOM_SEARCH for phase, *_ in watch.phases)
    assert {c.method for c in result.candidates} == {SEARCHED, "uniform", "random_channels"}
