"""Statistics of the benchmark: what may be said from a handful of seeds, and what may not.

They know numpy and scipy only, never a run: values go in, frozen results come out. Where something
cannot be estimated (one seed, one training per configuration) the result says so in words, and no
interval is ever of width zero.
"""

from randprune.bench.stats.best_of_n import BestOfN, best_of_n
from randprune.bench.stats.comparison import (
    Comparison,
    Pair,
    Verdict,
    compare_with_baseline,
    detectable_difference,
    holm,
    largest_difference,
    paired_difference,
)
from randprune.bench.stats.compute import at_equal_compute, candidates_affordable
from randprune.bench.stats.estimate import Estimate, mean_interval
from randprune.bench.stats.ranks import kendall_tau
from randprune.bench.stats.variance import VarianceSplit, variance_split

__all__ = [
    "BestOfN",
    "Comparison",
    "Estimate",
    "Pair",
    "VarianceSplit",
    "Verdict",
    "at_equal_compute",
    "best_of_n",
    "candidates_affordable",
    "compare_with_baseline",
    "detectable_difference",
    "holm",
    "kendall_tau",
    "largest_difference",
    "mean_interval",
    "paired_difference",
    "variance_split",
]
