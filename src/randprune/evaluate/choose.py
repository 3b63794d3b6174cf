"""Which engine runs a network: the one that rules give, or the fastest measured."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError
from randprune.evaluate.engine import DTYPES, Choice, Engine, Precision, pick_device
from randprune.evaluate.measured import measured_engine
from randprune.evaluate.rules import ruled_engine
from randprune.zoo.splits import Split

# How many images are looked at.
_MEASURED_IMAGES = {"cpu": 256, "cuda": 2048}
_RULED_IMAGES = 4

_CHOSEN: dict[tuple[object, ...], Engine] = {}


def choose_engine(
    model: nn.Module,
    split: Split,
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
        InvalidInputError: the network does not return logits for these images.
        DataError: the split is empty.
    """
    for name, value, known in (
        ("precision", precision, ("auto", *DTYPES)),
        ("choice", choice, ("rules", "measured")),
    ):
        if value not in known:
            raise InvalidInputError(
                f"The {name!r} parameter of choose_engine must be "
                f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}. Got {value!r} instead."
            )
    place = str(pick_device(device))
    if batch_size is not None and precision == "float32":
        return Engine(place, precision, True, batch_size)
    count = _RULED_IMAGES
    if choice == "measured":
        count = _MEASURED_IMAGES.get(torch.device(place).type, max(_MEASURED_IMAGES.values()))
    key = (
        f"{type(model).__module__}.{type(model).__qualname__}",
        sum(1 for _ in model.modules()),
        tuple(split.image_shape),
        min(len(split), count),
        precision,
        place,
        choice,
        torch.get_num_threads() if choice == "measured" else 0,
    )
    if key not in _CHOSEN:
        make = measured_engine if choice == "measured" else ruled_engine
        _CHOSEN[key] = make(model, _first_images(split, count), precision, place)
    chosen = _CHOSEN[key]
    if batch_size is None:
        return chosen
    return replace(chosen, channels_last=True, batch_size=batch_size)


def _first_images(split: Split, count: int) -> Tensor:
    if len(split) == 0:
        raise DataError("The split holds no images, so nothing can be evaluated.")
    images, _ = next(iter(split.batches(min(len(split), count))))
    return images.float()
