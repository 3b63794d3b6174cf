"""Where all seeds of a job come from: one number, and what each seed is for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Seeds:
    """Seeds by purpose, independent between purposes and between roots.

    Args:
        root: what tells one job's seeds from another's, such as "3" for the job's own seed 3.
    """

    root: str

    def seed(self, *purpose: str | int) -> int:
        """A seed in [0, 2**31) for one purpose, the same in any process."""
        words = "/".join(map(str, (self.root, *purpose)))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "little") >> 1

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """A numpy generator for one purpose."""
        return np.random.default_rng(self.seed(*purpose))
