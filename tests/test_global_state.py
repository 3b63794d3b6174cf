"""A call leaves the process as it was: warning filters, environment, random state, import path."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import randprune as rp
from randprune.artifact import check
from randprune.export import export
from randprune.zoo.models import build_model

MODEL = "randprune:digits_cnn"


@contextmanager
def unchanged() -> Iterator[None]:
    """Inside, nothing that is global may change (first imports of libraries aside)."""
    before = list(warnings.filters), dict(os.environ), list(sys.path), torch.get_num_threads()
    random = torch.random.get_rng_state()
    yield
    after = list(warnings.filters), dict(os.environ), list(sys.path), torch.get_num_threads()
    assert after == before
    assert torch.equal(torch.random.get_rng_state(), random)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_calls_leave_the_process_as_it_was(tmp_path: Path) -> None:
    network = build_model(MODEL)
    images = torch.zeros(1, 1, 8, 8)
    # Libraries add filters of their own when they are first imported.
    export(network, tmp_path / "first.pt2", images)
    rp.prune(fresh(), "digits", budget=0.6, candidates=2, out=tmp_path / "first")
    with unchanged():
        space = rp.trace(network, images)
    with unchanged():
        scores = rp.score(network, space, "l1")
    with unchanged():
        rp.score(network, space, "taylor", data=[(images.expand(4, -1, -1, -1), torch.arange(4))])
    with unchanged():
        selection = rp.select(space, scores, (space.widths + 1) // 2)
        small = rp.cut(network, space, selection)
        rp.verify(network, small, space, selection, images)
    with unchanged():
        path = rp.save(small, tmp_path / "x.safetensors", model=MODEL)
        rp.load(path)
        check(path, network)
    with unchanged():
        export(small, tmp_path / "x.pt2", images)
    with unchanged():
        rp.prune(fresh(), "digits", budget=0.6, candidates=2, out=tmp_path / "second")


def fresh() -> torch.nn.Module:
    """A new digits network; its random numbers are not counted."""
    with torch.random.fork_rng():
        return build_model(MODEL)
