"""Random networks out of all supported operations: cut, and through a file, they stay right."""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from torch import nn
from torch.utils._pytree import tree_leaves

import randprune as rp
from randprune.lineage import named_tensors
from reliability import BENCHMARKS, Outcome, attack

sys.path.insert(0, str(BENCHMARKS.parent / "tests" / "graph"))

from exactness import fill_randomly, image
from random_networks import networks


@attack(
    "graphs",
    "random networks traced, cut at random, verified, saved and loaded",
    count=2_000,
)
def graphs(count: int, start: int) -> Outcome:
    """Half of the networks cut as modules, half in their graph."""
    outcome = Outcome()

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(), st.integers(0, 2**16), st.booleans())
    def one(network: nn.Module, number: int, as_graph: bool) -> None:
        # Hypothesis tries the simplest network before it counts.
        if outcome.tried == count:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome.survived[attempt(network, number, as_graph)] += 1
        except rp.VerificationError as error:
            if "All outputs" in str(error):
                outcome.survived["error that says why"] += 1
            else:
                outcome.lost.append(describe(network, number, as_graph, error))
        except rp.RandpruneError:
            outcome.survived["error that says why"] += 1
        except Exception as error:  # what this attack looks for
            outcome.lost.append(describe(network, number, as_graph, error))

    one()
    return outcome


def attempt(network: nn.Module, number: int, as_graph: bool) -> str:
    """One network all the way; raises where anything is wrong."""
    images = image(size=4)
    fill_randomly(network)
    space = rp.trace(network, images, as_graph=as_graph)
    rng = np.random.default_rng(number)
    kept = tuple(
        np.sort(rng.permutation(width)[: max(1, round(rng.uniform(0.1, 1.0) * width))])
        for width in space.widths.tolist()
    )
    selection = rp.Selection(kept, space.fingerprint)
    small = rp.cut(network, space, selection).eval()
    if space.groups:
        rp.verify(network, small, space, selection, images)
    with tempfile.TemporaryDirectory() as folder:
        back = rp.load(rp.save(small, Path(folder) / "small.safetensors"), model=network)
    ours, theirs = named_tensors(small), named_tensors(back)
    assert ours.keys() == theirs.keys(), "other tensors came back"
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), "other values"
    with torch.no_grad():
        pairs = zip(tree_leaves(small(images)), tree_leaves(back(images)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), "other outputs after loading"
    return "equal to the last bit"


def describe(network: Any, number: int, as_graph: bool, error: Exception) -> str:
    """What to repeat, and what happened."""
    way = "graph" if as_graph else "module"
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{way}, {number}, {' | '.join(network.notes)}: {type(error).__name__}: {first}"
