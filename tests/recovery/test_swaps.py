"""Exchanges of kept and cut channels: exact for every pair, and never a step back."""

from __future__ import annotations

import numpy as np
import torch
from repairable import Chain, Concat, Grouped, build, images, traced
from torch import nn

import randprune as rp
from randprune.recovery.dense import DenseStatistics
from randprune.recovery.elimination import Reader, readers_of
from randprune.recovery.swaps import exchanged, pair_changes, swap_channels

SWAPS = 20


def statistics(kind: type[nn.Module]) -> DenseStatistics:
    network = build(kind)
    shared = DenseStatistics(network, traced(network))
    shared.collect([images(60)])
    return shared


def error(readers: list[Reader], kept: np.ndarray, width: int) -> float:
    """tr(W_R (P_RR)^-1 W_R'), summed over the readers, as the formula stands."""
    lost = torch.from_numpy(np.setdiff1d(np.arange(width), kept))
    total = 0.0
    for reader in readers:
        cut = reader.blocks[lost].reshape(-1)
        weights, inner = reader.matrix[:, cut], reader.inverse[cut][:, cut]
        total += float((weights * torch.linalg.solve(inner, weights.T).T).sum())
    return total


def test_changes_are_exact_for_every_pair() -> None:
    for kind in (Chain, Concat, Grouped):
        shared = statistics(kind)
        for group in shared.space.groups:
            readers = readers_of(group, shared.inverses(), shared.reference)
            kept = np.arange(group.width)[::2]
            lost = np.setdiff1d(np.arange(group.width), kept)
            before = error(readers, kept, group.width)
            changes = torch.zeros(len(lost), len(kept), dtype=torch.float64)
            now = 0.0
            for reader in readers:
                found, own = pair_changes(reader, torch.from_numpy(lost), torch.from_numpy(kept))
                changes += found
                now += own
            np.testing.assert_allclose(now, before, rtol=1e-8)
            for i, back in enumerate(lost):
                for j in range(len(kept)):
                    other = np.append(np.delete(kept, j), back)
                    expected = error(readers, other, group.width) - before
                    np.testing.assert_allclose(float(changes[i, j]), expected, atol=1e-9)


def test_bad_choices_are_mended_and_widths_stay() -> None:
    shared = statistics(Chain)
    space, inverses = shared.space, shared.inverses()
    worst = [-elimination.scores for elimination in shared.eliminations()]
    selection = rp.select(space, worst, [max(1, group.width // 2) for group in space.groups])
    better = swap_channels(space, selection, inverses, shared.reference, swaps=SWAPS)
    assert better.widths.tolist() == selection.widths.tolist()
    rp.cut(shared.model, space, better)  # a sound selection
    for group, before, after in zip(space.groups, selection, better, strict=True):
        readers = readers_of(group, inverses, shared.reference)
        assert error(readers, after, group.width) < error(readers, before, group.width)
        again = exchanged(after, readers, group.width, SWAPS)
        assert np.array_equal(again, after)


def test_nothing_to_exchange() -> None:
    shared = statistics(Chain)
    space = shared.space
    scores = rp.score(shared.model, space, "l1")
    for widths in (space.widths, [1] * len(space)):
        selection = rp.select(space, scores, widths)
        for swaps in (0, 1):
            found = swap_channels(
                space, selection, shared.inverses(), shared.reference, swaps=swaps
            )
            assert found.widths.tolist() == selection.widths.tolist()
            assert swaps or found == selection
    assert np.array_equal(exchanged(np.array([2, 0]), [], 4, SWAPS), [0, 2])
