"""What pruning and quantisation give, apart and together: four files, each run where it will run.

The dense and the pruned network, each in float32 and in whole numbers of 8 bits, are judged on the
search images by the files themselves, in ONNX Runtime, and timed in turn. The test set stays shut.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

from randprune.atomic import write_file
from randprune.export import export, tensors_in
from randprune.graph.call import network_inputs
from randprune.graph.program import in_mode, private_copy
from randprune.latency.onnx_runtime import OnnxFile
from randprune.quantize import quantize
from randprune.tasks import Metric, Quality, Task
from randprune.zoo.dataset import Data

CALIBRATION = 256
"""Images that ranges are taken from, at most."""

_BATCH = 64
_ROUNDS, _RUNS = 3, 8


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the four files.

    Attributes:
        name: "dense", "dense, int8", "pruned" or "pruned, int8".
        size_bytes: of the file.
        quality: on the search images; `metric` says what its value is.
        milliseconds: of one batch of the example's size, the sum of its kernels' fastest runs.
        speedup: over the dense network in float32.
    """

    name: str
    size_bytes: int
    quality: Quality
    metric: Metric
    milliseconds: float
    speedup: float


def four_arms(
    dense: nn.Module,
    small: nn.Module,
    data: Data,
    task: Task,
    example: tuple[Any, ...],
    *,
    threads: int = 1,
    keep: Path | None = None,
) -> list[Arm]:
    """Judge and time the four files.

    Args:
        dense, small: networks on the CPU; left untouched.
        data: calibration images give the ranges, search images judge.
        task: says what outputs are worth.
        example: inputs of the network as files are timed with.
        threads: of the runtime.
        keep: where the pruned network's quantised file is written; None: nowhere.

    Raises:
        InvalidInputError: the packages of the extra are missing.
        UnsupportedModelError: a network cannot be exported, or not be quantised.
    """
    samples = data.calibration
    if len(samples) > CALIBRATION:
        samples = samples.subset(np.arange(CALIBRATION))
    calibration = [tensors_in(network_inputs(dense, b)) for b in samples.batches(_BATCH)]
    with tempfile.TemporaryDirectory() as made:
        files: dict[str, Path] = {}
        for name, network in (("dense", dense), ("pruned", small)):
            plain = files[name] = Path(made) / f"{name}.onnx"
            export(network, plain, example)
            whole = files[f"{name}, int8"] = Path(made) / f"{name}.int8.onnx"
            quantize(plain, whole, calibration)
        if keep is not None:
            write_file(keep, files["pruned, int8"].read_bytes())
        contents = {name: path.read_bytes() for name, path in files.items()}
    runners = {name: OnnxFile(model, threads, example) for name, model in contents.items()}
    judged = _judged(runners, dense, data, task)
    # In turn, so that a busy moment meets all of them.
    rounds = [{n: r.fastest(_RUNS) for n, r in runners.items()} for _ in range(_ROUNDS)]
    least = {name: min(found[name] for found in rounds) for name in runners}
    return [
        Arm(
            name,
            len(contents[name]),
            quality,
            task.metric,
            least[name],
            least["dense"] / least[name],
        )
        for name, quality in judged.items()
    ]


def _judged(
    runners: Mapping[str, OnnxFile], dense: nn.Module, data: Data, task: Task
) -> dict[str, Quality]:
    """Files on the search images, beside the dense network's outputs."""
    beside = in_mode(private_copy(dense))
    meters = {name: task.meter() for name in runners}
    for batch in data.search.batches(_BATCH):
        inputs = network_inputs(dense, batch)
        with torch.inference_mode():
            wanted = beside(*inputs)
        # A file gives a list; the task knows the network's own structure.
        _, form = _pytree.tree_flatten(wanted)
        for name, runner in runners.items():
            meters[name].update(_pytree.tree_unflatten(runner.outputs(inputs), form), batch, wanted)
    return {name: meter.result() for name, meter in meters.items()}
