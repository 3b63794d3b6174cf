"""What every method of the benchmark must do, checked on a tiny network in about a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randprune.bench.meter import CountedSplit, Meter
from randprune.bench.methods.base import Limits, Method, Task
from randprune.cost import Budget, FloatArray
from randprune.criteria.scoring import score
from randprune.graph.program import private_copy
from randprune.graph.trace import trace
from randprune.lineage import named_tensors
from randprune.space import IntArray, Selection, Space
from randprune.testing.networks import CLASSES, IMAGE_SHAPE, Plain, labelled_images, seeded
from randprune.zoo.splits import TensorSplit

BUDGET = Budget("macs", 0.6, 0.1)


def check_method(method: Method) -> None:
    """Check a method against its contract (`randprune.bench.methods.base.Method`).

    Args:
        method: the object; a frozen dataclass in the package itself.

    Raises:
        AssertionError: says which rule is broken, and how.
    """
    check_declaration(method)
    first = check_proposal(method)
    check_repeats(method, first)
    check_criterion_use(method, first)


def check_declaration(method: Method) -> None:
    """Says whether it uses the criterion and what it does, and has a `repr` that rebuilds it."""
    assert isinstance(method, Method), (
        f"{method!r} lacks one of uses_criterion, words, propose: it is no Method."
    )
    assert isinstance(method.uses_criterion, bool), f"{method!r}: uses_criterion must be a bool."
    assert method.words.strip().endswith("."), f"{method!r}: words must be a sentence."
    kind = type(method)
    rebuilt = eval(repr(method), {kind.__name__: kind})
    assert repr(rebuilt) == repr(method), f"The repr of {method!r} does not rebuild it."


def check_proposal(method: Method) -> Selection:
    """A selection of the space within the budget; nothing of the caller's is changed."""
    model, space = _traced()
    before = _state(model)
    watch = TaskWatch()
    selection = method.propose(watch.task())
    assert isinstance(selection, Selection), (
        f"{method!r} proposed {type(selection).__name__}, not a Selection: see Task.select."
    )
    space.check_selection(selection)
    cost = space.cost(BUDGET.metric)
    ratio = float(cost(selection.widths)) / cost.dense
    assert abs(ratio - BUDGET.ratio) <= BUDGET.tolerance + 1e-9, (
        f"{method!r} proposed {ratio:.4f} of the {BUDGET.metric} under {BUDGET}."
    )
    assert _state(model) == before, (
        f"{method!r} changed the network of others, or torch's generator."
    )
    for widths in watch.evaluated:
        space.check_widths(widths)
    return selection


def check_repeats(method: Method, first: Selection) -> None:
    """The same task, the same proposal: all chance comes from the task's generator."""
    again = method.propose(TaskWatch().task())
    assert _same(first, again), f"{method!r} proposed other channels for the same task."


def check_criterion_use(method: Method, first: Selection) -> None:
    """What it says about the criterion: other scores matter, or they do not."""
    upside_down = method.propose(TaskWatch(sign=-1.0).task())
    if method.uses_criterion:
        assert not _same(first, upside_down), (
            f"{method!r} says that it uses the criterion, but proposes the same channels when all "
            "scores change their sign. Use task.select, or set uses_criterion to False."
        )
    else:
        assert _same(first, upside_down), (
            f"{method!r} says that it does not use the criterion, but its proposal changes with "
            "the scores. Set uses_criterion to True."
        )


@dataclass(slots=True, eq=False)
class TaskWatch:
    """Makes a small task, and notes what a method does with it.

    Attributes:
        sign: of the criterion's scores.
        seed: of the task's generator.
        evaluated: the configurations that were evaluated, in order.
    """

    sign: float = 1.0
    seed: int = 0
    evaluated: list[IntArray] = field(default_factory=list)

    def task(self) -> Task:
        """A task on a network of two convolutions, with a made-up quality of configurations."""
        model, space = _traced()
        images, labels = (torch.cat(parts) for parts in zip(*labelled_images(30), strict=True))
        split = TensorSplit(images, labels, (0.0,) * 3, (1.0,) * 3, CLASSES)
        meter, macs = Meter("cpu"), space.cost("macs").dense
        parts = [CountedSplit(split.subset(range(i, i + 10)), meter, macs) for i in (0, 10, 20)]
        return Task(
            model=private_copy(model),
            space=space,
            budget=BUDGET,
            limits=Limits(0.1, 1),
            scores=self._scores(model, space),
            criterion="l1",
            rng=np.random.default_rng(self.seed),
            fit=parts[0],
            calibration=parts[1],
            search=parts[2],
            evaluate=self._evaluate,
            tables=lambda: [np.linspace(1.0, 0.0, g.width + 1) for g in space.groups],
            proxy=_quality,
            rescore=self._rescore,
            random_scores=lambda: score(model, space, "random", seed=self.seed),
            uniform_of=(space, BUDGET),
        )

    def _scores(self, model: nn.Module, space: Space) -> list[Tensor]:
        return [self.sign * values for values in score(model, space, "l1")]

    def _evaluate(self, widths: IntArray) -> float:
        self.evaluated.append(np.array(widths))
        return float(_quality(np.asarray(widths)[None])[0])

    def _rescore(self, selection: Selection) -> list[Tensor]:
        model, space = _traced()
        whole: Sequence[Tensor] = self._scores(model, space)
        return [s[torch.from_numpy(kept)] for s, kept in zip(whole, selection, strict=True)]


def _quality(widths: IntArray) -> FloatArray:
    """A made-up quality that grows with every width, (N,)."""
    return np.log(np.asarray(widths, dtype=np.float64)).sum(axis=1)  # type: ignore[no-any-return]


@cache
def _traced() -> tuple[nn.Module, Space]:
    model = seeded(Plain).eval()
    return model, trace(model, torch.zeros(1, *IMAGE_SHAPE))


def _state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {
        n: t.detach().numpy().tobytes() for n, t in named_tensors(model).items()
    }
    return {**state, "generator": torch.random.get_rng_state().numpy().tobytes()}


def _same(one: Selection, other: Selection) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
