"""Statistics of the benchmark: what may be said from a handful of seeds, and what may not.

They know numpy and scipy only, never a run: values go in, frozen results come out. Where something
cannot be estimated (one seed, one training per configuration) the result says so in words, and no
interval is ever of width zero.
"""

from randprune.bench.stats.best_of_n import (
    BestOfN as BestOfN,
    best_of_n as best_of_n,
)
from randprune.bench.stats.comparison import (
    Comparison as Comparison,
    Pair as Pair,
    Verdict as Verdict,
    compare_with_baseline as compare_with_baseline,
    detectable_difference as detectable_difference,
    holm as holm,
    largest_difference as largest_difference,
    paired_difference as paired_difference,
)
from randprune.bench.stats.compute import (
    at_equal_compute as at_equal_compute,
    candidates_affordable as candidates_affordable,
)
from randprune.bench.stats.estimate import (
    Estimate as Estimate,
    mean_interval as mean_interval,
)
from randprune.bench.stats.prediction import (
    below as below,
    predicted_best as predicted_best,
)
from randprune.bench.stats.ranks import (
    kendall_tau as kendall_tau,
)
from randprune.bench.stats.same import (
    SameMethod as SameMethod,
    same_method as same_method,
)
from randprune.bench.stats.variance import (
    VarianceSplit as VarianceSplit,
    variance_split as variance_split,
)
