"""One network of the coverage sweep: built, traced, cut, and compared with every oracle."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SEEDS = 3
RATIO = 0.5
MIN_KEEP = 0.1
_MARK = "RECORD "
_NETWORK, _EXAMPLE = "small.safetensors", "example.safetensors"
_SCRIPT = Path(__file__).resolve().with_name("coverage.py")

# Inputs that are no single image, by the name of the network or the beginning of it.
_CLIPS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit", "swin3d")
_SEGMENTERS = ("fcn_", "deeplabv3_", "lraspp_")


def build(name: str, seed: int = 0) -> tuple[Any, Any]:
    """(network, example input): random weights by `seed`, the network's default input size."""
    import torch

    from randprune.zoo.vision import timm, torchvision

    source, _, model_name = name.partition(":")
    torch.manual_seed(seed)
    images = torch.Generator().manual_seed(0)
    if source == "timm":
        model = timm().create_model(model_name, pretrained=False)
        config = getattr(model, "default_cfg", None) or {}
        size = config.get("input_size", (3, 224, 224))
        model.eval()  # which returns nothing where a network overrides `train` carelessly
        return model, torch.randn(1, *size, generator=images)
    if source == "tv":
        options: dict[str, Any] = {"weights": None}
        if model_name in ("inception_v3", "googlenet"):
            options["init_weights"] = False
        if model_name.startswith(_SEGMENTERS):
            options["weights_backbone"] = None
        model = torchvision().models.get_model(model_name, **options)
        if model_name.startswith(_CLIPS):
            shape: tuple[int, ...] = (
                (1, 3, 16, 224, 224) if model_name == "s3d" else (1, 3, 8, 64, 64)
            )
        else:
            shape = (1, 3, 299, 299) if model_name == "inception_v3" else (1, 3, 224, 224)
        return model.eval(), torch.randn(shape, generator=images)
    from randprune.zoo.models import build_model

    return build_model(name).eval(), torch.randn(1, 3, 32, 32, generator=images)


def measure(name: str, graph: bool = True, seeds: int = SEEDS) -> dict[str, Any]:
    """The record of one network, in this process."""
    model, example = build(name)
    return measure_model(name, model, example, graph, seeds)


def time_trace(name: str) -> dict[str, Any]:
    """Seconds and memory of the trace alone."""
    import randprune as rp

    model, example = build(name)
    baseline = _reset_peak_memory()
    start = time.perf_counter()
    rp.trace(model, example)
    return _trace_figures(start, baseline)


def _trace_figures(start: float, baseline: int) -> dict[str, Any]:
    """What a trace took since it started, with this many bytes resident before it."""
    return {
        "trace_seconds": round(time.perf_counter() - start, 2),
        "trace_mib": max(0, _peak_memory() - baseline) >> 20,
    }


def measure_model(
    name: str, model: Any, example: Any, graph: bool = True, seeds: int = SEEDS
) -> dict[str, Any]:
    """The record of a network that is already built."""
    record: dict[str, Any] = {"model": name, "input": list(example.shape), "seeds": seeds}
    record["module"] = _mode(name, model, example, False, seeds)
    if graph and record["module"].get("frozen_layers", 0) > 1:
        # With nothing frozen but the classifier, the graph could not reach further.
        record["graph"] = _mode(name, model, example, True, seeds)
    return record


def _mode(name: str, model: Any, example: Any, as_graph: bool, seeds: int) -> dict[str, Any]:
    import numpy as np

    import randprune as rp

    before = _state_hash(model)
    baseline = _reset_peak_memory()
    start = time.perf_counter()
    options: dict[str, Any] = {"as_graph": True} if as_graph else {}
    try:
        space = rp.trace(model, example, **options)
    except Exception as error:
        return {"error": f"trace: {type(error).__name__}: {error}"[:600]}
    figures = _trace_figures(start, baseline)
    macs = space.cost("macs")
    low = np.maximum(1, np.ceil(space.widths * MIN_KEEP - 1e-9)).astype(np.int64)
    result: dict[str, Any] = {
        "groups": len(space.groups),
        "macs": macs.dense,
        "params": space.cost("params").dense,
        "lowest": float(macs(low)) / macs.dense,
        "prunable_macs": _prunable_share(space),
        **figures,
        "frozen_layers": len(space.frozen),
        "frozen": _frozen(space),
        "inexact": list(space.inexact),
    }
    try:
        result.update(_check(name, model, space, example, low, seeds))
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"[:600]
        result["traceback"] = traceback.format_exc()[-1500:]
    if _state_hash(model) != before:
        result["error"] = "the caller's model was changed"
    return result


def _check(name: str, model: Any, space: Any, example: Any, low: Any, seeds: int) -> dict[str, Any]:
    """Cut at random configurations and compare with every oracle there is."""
    import numpy as np

    import randprune as rp

    macs, params = space.cost("macs"), space.cost("params")
    dense_error = abs(macs.dense - _counted_macs(model, example))
    worst, cost_error, ratios = 0.0, dense_error, []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        widths = configuration(space, low, rng)
        kept = [
            np.sort(rng.permutation(group.width)[:width])
            for group, width in zip(space.groups, widths.tolist(), strict=True)
        ]
        selection = rp.Selection(tuple(kept), space.fingerprint)
        small = rp.cut(model, space, selection)
        counted = _counted_macs(small, example)
        cost_error = max(cost_error, abs(float(macs(widths)) - counted))
        cost_error = max(cost_error, abs(float(params(widths)) - _count_params(small)))
        worst = max(worst, rp.verify(model, small, space, selection, example))
        ratios.append(counted / macs.dense)
    _reload(name, small, example)
    _train_one_step(small, example)
    again = rp.trace(small, example, trial=False, as_graph=False)
    if again.cost("params").dense != _count_params(small):
        raise AssertionError("the cut network, traced again, has another number of parameters")
    return {"ratios": ratios, "verify_error": worst, "cost_error": cost_error}


