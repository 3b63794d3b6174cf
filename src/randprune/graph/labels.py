"""Union-find over channel labels.

A label is one position of one axis of one parameter or buffer. Labels that must be cut together
are *tied* into one class; a class is *frozen* as soon as one member may not be cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

FIXED = -1
"""The label of a position that is no channel of any parameter (network input, constants)."""


class Labels:
    """Grows by `fresh`; `tie` and `freeze` are vectorised; `find` gives each label's class.

    Invariant: a class is represented by its smallest label, and `_frozen`/`_reason` are exact on
    representatives only.
    """

    def __init__(self) -> None:
        self._parent: IntArray = np.empty(0, dtype=np.int64)
        self._frozen: npt.NDArray[np.bool_] = np.empty(0, dtype=bool)
        self._reason: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._size = 0
        self.reasons: list[str] = []

    def __len__(self) -> int:
        return self._size

    def fresh(self, count: int) -> IntArray:
        """`count` new labels, each a class of its own."""
        start, end = self._size, self._size + count
        if end > len(self._parent):
            extra = max(end, 2 * len(self._parent), 4096) - len(self._parent)
            self._parent = np.concatenate([self._parent, np.zeros(extra, dtype=np.int64)])
            self._frozen = np.concatenate([self._frozen, np.zeros(extra, dtype=bool)])
            self._reason = np.concatenate([self._reason, np.zeros(extra, dtype=np.int32)])
        labels = np.arange(start, end, dtype=np.int64)
        self._parent[start:end] = labels
        self._size = end
        return labels

    def find(self, labels: IntArray) -> IntArray:
        """The representative of each label; FIXED stays FIXED."""
        real = labels >= 0
        if not real.any():
            return labels.copy()
        out = np.where(real, labels, 0)
        while True:
            up = self._parent[out]
            if np.array_equal(up, out):
                break
            out = self._parent[up]
        # Path compression: later finds of the same labels take one step.
        self._parent[labels[real]] = out[real]
        return np.where(real, out, FIXED)

    def tie(self, a: IntArray, b: IntArray, reason: str) -> None:
        """Put a[i] and b[i] into one class; a label that meets FIXED is frozen for `reason`."""
        fixed_a, fixed_b = a < 0, b < 0
        if fixed_a.any() or fixed_b.any():
            self.freeze(np.concatenate([a[fixed_b & ~fixed_a], b[fixed_a & ~fixed_b]]), reason)
            both = ~fixed_a & ~fixed_b
            a, b = a[both], b[both]
        while a.size:
            root_a, root_b = self.find(a), self.find(b)
            differ = root_a != root_b
            if not differ.any():
                return
            a, b = root_a[differ], root_b[differ]
            low, high = np.minimum(a, b), np.maximum(a, b)
            # Several pairs may share `high`: the smallest wins here and the loop ties the rest.
            np.minimum.at(self._parent, high, low)
            # A pair's `low` may be another pair's `high`: what was frozen freezes the final root.
            merged = np.concatenate([low, high])
            frozen = merged[self._frozen[merged]]
            root = self.find(frozen)
            new = ~self._frozen[root]
            self._reason[root[new]] = self._reason[frozen[new]]
            self._frozen[root] = True

    def freeze(self, labels: IntArray, reason: str) -> None:
        """Forbid cutting these labels' classes; the first reason given to a class stays."""
        labels = labels[labels >= 0]
        if not labels.size:
            return
        roots = np.unique(self.find(labels))
        roots = roots[~self._frozen[roots]]
        if roots.size:
            if not self.reasons or self.reasons[-1] != reason:
                self.reasons.append(reason)
            self._frozen[roots] = True
            self._reason[roots] = len(self.reasons) - 1

    def is_frozen(self, labels: IntArray) -> npt.NDArray[np.bool_]:
        """Which labels may not be cut; FIXED counts as frozen."""
        roots = self.find(labels)
        return np.where(roots < 0, True, self._frozen[np.maximum(roots, 0)])

    def reason(self, label: int) -> str:
        """Why this label's class is frozen."""
        root = int(self.find(np.array([label], dtype=np.int64))[0])
        return self.reasons[int(self._reason[root])]
