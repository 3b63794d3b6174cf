"""Accuracy of many candidates, fast: one prepared data set, one engine, folded networks.

evaluator = Evaluator(data.search)                      # ranks: bfloat16 where that is fast
evaluator.accuracy(small).top1
Evaluator(test, precision="float32").accuracy(small)    # for numbers that are reported
"""

from randprune.evaluate.choose import choose_engine
from randprune.evaluate.engine import Choice, Engine, Precision
from randprune.evaluate.evaluator import Evaluation, Evaluator
from randprune.evaluate.inference import InferenceCopy, inference_copy

__all__ = [
    "Choice",
    "Engine",
    "Evaluation",
    "Evaluator",
    "InferenceCopy",
    "Precision",
    "choose_engine",
    "inference_copy",
]
