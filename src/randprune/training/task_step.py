"""One training step for any task: its loss, mixed with the distance to the dense network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from randprune.evaluate.inference import inference_copy
from randprune.graph.call import network_inputs
from randprune.graph.entrance import plain_module
from randprune.graph.trees import count_of, map_tensors
from randprune.tasks.base import Task, as_loss
from randprune.training.state import weights_digest
from randprune.training.steps import StepOutput


class DenseOutputs:
    """The outputs of the dense network in inference mode, float32, without gradient.

    Args:
        network: copied, not modified.

    Attributes:
        images_forward: samples that went through it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.images_forward = 0
        self._copy: nn.Module | None = None
        self._digest = ""

    @property
    def digest(self) -> str:
        """Hash of its weights."""
        if not self._digest:
            self._digest = weights_digest(self.network)
        return self._digest

    def __call__(self, inputs: tuple[Any, ...]) -> Any:
        """Its outputs for a batch of inputs."""
        place = next((x.device for x in inputs if isinstance(x, Tensor)), torch.device("cpu"))
        with torch.no_grad(), torch.autocast(place.type, enabled=False):
            if self._copy is None:
                self._copy = inference_copy(self.network, inputs, device=place).network
            outputs = self._copy(*inputs)
        self.images_forward += count_of(inputs)
        return map_tensors(torch.clone, outputs)


class TaskStep:
    """The loss of a batch by a task, mixed with the distance to the dense network's outputs.

    (1 - w) loss + w distance; w is 1 where the task has no loss of its own.

    Args:
        task: says what is minimised.
        teacher: the dense network; None: nothing is mixed in.
        weight: w.
    """

    def __init__(
        self, task: Task, teacher: DenseOutputs | None = None, weight: float = 0.0
    ) -> None:
        self.task = task
        self.teacher = teacher
        self.weight = weight if task.needs_targets else 1.0

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the run besides recipe, weights and data, JSON-ready."""
        dense = None if self.teacher is None else self.teacher.digest
        return {"task": repr(self.task), "dense": dense, "weight": self.weight}

    def attach(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Nothing to do: the step has no state."""

    def __call__(self, model: nn.Module, batch: Any, generator: torch.Generator) -> StepOutput:
        """The loss of the batch.

        Raises:
            DataError: it is no scalar.
            InvalidInputError: the batch lacks what the network's forward needs.
        """
        inputs = network_inputs(plain_module(model, "training"), batch)
        outputs = map_tensors(lambda x: x.float() if x.is_floating_point() else x, model(*inputs))
        loss: Tensor | None = None
        if self.weight < 1.0:
            loss = (1.0 - self.weight) * as_loss(self.task.loss(outputs, batch), self.task.name)
        if self.weight > 0.0:
            assert self.teacher is not None
            far = as_loss(self.task.distance(outputs, self.teacher(inputs)), self.task.name)
            loss = self.weight * far if loss is None else loss + self.weight * far
        assert loss is not None
        return StepOutput(loss.float())
