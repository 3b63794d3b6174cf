"""The engine that rules choose: the same one on every machine of a kind, busy or not.

Scores in bfloat16 differ from those in float32 by 1e-3, those of two batch sizes by 1e-8 to 1e-3:
an engine that is chosen by the clock can rank candidates differently in two runs of the same seed.
So the clock has no say here, only what the processor can do and how large the images are:

- bfloat16 for ranking where the processor has matrix units for it (AMX on x86, GPUs of compute
  capability 8 and later) and the network runs in it. AVX512-BF16 alone is slower than float32
  (measured: ResNet-20, 0.75 times as fast);
- channels last, always;
- as many images a batch as keep the activations in the cache, by the size of an image.

`benchmarks/engine_rules.py` compares the rules' engine with the best of all that can be chosen.

Known shortcomings: processors other than x86 rank in float32; the sizes for GPUs are estimates.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import nn

from randprune.errors import InvalidInputError, RandpruneError
from randprune.evaluate.engine import Dtype, Engine, Precision
from randprune.evaluate.inference import inference_copy, prepared
from randprune.graph.trees import floating_leaves, named_leaves, part_of
from randprune.provenance import cpu_features

_MATRIX_UNIT = "amx_bf16"
# oneDNN, which runs the convolutions, can be told to do without.
_ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"
_CUDA_MAJOR = 8
# Pixels (H * W) a batch, and between which sizes it may be. bfloat16 takes half of the cache.
_PIXELS = {"float32": 1 << 16, "bfloat16": 1 << 17}
_LEAST, _MOST = 8, 256
_GPU_PIXELS, _GPU_LEAST, _GPU_MOST = 1 << 23, 32, 1024


def ruled_engine(
    model: nn.Module,
    inputs: tuple[Any, ...],
    precision: Precision,
    device: str,
) -> Engine:
    """The engine for networks like `model` on batches like `inputs`, by rules alone.

    Args:
        model: the network, or any of its candidates; not modified.
        inputs: of the network for a few samples; it is tried on two of them where bfloat16 is a
            choice.
        precision: "auto" is bfloat16 where that is fast here and the network's outputs are finite.
        device: where it runs.

    Raises:
        InvalidInputError: the network does not run in the precision asked for.
    """
    dtype: Dtype = "float32" if precision == "auto" else precision
    if precision == "auto" and fast_bfloat16(device) and not _problem(model, inputs, device):
        dtype = "bfloat16"
    elif precision == "bfloat16" and (problem := _problem(model, inputs, device)):
        raise InvalidInputError(
            f"{type(model).__name__} does not run in bfloat16: {problem}. Use precision='float32'."
        )
    return Engine(device, dtype, True, batch_of(places_of(inputs), dtype, device))


def places_of(inputs: Any) -> int:
    """How many places the largest input of one sample has, such as pixels."""
    maps = (x for _, x in named_leaves(inputs) if x.ndim > 2)
    return max((math.prod(x.shape[2:]) for x in maps), default=1)


def batch_of(pixels: int, dtype: Dtype, device: str) -> int:
    """Images a batch, a power of two, for images of so many pixels."""
    if torch.device(device).type == "cpu":
        least, most, held = _LEAST, _MOST, _PIXELS[dtype]
    else:
        least, most, held = _GPU_LEAST, _GPU_MOST, _GPU_PIXELS
    fitting = max(1, held // max(1, pixels))
    return int(min(most, max(least, 1 << (fitting.bit_length() - 1))))


def fast_bfloat16(device: str) -> bool:
    """Whether the device has matrix units for bfloat16."""
    place = torch.device(device)
    if place.type == "cuda":
        return torch.cuda.get_device_capability(place)[0] >= _CUDA_MAJOR
    limit = os.environ.get(_ONEDNN_LIMIT, "").upper()
    allowed = not limit or "AMX" in limit or limit in ("ALL", "DEFAULT")
    return place.type == "cpu" and allowed and _MATRIX_UNIT in cpu_features()


def _problem(model: nn.Module, inputs: tuple[Any, ...], device: str) -> str:
    """Why the network is not run in bfloat16; "" where it can be."""
    few = part_of(inputs, slice(2))
    finite = []
    for dtype in (torch.float32, torch.bfloat16):
        try:
            network = inference_copy(model, few, dtype=dtype, device=device).network
            given = prepared(few, torch.device(device), dtype, torch.channels_last)
            with torch.inference_mode():
                outputs = floating_leaves(network(*given))
        except (RuntimeError, TypeError, RandpruneError) as error:
            if dtype == torch.float32:
                raise
            return str(error).splitlines()[0] if str(error) else type(error).__name__
        finite.append(all(bool(torch.isfinite(z).all()) for z in outputs.values()))
    # Weights that overflow in float32 too say nothing about bfloat16.
    return "logits not finite" if finite == [True, False] else ""
