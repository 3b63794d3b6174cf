"""Spaces made by hand: small ones, random ones, and one with ResNet-50's cost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from randprune.cost import QuadraticCost
from randprune.space import ChannelGroup, Space


def make_space(widths, couplings=(), linear=None, constant=0.0, extra=None) -> Space:
    """A space with costs: `couplings` are (i, j, a) for a * w_i * w_j, `linear` one per group.

    "macs" is that polynomial; "params" is linear, so that two metrics disagree.
    """
    full = np.array(widths, dtype=np.int64)
    quadratic = np.zeros((full.size, full.size))
    for i, j, a in couplings:
        quadratic[i, j] += a / 2
        quadratic[j, i] += a / 2
    first = np.zeros(full.size) if linear is None else np.array(linear, dtype=np.float64)
    costs = {
        "macs": QuadraticCost("macs", "MACs", quadratic, first, constant, full),
        "params": QuadraticCost(
            "params", "parameters", np.zeros_like(quadratic), np.arange(1.0, full.size + 1), 0, full
        ),
        **(extra or {}),
    }
    groups = tuple(ChannelGroup(f"g{i}", int(w), ()) for i, w in enumerate(widths))
    return Space(groups, (), costs)


def chain(*widths: int, constant: float = 0.0) -> Space:
    """A plain network: each layer costs the product of its neighbours, the ends cost 3 and 10."""
    couplings = [(i, i + 1, 9.0) for i in range(len(widths) - 1)]
    linear = np.zeros(len(widths))
    linear[0] += 27.0
    linear[-1] += 10.0
    return make_space(widths, couplings, linear, constant)


def resnet50() -> Space:
    """The 37 groups of ResNet-50 at 224 x 224 with their exact MACs (4,089,184,256 dense)."""
    widths: list[int] = [64]
    couplings: list[tuple[int, int, float]] = []
    linear = {0: 3 * 49 * 112 * 112}
    entry, size = 0, 56
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        stream = -1
        for block in range(blocks):
            inner, incoming = size, entry if block == 0 else stream
            if block == 0 and stage > 0:
                size //= 2
            first, second = len(widths), len(widths) + 1
            widths += [width, width]
            couplings += [(incoming, first, inner**2), (first, second, 9 * size**2)]
            if block == 0:
                stream = len(widths)
                widths.append(4 * width)
                couplings.append((entry, stream, size**2))
            couplings.append((second, stream, size**2))
        entry = stream
    per_group = np.zeros(len(widths))
    per_group[0] = linear[0]
    per_group[entry] = 1000
    return make_space(widths, couplings, per_group)


@dataclass(frozen=True)
class StaircaseLatency:
    """A cost that is no polynomial: channels are computed in bundles of 8."""

    full: np.ndarray
    name: str = "latency"
    unit: str = "ms"

    @property
    def dense(self) -> float:
        return float(self(self.full))

    def __call__(self, widths):
        w = np.asarray(widths)
        bundles = np.ceil(w / 8)
        return 0.5 + (bundles * np.sqrt(np.roll(bundles, 1, axis=-1))).sum(axis=-1)


@st.composite
def spaces(draw, max_groups=6, max_width=40) -> Space:
    """Random quadratic spaces with at least one group and a cost that every group adds to."""
    widths = draw(st.lists(st.integers(1, max_width), min_size=1, max_size=max_groups))
    pairs = list(itertools.combinations_with_replacement(range(len(widths)), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=2 * len(widths)))
    couplings = [(i, j, float(draw(st.integers(0, 50)))) for i, j in chosen]
    linear = [float(draw(st.integers(1, 50))) for _ in widths]
    return make_space(widths, couplings, linear, float(draw(st.integers(0, 200))))
