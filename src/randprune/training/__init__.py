"""The only training loop of the package: fine-tuning, training from scratch, shared weights.

result = train(small, data.full_train, TrainRecipe(epochs=3, lr=0.01), teacher=dense,
               checkpoint="run/fine_tuning")
result.model, result.history
"""

from randprune.training.loop import train
from randprune.training.recipe import TrainRecipe
from randprune.training.results import TrainProgress, TrainResult
from randprune.training.state import Checkpoint
from randprune.training.steps import AttachedStep, StepOutput, SupervisedStep, TrainStep
from randprune.training.task_step import DenseOutputs, TaskStep
from randprune.training.teacher import Teacher

__all__ = [
    "AttachedStep",
    "Checkpoint",
    "DenseOutputs",
    "StepOutput",
    "SupervisedStep",
    "TaskStep",
    "Teacher",
    "TrainProgress",
    "TrainRecipe",
    "TrainResult",
    "TrainStep",
    "train",
]
