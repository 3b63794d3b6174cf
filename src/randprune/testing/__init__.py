"""Conformance suites for what other packages register: one call in a test checks a plug-in.

    from randprune.testing import check_criterion

    def test_my_criterion():
        check_criterion(MyCriterion())

Every check raises `AssertionError` with a sentence that says what is wrong.
"""

from randprune.testing.bench_runs import write_bench_run
from randprune.testing.criteria import check_criterion
from randprune.testing.methods import check_method
from randprune.testing.networks import Normed, Plain, in_place, labelled_images, seeded
from randprune.testing.strategies import check_strategy
from randprune.testing.tasks import check_task

__all__ = [
    "Normed",
    "Plain",
    "check_criterion",
    "check_method",
    "check_strategy",
    "check_task",
    "in_place",
    "labelled_images",
    "seeded",
    "write_bench_run",
]
