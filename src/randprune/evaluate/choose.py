"""Which engine runs a network: the one that rules give, or the fastest measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from randprune.errors import DataError, InvalidInputError, quoted
from randprune.evaluate.engine import DTYPES, Choice, Engine, Precision, pick_device
from randprune.evaluate.measured import measured_engine
from randprune.evaluate.rules import ruled_engine
from randprune.graph.call import network_inputs
from randprune.graph.trees import map_tensors, named_leaves
from randprune.zoo.splits import Samples

# How many images are looked at.
_MEASURED_IMAGES = {"cpu": 256, "cuda": 2048}
_RULED_IMAGES = 4

_CHOSEN: dict[tuple[object, ...], Engine] = {}


def choose_engine(
    model: nn.Module,
    split: Samples,
    *,
    precision: Precision = "auto",
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    choice: Choice = "rules",
) -> Engine:
    """The engine for networks like `model` on this machine, chosen once a process.

    Networks of the same class with as many modules, on images of the same shape, share the result:
    candidates cut from one network do.

    Args:
        model: the network, or any of its candidates; not modified.
        split: the first images of it are used.
        precision: "auto" takes bfloat16 where it is clearly faster; for ranking. "float32" is for
            numbers that are reported.
        device: default: the GPU if there is one.
        batch_size: images a batch, channels last.
        choice: "rules" gives the same engine on every machine of a kind, busy or not. "measured"
            takes the fastest of some (`engine.trials`), in a second or less, and may end
            differently in two runs, which then need not give the same bits.

    Raises:
        InvalidInputError: the network returns no floating-point tensor.
        DataError: the split is empty.
    """
    for name, value, known in (
        ("precision", precision, ("auto", *DTYPES)),
        ("choice", choice, ("rules", "measured")),
    ):
        if value not in known:
            raise InvalidInputError(
                f"The {name!r} parameter of choose_engine must be "
                f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}. Got {quoted(value)} instead."
            )
    place = str(pick_device(device))
    if batch_size is not None and precision == "float32":
        return Engine(place, precision, True, batch_size)
    if len(split) == 0:
        raise DataError("The split holds no images, so nothing can be evaluated.")
    count = _RULED_IMAGES
    if choice == "measured":
        count = _MEASURED_IMAGES.get(torch.device(place).type, max(_MEASURED_IMAGES.values()))
    inputs = _first_inputs(model, split, count)
    key = (
        f"{type(model).__module__}.{type(model).__qualname__}",
        sum(1 for _ in model.modules()),
        tuple((name, tuple(x.shape)) for name, x in named_leaves(inputs)),
        precision,
        place,
        choice,
        torch.get_num_threads() if choice == "measured" else 0,
    )
    if key not in _CHOSEN:
        make = measured_engine if choice == "measured" else ruled_engine
        _CHOSEN[key] = make(model, inputs, precision, place)
    chosen = _CHOSEN[key]
    if batch_size is None:
        return chosen
    return replace(chosen, channels_last=True, batch_size=batch_size)


def _first_inputs(model: nn.Module, split: Samples, count: int) -> tuple[Any, ...]:
    batch = next(iter(split.batches(min(len(split), count))))
    inputs: tuple[Any, ...] = map_tensors(
        lambda x: x.float() if x.is_floating_point() else x, network_inputs(model, batch)
    )
    return inputs
