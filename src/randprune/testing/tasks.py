"""What every task must do, checked on outputs and a batch that its author gives."""

from __future__ import annotations

from typing import Any

import torch

from randprune.graph.trees import floating_leaves, map_tensors, named_leaves, part_of
from randprune.tasks.base import Meter, Metric, Task


def check_task(task: Task, outputs: Any, batch: Any) -> None:
    """Check a task against its contract (`randprune.tasks.base.Task`).

    Args:
        task: the object.
        outputs: of a network, for a batch of at least four samples.
        batch: of the data, with targets where the task needs them.

    Raises:
        AssertionError: says which rule is broken, and how.
    """
    assert isinstance(task, Task), f"{task!r} lacks a part of randprune.tasks.base.Task."
    assert isinstance(task.metric, Metric), "metric must be a randprune.tasks.Metric."
    assert task.name, "name must say what the task is called."
    before = [leaf.clone() for _, leaf in named_leaves((outputs, batch))]
    _check_distance(task, outputs)
    if task.needs_targets:
        _check_loss(task, outputs, batch)
    _check_meter(task, outputs, batch)
    after = [leaf for _, leaf in named_leaves((outputs, batch))]
    assert all(map(torch.equal, before, after)), "outputs or the batch were changed."


def _noisy(outputs: Any, amount: float) -> Any:
    generator = torch.Generator().manual_seed(0)
    return map_tensors(
        lambda x: (
            x + amount * torch.randn(x.shape, generator=generator) if x.is_floating_point() else x
        ),
        outputs,
    )


def _check_distance(task: Task, outputs: Any) -> None:
    none = task.distance(outputs, outputs)
    assert none.ndim == 0, f"distance must be a scalar. Got shape {tuple(none.shape)}."
    assert abs(float(none)) < 1e-6, f"distance of equal outputs must be 0. Got {float(none)}."
    near, far = (float(task.distance(_noisy(outputs, a), outputs)) for a in (0.01, 1.0))
    assert 0.0 < near < far, f"distance must grow with the difference. Got {near}, then {far}."


def _check_loss(task: Task, outputs: Any, batch: Any) -> None:
    leaves = map_tensors(
        lambda x: x.clone().requires_grad_() if x.is_floating_point() else x, outputs
    )
    loss = task.loss(leaves, batch)
    assert loss.ndim == 0, f"loss must be a scalar. Got shape {tuple(loss.shape)}."
    assert bool(torch.isfinite(loss)), f"loss must be finite. Got {float(loss)}."
    used = [x for x in floating_leaves(leaves).values() if x.requires_grad]
    grads = torch.autograd.grad(loss, used, allow_unused=True)
    assert any(g is not None and bool(g.any()) for g in grads), "loss must have a gradient."


def _check_meter(task: Task, outputs: Any, batch: Any) -> None:
    whole = task.meter()
    assert isinstance(whole, Meter), "meter() must give a randprune.tasks.Meter."
    dense = _noisy(outputs, 0.1)
    whole.update(outputs, batch, dense)
    found = whole.result()
    parts = task.meter()
    for part in (slice(2), slice(2, None)):
        parts.update(part_of(outputs, part), part_of(batch, part), part_of(dense, part))
    again = parts.result()
    assert found.samples == again.samples, "samples must add up over batches."
    assert (found.loss is not None) == task.needs_targets, "a loss needs targets, and no more."
    assert found.distance is not None, "a distance is known where dense outputs are."
    fresh = task.meter()
    fresh.update(outputs, batch, dense)
    assert fresh.result() == found, "two meters that see the same must find the same."
