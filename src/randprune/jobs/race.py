"""Racing: a candidate that is clearly behind on a few images is not looked at on all of them.

A candidate is looked at on an eighth, a quarter and half of the images that rank before it sees all
(Maron & Moore, "Hoeffding races", NIPS 1993, with an error that is measured in place of a bound).
Those that saw all images tell how far a look misleads: what was seen there is corrected by the mean
of their changes from that look to the end, with the standard deviation s of these changes. A
candidate is stopped where even `MARGIN` s better than that it would not be among the best `keep`.

The divergence and the loss are compared by their logarithms, since they mislead by a share of what
they are. The first `LEAST` candidates see all images.

Known shortcomings: candidates that are nearly alike, as those of a strategy that optimises, differ
by less than a look tells, and few are stopped; what a stopped one is worth is an estimate, somewhat
too low, since who looked worse than it is is stopped more readily.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from randprune.jobs.quality import Quality, RankBy
from randprune.jobs.ranking import score_key
from randprune.store import FIRST_LOOK, LAST_LOOK

MARGIN = 3.0
"""Standard deviations by which a candidate must be behind."""
LEAST = 8
"""Candidates that see all images, before any is stopped."""
LOOKS = (8, 4, 2)
"""A look is due where this part of the images was seen: an eighth, a quarter, half."""


@dataclass(slots=True, eq=False)
class Race:
    """The candidates of one search, in the order in which they are judged.

    Attributes:
        rank_by: what they are compared by.
        images: that rank.
        keep: the best so many must not be lost.
    """

    rank_by: RankBy
    images: int
    keep: int
    _finished: list[list[float]] = field(init=False, default_factory=list)

    def runner(self) -> Runner:
        """The next candidate, which is about to be judged."""
        return Runner(self)

    def enter(self, scores: Mapping[str, float]) -> None:
        """Note the scores of a candidate: one that saw all images tells how looks mislead."""
        if LAST_LOOK in scores:
            self._finished.append([scores[name] for name in _named([0.0] * (len(LOOKS) + 1))])

    def expected(self, looks: list[float]) -> tuple[float, float]:
        """The value that a candidate would end with, and its standard deviation.

        Both are on the scale of `looks`, of which the last one counts.
        """
        at = len(looks) - 1
        changes = np.array([other[-1] - other[at] for other in self._finished])
        return looks[-1] + float(changes.mean()), float(changes.std(ddof=1))

    def behind(self, looks: list[float]) -> bool:
        """Whether a candidate can be stopped after these looks."""
        if len(self._finished) < max(LEAST, self.keep) or not all(map(math.isfinite, looks)):
            return False
        ends = sorted((other[-1] for other in self._finished), reverse=True)
        value, spread = self.expected(looks)
        return value + MARGIN * spread < ends[self.keep - 1]

    def scaled(self, score: float) -> float:
        """A score (higher = better) on the scale on which candidates are compared."""
        if self.rank_by == "accuracy":
            return score
        return -math.log(-score) if score < 0.0 else math.nan  # a loss may be anything

    def score(self, scaled: float) -> float:
        """The score behind a value of `scaled`."""
        return scaled if self.rank_by == "accuracy" else -math.exp(-scaled)


@dataclass(slots=True, eq=False)
class Runner:
    """One candidate while it is judged.

    Attributes:
        race: the others.
        looks: its values so far, the last one where it ended.
    """

    race: Race
    looks: list[float] = field(default_factory=list)

    def goes_on(self, seen: int, so_far: Callable[[], Quality]) -> bool:
        """Told after each batch how many images were seen, and who knows of them; False: stop."""
        race = self.race
        due = sum(seen >= race.images / part for part in LOOKS)
        if seen >= race.images or len(self.looks) >= due:
            return True
        value = race.scaled(so_far().scores[race.rank_by])
        # A batch may pass several looks at once.
        self.looks += [value] * (due - len(self.looks))
        return not race.behind(self.looks)

    def end(self, quality: Quality) -> dict[str, float]:
        """Told the last quality: the looks as scores of the candidate.

        A stopped one also gets the value that it is expected to have, which `scores_of` would give
        by the few images that it saw.
        """
        race = self.race
        if quality.samples < race.images:
            expected = race.score(race.expected(self.looks)[0])
            return {**_named(self.looks), score_key(race.rank_by): expected}
        if len(self.looks) < len(LOOKS):  # all images were one batch
            return {}
        self.looks.append(race.scaled(quality.scores[race.rank_by]))
        return _named(self.looks) if all(map(math.isfinite, self.looks)) else {}


def _named(looks: Sequence[float]) -> dict[str, float]:
    names = [FIRST_LOOK, *(f"look_{number}" for number in range(2, len(LOOKS) + 1)), LAST_LOOK]
    return dict(zip(names, looks, strict=False))
