"""Fine-tuning by the caller's own trainer: any callable that trains a module.

It is called once for each network that is compared, with the same random state each time, and
gives the module back, or nothing where it trained in place. What comes back is checked, copied into
a network of ours, kept, and measured by us as all others are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from randprune.errors import TrainerError
from randprune.graph.entrance import plain_module
from randprune.graph.program import in_mode, private_copy
from randprune.jobs.ledger import cost_entry
from randprune.jobs.session import Session
from randprune.lineage import named_tensors, tensor_shapes

Trainer = Callable[[nn.Module], Any]


def trained_by(
    session: Session, trainer: Trainer, starts: Mapping[str, nn.Module], labels: Mapping[str, str]
) -> dict[str, nn.Module]:
    """The networks after the trainer, by method; those of an earlier process are only read.

    Args:
        session: of the job.
        trainer: gets a copy of each network, in training mode, on the CPU.
        starts: the repaired networks, by method; not modified.
        labels: what people call them.

    Raises:
        TrainerError: the trainer raised, returned something else, changed the architecture, left
            the network as it was, or left weights that are not finite. It has the networks so far;
            the same call with the same `out` goes on with them.
    """
    seed = session.seeds.seed("finetune")
    found: dict[str, nn.Module] = {}
    for method, start in starts.items():
        key, label = f"finetune/{method}", labels[method]
        name = f"finetuned-{method}"
        known = session.work.network(name, session.original.network)
        text, done = f"Training {label} by the given trainer", int(known is not None)
        with session.phase(key, text, done=done):
            if known is None:
                began = time.perf_counter()
                known = session.work.keep_network(
                    name, _trained(trainer, start, label, seed, {**starts, **found})
                )
                seconds = time.perf_counter() - began
                session.ledger.add_cost(
                    cost_entry("finetune", key, seconds=seconds, device=session.device)
                )
        found[method] = known
    return found


def _trained(
    trainer: Trainer, start: nn.Module, label: str, seed: int, kept: Mapping[str, nn.Module]
) -> nn.Module:
    def failed(problem: str) -> TrainerError:
        return TrainerError(
            f"The trainer given as finetune {problem} (network {label!r}). The search is not lost: "
            "the same call with the same `out` goes on from the repaired networks, and the error's "
            "`networks` has them.",
            kept,
        )

    given = in_mode(private_copy(start), training=True)
    try:
        with _seeded(seed):
            returned = trainer(given)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        raise failed(f"raised {type(error).__name__}: {text}") from error
    if returned is not None and not isinstance(returned, nn.Module):
        raise failed(
            f"returned {type(returned).__name__}; it must return the trained module, or None where "
            "it trained the module in place"
        )
    trained = plain_module(given if returned is None else returned, "finetune")
    before, after = tensor_shapes(start), tensor_shapes(trained)
    if before != after:
        other = sorted({*before.items()} ^ {*after.items()})
        name = other[0][0]
        raise failed(
            f"changed the architecture: {name} is {after.get(name, 'gone')}, it was "
            f"{before.get(name, 'not there')}"
        )
    result = private_copy(start)
    own, theirs = named_tensors(result), named_tensors(trained)
    changed = False
    with torch.no_grad():
        for name, tensor in theirs.items():
            value = tensor.detach().to(own[name])
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise failed(f"left values of {name} that are NaN or infinite")
            changed |= not torch.equal(value, own[name])
            own[name].copy_(value)
    if not changed:
        how = "returned nothing and" if returned is None else "returned a network, but"
        raise failed(f"{how} left all weights as they were")
    return in_mode(result, start.training)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The same global random state for each network; put back afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