def configuration(space: Any, low: Any, rng: Any) -> Any:
    """A random configuration at 50 % of the MACs; the lowest reachable one above that."""
    import randprune as rp
    from randprune.strategies.random import RandomSearch

    macs = space.cost("macs")
    if not len(space.groups) or float(macs(low)) / macs.dense > RATIO:
        return low
    try:
        return RandomSearch(min_keep=MIN_KEEP).ask(space, rp.Budget("macs", RATIO), 1, rng)[0]
    except rp.InfeasibleBudgetError:
        # So few and coarse widths that no sum of them is within half a percent.
        budget = rp.Budget("macs", RATIO, tolerance=0.1)
        return RandomSearch(min_keep=MIN_KEEP).ask(space, budget, 1, rng)[0]


def _prunable_share(space: Any) -> float:
    """Share of the MACs that would go if every group lost all of its channels but none."""
    import numpy as np

    macs = space.cost("macs")
    zero = np.zeros(len(space.groups), dtype=np.int64)
    return 1.0 - float(macs(zero)) / macs.dense


def _frozen(space: Any) -> list[list[Any]]:
    """[reason, number of channels, layers] in the order of the network, one entry a reason."""
    reasons: dict[str, list[Any]] = {}
    for part in space.frozen:
        entry = reasons.setdefault(part.reason, [part.reason, 0, []])
        entry[1] += part.channels
        entry[2].append(part.layer)
    return list(reasons.values())


def _counted_macs(model: Any, example: Any) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # Without gradients, as in deployment; without torch's fused multi-head attention module, whose
    # linear layers the counter does not see.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() / 2


def _count_params(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _train_one_step(small: Any, example: Any) -> None:
    """A backward pass and an optimiser step, in training mode."""
    import torch

    small.train()
    # Batch norm needs more than one value per channel where the image has shrunk to 1 x 1.
    outputs = small(torch.cat([example, example.flip(-1)]))
    loss = sum((t.float() ** 2).mean() for t in _tensors(outputs))
    optimiser = torch.optim.SGD(small.parameters(), lr=1e-3)
    loss.backward()
    gradients = [p.grad for p in small.parameters() if p.grad is not None]
    if not gradients or not all(bool(torch.isfinite(g).all()) for g in gradients):
        raise AssertionError("the cut network has no finite gradient")
    optimiser.step()
    small.eval()


def _reload(name: str, small: Any, example: Any) -> None:
    """Save, load in a fresh process that cannot unpickle, and compare to the last bit."""
    from safetensors.torch import save_file

    import randprune as rp

    if ":" not in name:
        return  # not a network that another process could build
    with tempfile.TemporaryDirectory() as folder:
        rp.save(small, Path(folder) / _NETWORK)
        save_file({"example": example}, Path(folder) / _EXAMPLE)
        found = run_apart(_SCRIPT, name, 300, ("--reload", folder))
    differ = [kind for kind, value in _hashes(small, example).items() if found.get(kind) != value]
    if differ:
        why = found.get("error", f"its {' and '.join(differ)} differ")
        raise AssertionError(f"the saved network, loaded in a fresh process: {why}")


def reload(name: str, folder: Path) -> dict[str, Any]:
    """What a fresh process makes of a saved network: hashes of its tensors and outputs."""
    import pickle

    import torch
    from safetensors.torch import load_file

    import randprune as rp

    # Other random weights than those that were saved: all must come from the file.
    model, _ = build(name, seed=1)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("something was unpickled")

    pickle.load = pickle.loads = torch.load = refuse  # type: ignore[assignment]
    small = rp.load(folder / _NETWORK, model=model)
    return {"model": name, **_hashes(small, load_file(folder / _EXAMPLE)["example"])}


def _hashes(model: Any, example: Any) -> dict[str, str]:
    """Hashes of the network's tensors and of its outputs for the example."""
    import torch

    model.eval()
    with torch.no_grad():
        outputs = _tensors(model(example))
    tensors, results = hashlib.sha256(), hashlib.sha256()
    for name, tensor in model.state_dict().items():
        tensors.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for output in outputs:
        results.update(output.contiguous().numpy().tobytes())
    return {"tensors": tensors.hexdigest(), "outputs": results.hexdigest()}


def _tensors(outputs: Any) -> list[Any]:
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return [t for part in parts if part is not None for t in _tensors(part)]


def _state_hash(model: Any) -> int:
    return hash(tuple(t.detach().cpu().numpy().tobytes() for t in model.state_dict().values()))


def _reset_peak_memory() -> int:
    """Bytes resident now; later `_peak_memory` counts from here, where Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak_memory()
    return _status("VmRSS")


def _peak_memory() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"no {field} in /proc/self/status")


def run_apart(
    script: Path, name: str, limit_seconds: float, options: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The record that `script --one NAME` prints, from a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(script), "--one", name, *options]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"model": name, "error": f"no result within {limit_seconds:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return found
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"model": name, "error": f"exit code {done.returncode}: {last[:300]}"}


def emit_record(record: dict[str, Any]) -> None:
    """Print a record for `run_apart`."""
    print(_MARK + json.dumps(record), flush=True)
