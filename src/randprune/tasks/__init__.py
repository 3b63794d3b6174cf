"""What networks are for: `tasks.create("segmentation")`, `rp.prune(..., task="segmentation")`."""

from randprune.tasks.base import Meter, Metric, Quality, Task, tasks
from randprune.tasks.classification import ACCURACY, Classification
from randprune.tasks.given import Given, task_of
from randprune.tasks.multi_label import MultiLabel
from randprune.tasks.outputs import Outputs
from randprune.tasks.regression import Regression
from randprune.tasks.segmentation import Segmentation

__all__ = [
    "ACCURACY",
    "Classification",
    "Given",
    "Meter",
    "Metric",
    "MultiLabel",
    "Outputs",
    "Quality",
    "Regression",
    "Segmentation",
    "Task",
    "task_of",
    "tasks",
]
