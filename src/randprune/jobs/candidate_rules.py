"""What every recipe says of candidates: limits on their widths, and how they are compared."""

from __future__ import annotations

from typing import Literal, Protocol

from randprune.evaluate.engine import Choice, Precision
from randprune.jobs.quality import RankBy


class CandidateRules(Protocol):
    """A recipe's limits on widths, and how candidates are compared."""

    @property
    def min_keep(self) -> float: ...

    @property
    def round_to(self) -> int | Literal["auto"]: ...

    @property
    def rank_by(self) -> RankBy: ...

    @property
    def images(self) -> int | None: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def batch_size(self) -> int | None: ...

    @property
    def engine(self) -> Choice: ...
