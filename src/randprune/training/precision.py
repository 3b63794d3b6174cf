"""Which precision training runs in: decided by hardware features, never by timing.

A choice by timing could differ from one run to the next and change the weights that come out.
"""

from __future__ import annotations

from typing import Literal

import torch

from randprune.training.recipe import TrainPrecision


def resolve_precision(
    precision: TrainPrecision, device: torch.device
) -> Literal["float32", "bfloat16"]:
    """ "auto" resolved: bfloat16 where the device computes in it natively, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        # Emulated bfloat16 (before Ampere) is slower than float32.
        native = torch.cuda.get_device_capability(device)[0] >= 8
    elif device.type == "cpu":
        native = _cpu_has_bfloat16()
    else:
        native = False
    return "bfloat16" if native else "float32"


def _cpu_has_bfloat16() -> bool:
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if features:
        names = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
        return any(bool(features.get(name)) for name in names)
    # torch before 2.10: two private queries that its own compiler uses.
    queries = (
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(query() for query in queries if query is not None)
