"""Spaces and selections: checks, JSON, fingerprints."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

import randprune as rp
from randprune.cost import QuadraticCost
from randprune.space import ChannelGroup, FrozenChannels, Selection, Slot, Space


def make_space(widths=(4, 6), multiplicity=2) -> Space:
    """Two groups with slots of both roles and a frozen layer."""
    groups = []
    for number, width in enumerate(widths):
        index = np.arange(width * multiplicity, dtype=np.int64).reshape(width, multiplicity)
        groups.append(
            ChannelGroup(
                f"layer{number}",
                width,
                (
                    Slot(f"layer{number}.weight", 0, index[:, :1].copy(), "out"),
                    Slot(f"layer{number}.bias", 0, index[:, :1].copy(), "pass"),
                    Slot(f"layer{number + 1}.weight", 1, index, "in"),
                ),
            )
        )
    full = np.array(widths, dtype=np.int64)
    quadratic = np.zeros((len(widths), len(widths)))
    if len(widths) > 1:
        quadratic[0, 1] = quadratic[1, 0] = 4.5
    cost = QuadraticCost("macs", "multiply-adds", quadratic, np.arange(len(widths)) + 0.5, 7, full)
    frozen = (FrozenChannels("end", "end.weight", 0, 10, 10, "it defines the network's output"),)
    return Space(
        tuple(groups), frozen, {"macs": cost}, model="Net", inputs=(((1, 3, 8, 8), "float32"),)
    )


class TestLookUp:
    def test_widths_and_length(self):
        space = make_space()
        assert space.widths.tolist() == [4, 6]
        assert space.widths.dtype == np.int64
        assert len(space) == 2
        assert space.dense.widths.tolist() == [4, 6]

    def test_group_by_name(self):
        assert make_space().group("layer1").width == 6
        with pytest.raises(rp.InvalidInputError, match="No channel group is called 'layer7'"):
            make_space().group("layer7")

    def test_cost_by_name(self):
        assert make_space().cost("macs")(np.array([4, 6])) == 9 * 24 + 0.5 * 4 + 1.5 * 6 + 7
        with pytest.raises(rp.InvalidInputError, match=r"must be one of macs\. Got 'flops'"):
            make_space().cost("flops")

    def test_slots_by_role(self):
        group = make_space().groups[0]
        assert [s.tensor for s in group.with_role("in")] == ["layer1.weight"]
        assert group.slots[2].places(np.array([3, 1])).tolist() == [2, 3, 6, 7]


class TestWidths:
    def test_valid(self):
        checked = make_space().check_widths([1, np.int32(6)])
        assert checked.dtype == np.int64
        assert checked.tolist() == [1, 6]

    @pytest.mark.parametrize(
        ("widths", "message"),
        [
            ([1], "must be 2 integers"),
            ([[1, 2]], "must be 2 integers"),
            ([1.0, 2.0], "must be 2 integers"),
            ([0, 2], "'layer0' must keep between 1 and 4 channels. Got 0"),
            ([4, 7], "'layer1' must keep between 1 and 6 channels. Got 7"),
        ],
    )
    def test_invalid(self, widths, message):
        with pytest.raises(rp.InvalidInputError, match=re.escape(message)):
            make_space().check_widths(widths)


class TestSelection:
    def test_reads_like_a_sequence(self):
        selection = Selection((np.array([0, 2]), np.array([5])))
        assert selection.widths.tolist() == [2, 1]
        assert len(selection) == 2
        assert [k.tolist() for k in selection] == [[0, 2], [5]]
        assert selection[1].tolist() == [5]

    def test_equality_is_by_channels(self):
        first, second = Selection((np.array([0, 2]),)), Selection((np.array([0, 2]),), "abc")
        assert first == second
        assert hash(first) == hash(second)
        assert first != Selection((np.array([0, 1]),))
        assert first != Selection((np.array([0, 2]), np.array([0])))
        assert first != "selection"

    def test_json(self):
        selection = Selection((np.array([0, 2]), np.array([5])), "f00")
        again = Selection.from_json(json.loads(json.dumps(selection.to_json())))
        assert again == selection
        assert again.fingerprint == "f00"
        assert all(kept.dtype == np.int64 for kept in again)

    @pytest.mark.parametrize(
        ("kept", "message"),
        [
            (([0],), "has 1 groups, the space 2"),
            (([], [0]), "'layer0': kept channels must be sorted, distinct and within 0..3"),
            (([0, 4], [0]), "'layer0'"),
            (([-1], [0]), "'layer0'"),
            (([0], [2, 1]), "'layer1'"),
            (([0], [2, 2]), "'layer1'"),
        ],
    )
    def test_invalid(self, kept, message):
        selection = Selection(tuple(np.array(k, dtype=np.int64) for k in kept))
        with pytest.raises(rp.InvalidInputError, match=re.escape(message)):
            make_space().check_selection(selection)

    def test_of_another_space(self):
        selection = Selection((np.array([0]), np.array([0])), make_space((4, 7)).fingerprint)
        with pytest.raises(rp.InvalidInputError, match="Trace the same network again"):
            make_space().check_selection(selection)
        assert make_space().check_selection(make_space().dense) == make_space().dense


class TestFingerprint:
    def test_depends_on_the_groups_and_places_alone(self):
        base = make_space()
        assert base.fingerprint == make_space().fingerprint
        assert re.fullmatch(r"[0-9a-f]{16}", base.fingerprint)
        assert make_space((4, 5)).fingerprint != base.fingerprint
        assert make_space(multiplicity=3).fingerprint != base.fingerprint

    def test_survives_json_exactly(self):
        space = make_space()
        document = json.loads(json.dumps(space.to_json()))
        again = Space.from_json(document)
        assert again.to_json() == space.to_json()
        assert Space.from_json(json.dumps(document)).fingerprint == space.fingerprint
        assert again.frozen == space.frozen
        assert again.inputs == space.inputs
        for mine, theirs in zip(space.groups, again.groups, strict=True):
            for a, b in zip(mine.slots, theirs.slots, strict=True):
                assert np.array_equal(a.index, b.index)
                assert (a.tensor, a.dim, a.role) == (b.tensor, b.dim, b.role)
        assert again.cost("macs")([3, 2]) == space.cost("macs")([3, 2])

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d["groups"][0].update(name="other"),
            lambda d: d["groups"][0]["slots"][0].update(tensor="other"),
            lambda d: d["groups"][0]["slots"][0].update(dim=1),
            lambda d: d["groups"][0]["slots"][0].update(role="in"),
            lambda d: d["groups"][1]["slots"][0].update(index=[[1, 1, 6]]),
            lambda d: d.update(fingerprint="0" * 16),
        ],
    )
    def test_notices_alterations(self, change):
        document = copy.deepcopy(make_space().to_json())
        change(document)
        with pytest.raises(rp.ArtifactError, match="does not match its fingerprint"):
            Space.from_json(document)

    def test_unknown_format(self):
        document = {**make_space().to_json(), "format": 99}
        with pytest.raises(rp.ArtifactError, match="format 99 is unknown"):
            Space.from_json(document)

    @given(
        st.integers(1, 6).flatmap(
            lambda width: st.lists(
                st.lists(st.integers(0, 10_000), min_size=3, max_size=3),
                min_size=width,
                max_size=width,
            )
        )
    )
    def test_any_index_survives(self, table):
        index = np.array(table, dtype=np.int64)
        group = ChannelGroup("g", len(table), (Slot("g.weight", 0, index, "out"),))
        full = np.array([len(table)])
        cost = QuadraticCost("macs", "MACs", np.zeros((1, 1)), np.ones(1), 0.0, full)
        space = Space((group,), (), {"macs": cost})
        again = Space.from_json(json.loads(json.dumps(space.to_json())))
        assert np.array_equal(again.groups[0].slots[0].index, index)

    def test_regular_places_are_written_as_runs(self):
        slot = make_space((64, 64)).to_json()["groups"][0]["slots"][2]
        assert slot["index"] == [[0, 1, 128]]


def test_a_space_with_other_groups_has_another_fingerprint_and_loads():
    """Nothing that was computed for one space goes over to a changed copy of it."""
    space = make_space()
    before = space.fingerprint
    other = dataclasses.replace(space, groups=space.groups[:1], costs={})
    assert other.fingerprint != before
    assert other.fingerprint == Space(space.groups[:1], space.frozen, {}).fingerprint
    again = Space.from_json(json.dumps(other.to_json()))
    assert again.fingerprint == other.fingerprint
    assert space.fingerprint == before
