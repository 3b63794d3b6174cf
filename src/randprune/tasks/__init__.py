"""What networks are for: `tasks.create("segmentation")`, `rp.prune(..., task="segmentation")`."""

from randprune.tasks.base import Meter, Metric, Quality, Task, tasks
from randprune.tasks.classification import ACCURACY, Classification
from randprune.tasks.outputs import Outputs

__all__ = ["ACCURACY", "Classification", "Meter", "Metric", "Outputs", "Quality", "Task", "tasks"]
