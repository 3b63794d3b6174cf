"""The coverage sweep: every network of a list traced, cut, verified, and put into docs/coverage.md.

    python benchmarks/coverage.py                            # the whole list
    python benchmarks/coverage.py --models tv:resnet18 timm:dla34
    python benchmarks/coverage.py --third 0                  # every third network (0, 1 or 2)

Each network runs in a process of its own under a time limit, so that one failure ends nothing. The
records are kept in docs/coverage.json; a partial run replaces only the records of what it ran, and
docs/coverage.md is written from all of them. The exit code is 1 where a network failed.

For every network, with random weights at its default input size: the channel groups, the share of
the MACs that they touch, the lowest ratio that `min_keep=0.1` reaches (in the module, and in the
emitted graph), the seconds and the memory of the trace, and at three random configurations - at
50 % of the MACs, or at the lowest ratio - whether the cut network runs, equals the masked dense
one and costs what the polynomial says; and whether it reloads from its file in a fresh process to
the last bit, trains for a step, and exports again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
PROJECT = BENCHMARKS.parent
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

DEFAULT_LIST = BENCHMARKS / "coverage_models.txt"
SHARED_LIST = PROJECT.parent / "shared" / "coverage_models.txt"
RECORDS = PROJECT / "docs" / "coverage.json"
PAGE = PROJECT / "docs" / "coverage.md"

SEEDS = (0, 1, 2)
RATIO = 0.5
MIN_KEEP = 0.1
VERIFY_LIMIT = 1e-4
_MARK = "RECORD "

# Inputs that are no single image, by the name of the network or the beginning of it.
_CLIPS = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit", "swin3d")
_SEGMENTERS = ("fcn_", "deeplabv3_", "lraspp_")


def read_list(path: Path) -> list[str]:
    """The networks of a list: one name a line, comments from '#'."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


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
        return model.eval(), torch.randn(1, *size, generator=images)
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


# -------------------------------------------------------------------------- one network


def measure(name: str, graph: bool = True) -> dict[str, Any]:
    """The record of one network, in this process."""
    model, example = build(name)
    return measure_model(name, model, example, graph)


def measure_model(name: str, model: Any, example: Any, graph: bool = True) -> dict[str, Any]:
    """The record of a network that is already built."""
    record: dict[str, Any] = {"model": name, "input": list(example.shape)}
    record["module"] = _mode(name, model, example, as_graph=False)
    if graph and record["module"].get("frozen_layers", 0) > 1:
        # With nothing frozen but the classifier, the graph could not reach further.
        record["graph"] = _mode(name, model, example, as_graph=True)
    return record


def _mode(name: str, model: Any, example: Any, as_graph: bool) -> dict[str, Any]:
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
    seconds = time.perf_counter() - start
    macs = space.cost("macs")
    low = np.maximum(1, np.ceil(space.widths * MIN_KEEP - 1e-9)).astype(np.int64)
    result: dict[str, Any] = {
        "groups": len(space.groups),
        "macs": macs.dense,
        "params": space.cost("params").dense,
        "lowest": float(macs(low)) / macs.dense,
        "prunable_macs": _prunable_share(space),
        "trace_seconds": round(seconds, 2),
        "trace_mib": max(0, _peak_memory() - baseline) >> 20,
        "frozen_layers": len(space.frozen),
        "frozen": _frozen(space),
        "inexact": list(space.inexact),
    }
    try:
        result.update(_check(name, model, space, example, low))
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"[:600]
        result["traceback"] = traceback.format_exc()[-1500:]
    if _state_hash(model) != before:
        result["error"] = "the caller's model was changed"
    return result


def _check(name: str, model: Any, space: Any, example: Any, low: Any) -> dict[str, Any]:
    """Cut at three random configurations and compare with every oracle there is."""
    import numpy as np

    import randprune as rp

    macs, params = space.cost("macs"), space.cost("params")
    dense_error = abs(macs.dense - _counted_macs(model, example))
    worst, cost_error, ratios = 0.0, dense_error, []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        widths = _configuration(space, low, rng)
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


def _configuration(space: Any, low: Any, rng: Any) -> Any:
    """A random configuration at 50 % of the MACs; the lowest reachable one above that."""
    import randprune as rp
    from randprune.search.random import RandomSearch

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

    # With gradients on: without them torch swaps multi-head attention for an uncounted operator.
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        model.eval()(example)
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
    import randprune as rp

    if ":" not in name:
        return  # not a network that another process could build
    with tempfile.TemporaryDirectory() as folder:
        path = rp.save(small, Path(folder) / "small.safetensors")
        script = Path(__file__).resolve()
        found = run_apart(script, name, 300, ("--reload", str(path)))
    differ = [kind for kind, value in _hashes(small, example).items() if found.get(kind) != value]
    if differ:
        why = found.get("error", f"its {' and '.join(differ)} differ")
        raise AssertionError(f"the saved network, loaded in a fresh process: {why}")


