"""Labels: vectorised union-find against the plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from randprune.graph.labels import FIXED, Labels


def array(*values):
    return np.array(values, dtype=np.int64)


COUNT = 12
label = st.integers(FIXED, COUNT - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("tie"), st.lists(st.tuples(label, label), min_size=1, max_size=8)),
        st.tuples(st.just("freeze"), st.lists(label, min_size=1, max_size=4)),
    ),
    max_size=8,
)


@settings(derandomize=True, max_examples=300, deadline=None)
@example([("tie", [(0, 1), (1, 2), (FIXED, 2)])])
@given(steps)
def test_against_sets_merged_one_by_one(operations):
    labels = Labels()
    labels.fresh(COUNT)
    classes = [{i} for i in range(COUNT)]
    frozen: set[int] = set()

    def class_of(i):
        return next(c for c in classes if i in c)

    for kind, values in operations:
        if kind == "freeze":
            labels.freeze(array(*values), "why")
            frozen |= {i for i in values if i != FIXED}
            continue
        a, b = (array(*side) for side in zip(*values, strict=True))
        labels.tie(a, b, "met a fixed one")
        for x, y in values:
            if FIXED in (x, y):
                frozen |= {x, y} - {FIXED}
            elif class_of(x) is not class_of(y):
                second = class_of(y)
                class_of(x).update(second)
                classes.remove(second)
    roots = labels.find(np.arange(COUNT, dtype=np.int64))
    for i in range(COUNT):
        # A class is represented by its smallest label, and frozen as a whole.
        assert roots[i] == min(class_of(i))
        assert labels.is_frozen(array(i))[0] == bool(class_of(i) & frozen)


def test_grows_in_blocks_of_consecutive_numbers():
    labels = Labels()
    assert labels.fresh(3).tolist() == [0, 1, 2]
    assert labels.fresh(5000)[[0, -1]].tolist() == [3, 5002]
    assert len(labels) == 5003
    assert labels.find(array(5002, FIXED, 0)).tolist() == [5002, FIXED, 0]


def test_many_pairs_with_one_member_at_once():
    labels = Labels()
    labels.fresh(6)
    labels.tie(array(5, 5, 5, 5), array(4, 1, 3, 2), "")
    assert labels.find(np.arange(6)).tolist() == [0, 1, 1, 1, 1, 1]


def test_the_first_reason_stays_and_spreads():
    labels = Labels()
    labels.fresh(4)
    labels.freeze(array(2), "first")
    labels.freeze(array(2, 3), "second")
    labels.tie(array(0), array(2), "")
    assert [labels.reason(i) for i in (0, 2, 3)] == ["first", "first", "second"]
    assert labels.is_frozen(array(0, 1, 2, 3, FIXED)).tolist() == [True, False, True, True, True]


def test_ties_reach_over_chains():
    labels = Labels()
    many = labels.fresh(1000)
    labels.tie(many[:-1], many[1:], "")
    assert not labels.find(many).any()


@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single(count):
    labels = Labels()
    found = labels.fresh(count)
    labels.tie(found, found, "")
    labels.freeze(found[:0], "nothing")
    assert not labels.is_frozen(found).any()
