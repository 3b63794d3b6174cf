"""Accuracy of many candidates, fast: one prepared data set, one measured engine, folded networks.

evaluator = Evaluator(data.search)                      # ranks: the fastest engine here
evaluator.accuracy(small).top1
Evaluator(test, precision="float32").accuracy(small)    # for numbers that are reported
"""

from randprune.evaluate.engine import Engine, Precision, choose_engine
from randprune.evaluate.evaluator import Accuracy, Evaluator
from randprune.evaluate.inference import InferenceCopy, inference_copy

__all__ = [
    "Accuracy",
    "Engine",
    "Evaluator",
    "InferenceCopy",
    "Precision",
    "choose_engine",
    "inference_copy",
]
