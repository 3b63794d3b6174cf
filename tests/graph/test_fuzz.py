"""Random small networks: what is cut equals the masked dense network, and costs what is said."""

from __future__ import annotations

import os

import pytest
from exactness import check, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks

# RANDPRUNE_FUZZ=5000 searches for new examples; by default the same ones are run every time.
WANTED = int(os.environ.get("RANDPRUNE_FUZZ", "0"))

fuzz = settings(
    max_examples=WANTED or 40,
    derandomize=not WANTED,
    deadline=None,
    database=None,
    print_blob=bool(WANTED),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(0 if WANTED else 300)
@fuzz
@given(networks(), st.integers(0, 2**16))
def test_modules(net, seed):
    check(net, image(size=4), seeds=(seed,), train=False, retrace=False)


@pytest.mark.timeout(0 if WANTED else 300)
@settings(fuzz, max_examples=WANTED or 15)
@given(networks(steps=6), st.integers(0, 2**16))
def test_graphs(net, seed):
    check(net, image(size=4), seeds=(seed,), train=False, retrace=False, as_graph=True)
