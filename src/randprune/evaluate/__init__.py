"""Accuracy of many candidates, fast: one prepared data set, one engine, folded networks.

evaluator = Evaluator(data.search)                      # ranks: bfloat16 where that is fast
evaluator.accuracy(small).top1
Evaluator(test, precision="float32").accuracy(small)    # for numbers that are reported
"""

from randprune.evaluate.choose import (
    choose_engine as choose_engine,
)
from randprune.evaluate.engine import (
    Choice as Choice,
    Engine as Engine,
    Precision as Precision,
)
from randprune.evaluate.evaluator import (
    Evaluation as Evaluation,
    Evaluator as Evaluator,
)
from randprune.evaluate.inference import (
    InferenceCopy as InferenceCopy,
    inference_copy as inference_copy,
)