def reload(name: str, path: Path) -> dict[str, Any]:
    """What a fresh process makes of a saved network: hashes of its tensors and outputs."""
    import pickle

    import torch

    import randprune as rp

    # Other random weights than those that were saved: all must come from the file.
    model, example = build(name, seed=1)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("something was unpickled")

    pickle.load = pickle.loads = torch.load = refuse  # type: ignore[assignment]
    small = rp.load(path, model=model)
    return {"model": name, **_hashes(small, example)}


def _hashes(model: Any, example: Any) -> dict[str, str]:
    """Hashes of the network's tensors and of its outputs for the example."""
    import torch

    with torch.no_grad():
        outputs = _tensors(model.eval()(example))
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


# -------------------------------------------------------------------------- the sweep


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


def sweep(
    names: list[str], limit_seconds: float, *, graph: bool, peer: bool, save: bool
) -> list[dict[str, Any]]:
    """Measure the networks one after another; returns their records."""
    records = []
    options = () if graph else ("--module-only",)
    for number, name in enumerate(names, start=1):
        record = run_apart(Path(__file__).resolve(), name, limit_seconds, options)
        if peer:
            record["torch_pruning"] = run_apart(BENCHMARKS / "coverage_peer.py", name, 300)
        record["environment"] = environment_of()
        records.append(record)
        print(f"[{number}/{len(names)}] {one_line(record)}", file=sys.stderr, flush=True)
        if save:
            merge_records(RECORDS, [record])
    return records


def environment_of() -> dict[str, str]:
    """Versions that the records depend on."""
    import torch

    import randprune

    return {
        "randprune": randprune.__version__,
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
    }


def merge_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Replace these networks' records in the file, atomically, and leave the others."""
    kept = {record["model"]: record for record in load_records(path)}
    kept.update((record["model"], record) for record in records)
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(list(kept.values()), indent=1) + "\n")
    temporary.replace(path)


def load_records(path: Path) -> list[dict[str, Any]]:
    """The records of earlier runs."""
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def failures(record: dict[str, Any]) -> list[str]:
    """What is wrong with a record; empty where everything held."""
    found = [record["error"]] if "error" in record else []
    for mode in ("module", "graph"):
        result = record.get(mode)
        if result is None:
            continue
        if "error" in result:
            found.append(f"{mode}: {result['error']}")
            continue
        if not result["verify_error"] <= VERIFY_LIMIT:
            found.append(f"{mode}: relative error {result['verify_error']:.1e}")
        if result["cost_error"] != 0:
            found.append(f"{mode}: the cost is off by {result['cost_error']:g}")
    return found


def one_line(record: dict[str, Any]) -> str:
    """A record as one line of progress."""
    name, problems = record["model"], failures(record)
    parts = [f"{name}:"]
    for mode in ("module", "graph"):
        result = record.get(mode)
        if result is not None and "lowest" in result:
            parts.append(
                f"{mode} {result['groups']} groups, lowest {result['lowest']:.2f}, "
                f"{result['trace_seconds']:.1f} s, {result['trace_mib']} MiB,"
            )
    peer = record.get("torch_pruning")
    if peer is not None:
        parts.append(f"Torch-Pruning {peer.get('outcome', 'failed')};")
    parts.append("FAIL " + "; ".join(problems) if problems else "ok")
    return " ".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="instead of the list")
    parser.add_argument("--list", type=Path, help="a file with one network a line")
    parser.add_argument("--third", type=int, choices=(0, 1, 2), help="only every third network")
    parser.add_argument("--json", action="store_true", help="print the records")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one network")
    parser.add_argument("--module-only", action="store_true", help="leave the emitted graph out")
    parser.add_argument("--no-peer", action="store_true", help="leave Torch-Pruning out")
    parser.add_argument("--dry-run", action="store_true", help="leave docs/ as it is")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--reload", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        import torch

        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        if options.reload:
            emit_record(reload(options.one, options.reload))
            return 0
        emit_record(measure(options.one, graph=not options.module_only))
        return 0
    path = options.list or (SHARED_LIST if SHARED_LIST.is_file() else DEFAULT_LIST)
    names = options.models or read_list(path)
    if options.third is not None:
        names = names[options.third :: 3]
    records = sweep(
        names,
        options.limit,
        graph=not options.module_only,
        peer=not options.no_peer,
        save=not options.dry_run,
    )
    if options.json:
        print(json.dumps(records, indent=1))
    if not options.dry_run:
        from coverage_page import render

        PAGE.write_text(render(load_records(RECORDS), read_list(DEFAULT_LIST)))
    wrong = {record["model"]: failures(record) for record in records if failures(record)}
    for name, problems in wrong.items():
        print(f"{name}: {'; '.join(problems)}", file=sys.stderr)
    print(f"{len(records) - len(wrong)} of {len(records)} networks hold", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
