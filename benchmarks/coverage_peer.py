"""What Torch-Pruning 1.6.1 makes of the same networks: uniform 50 % of the channels, then forward.

    pip install --no-deps torch-pruning==1.6.1
    python benchmarks/coverage_peer.py --models tv:resnet18 timm:nfnet_l0

The job follows its README: a `BasePruner` with magnitude importance, the same ratio everywhere, the
classifier ignored. Outcomes: "ok" - the pruned network runs and its outputs keep their shape;
"crashes" - building the groups, pruning, or the forward pass raises; "wrong" - it runs, and the
outputs have another shape or are not finite; "nothing" - no parameter went. Whether an "ok" network
computes what the dense one computes without those channels is not checked, for there is no mask to
compare with.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from coverage_network import build, emit_record, run_apart

VERSION = "1.6.1"
RATIO = 0.5
MEMORY_GIB = 8


def prune(model: Any, example: Any) -> dict[str, Any]:
    """The outcome of pruning half of the channels of every layer."""
    import torch
    import torch_pruning as tp
    from torch.utils.flop_counter import FlopCounterMode

    def macs() -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(example)
        return counter.get_total_flops() / 2

    with torch.no_grad():
        dense_shapes = _shapes(model(example))
    dense_macs, dense_params = macs(), _count_params(model)
    # The README's advice: leave the layer that gives the classes.
    classes = {shape[1] for shape in dense_shapes if len(shape) > 1}
    ignored = [
        module
        for module in model.modules()
        if (isinstance(module, torch.nn.Linear) and module.out_features in classes)
        or (isinstance(module, torch.nn.Conv2d) and module.out_channels in classes)
    ]
    start = time.perf_counter()
    try:
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.MagnitudeImportance(p=1),
            pruning_ratio=RATIO,
            ignored_layers=ignored,
        )
        pruner.step()
    except Exception as error:
        return {"outcome": "crashes", "where": "pruning", "why": _first_line(error)}
    seconds = round(time.perf_counter() - start, 2)
    try:
        with torch.no_grad():
            outputs = model(example)
    except Exception as error:
        return {"outcome": "crashes", "where": "forward", "why": _first_line(error)}
    shapes = _shapes(outputs)
    if shapes != dense_shapes:
        why = f"outputs of shape {shapes[:1]} instead of {dense_shapes[:1]}"
        return {"outcome": "wrong", "why": why, "seconds": seconds}
    if not all(bool(torch.isfinite(t).all()) for t in _tensors(outputs)):
        return {"outcome": "wrong", "why": "outputs are not finite", "seconds": seconds}
    params = _count_params(model)
    return {
        "outcome": "nothing" if params == dense_params else "ok",
        "macs_ratio": macs() / dense_macs,
        "params_ratio": params / dense_params,
        "seconds": seconds,
    }


def _count_params(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _tensors(outputs: Any) -> list[Any]:
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [t for part in parts if part is not None for t in _tensors(part)]


def _shapes(outputs: Any) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in _tensors(outputs)]


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:200]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        import torch

        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        # On some networks (Swin) it takes tens of gigabytes; let that fail instead of the machine.
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_GIB << 30,) * 2)
        try:
            import torch_pruning  # noqa: F401
        except ModuleNotFoundError:
            emit_record({"model": options.one, "outcome": "not installed"})
            return 0
        model, example = build(options.one)
        emit_record({"model": options.one, "version": VERSION, **prune(model, example)})
        return 0
    for name in options.models:
        print(run_apart(Path(__file__).resolve(), name, 300))
    return 0


if __name__ == "__main__":
    sys.exit(main())
