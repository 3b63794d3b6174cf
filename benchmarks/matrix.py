"""The matrix: networks of other packages, each traced, cut, checked, trained, reloaded, exported.

    python benchmarks/matrix.py                     # every network that has no sound record yet
    python benchmarks/matrix.py --all               # every network anew
    python benchmarks/matrix.py --only ultralytics: smp:Unet-resnet18
    python benchmarks/matrix.py --page              # write docs/matrix.md from the records alone

`make matrix` installs what it needs into .venv first. Each network runs in a process of its own
under a time limit, and its record goes to docs/matrix.json at once, so that the run can be stopped
and started again. docs/matrix.md is written from all records. The exit code is 1 where a network
failed.

For every network with random weights, at a random configuration near 50 % of the MACs (the lowest
one that is reachable, where that is above): whether the cut network equals the masked dense one,
whether the cost is what torch's FLOP counter and `numel` say, whether it trains for a step,
whether it reloads from its file in a fresh process to the last bit, and whether ONNX Runtime gives
the same.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import sys
import tempfile
import time
import traceback
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
PROJECT = BENCHMARKS.parent
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

from coverage import merge_records  # noqa: E402
from coverage_network import configuration, emit_record, run_apart  # noqa: E402
from coverage_records import load_records  # noqa: E402
from matrix_networks import ENTRIES, Subject, build  # noqa: E402

RECORDS = PROJECT / "docs" / "matrix.json"
PAGE = PROJECT / "docs" / "matrix.md"
EXACT = 1e-4  # relative error that `verify` allows
_SMALL = "small.safetensors"
_OUTPUTS = "outputs.pt"
_PACKAGES = ("torch", "torchvision", "ultralytics", "segmentation_models_pytorch", "monai",
             "transformers", "onnxruntime")  # fmt: skip

Record = dict[str, Any]


def measure(name: str) -> Record:
    """The record of one network; what fails is said, and the other checks go on."""
    import numpy as np

    import randprune as rp

    subject = build(name)
    record: Record = {"model": name, "kind": ENTRIES[name].kind, "within": list(subject.within)}
    start = time.perf_counter()
    try:
        space = rp.trace(subject.model, subject.inputs, **subject.options)
    except Exception as error:
        return {**record, "error": f"trace: {type(error).__name__}: {error}"[:500]}
    macs = space.cost("macs")
    low = np.maximum(1, np.ceil(space.widths * 0.1 - 1e-9)).astype(np.int64)
    rng = np.random.default_rng(0)
    widths = configuration(space, low, rng)
    kept = [
        np.sort(rng.permutation(group.width)[:width])
        for group, width in zip(space.groups, widths.tolist(), strict=True)
    ]
    selection = rp.Selection(tuple(kept), space.fingerprint)
    record |= {
        "trace_seconds": round(time.perf_counter() - start, 1),
        "groups": len(space.groups),
        "macs": macs.dense,
        "lowest": float(macs(low)) / macs.dense,
        "ratio": float(macs(widths)) / macs.dense,
        "frozen": _reasons(space),
        "inexact": list(space.inexact),
        "checks": {},
    }
    small = rp.cut(subject.model, space, selection)
    checks = {
        "exact": lambda: rp.verify(subject.model, small, space, selection, subject.inputs),
        "cost": lambda: _cost_error(subject, space, small, widths),
        "reload": lambda: _reloads(name, small, subject),
        "onnx": lambda: _onnx_error(subject, small),
        "train": lambda: _trains(subject, small),
    }
    for check, run in checks.items():
        try:
            record["checks"][check] = run()
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            record["checks"][check] = f"{type(error).__name__}: {reason}"[:300]
            record["traceback"] = traceback.format_exc()[-1500:]
    return record


def _reasons(space: Any) -> list[list[Any]]:
    """[reason, number of layers, first layer], one entry a reason."""
    found: dict[str, list[Any]] = {}
    for part in space.frozen:
        found.setdefault(part.reason, [part.reason, 0, part.layer])[1] += 1
    return list(found.values())


def _flat(outputs: Any) -> list[Any]:
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    nested = isinstance(outputs, dict | list | tuple)
    return [t for part in parts for t in _flat(part)] if nested else []


def runnable(subject: Subject, model: Any) -> tuple[Any, tuple[Any, ...]]:
    """What torch can count, train and export: the network, or those parts that were traced."""
    from randprune.graph.within import parts_of

    if not subject.within:
        return model, subject.inputs
    parts = parts_of(subject.model, subject.inputs, subject.within)
    return parts.of(model), parts.inputs


def _cost_error(subject: Subject, space: Any, small: Any, widths: Any) -> float:
    """How far MACs and parameters are from what is counted on the cut network."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network, inputs = runnable(subject, small)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    network.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    macs = abs(float(space.cost("macs")(widths)) - counter.get_total_flops() / 2)
    held = sum(p.numel() for p in network.parameters())
    return max(macs, abs(float(space.cost("params")(widths)) - held))


def _hash(model: Any) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _outputs(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
    import torch

    with torch.no_grad():
        return [tensor.double() for tensor in _flat(model.eval()(*inputs))]


def _reloads(name: str, small: Any, subject: Subject) -> bool | float:
    """Whether a fresh process makes the same of the file, to the last bit.

    Where only its outputs differ, by how much, relatively: torchvision's R-CNNs round otherwise in
    two processes, uncut too.
    """
    import torch

    import randprune as rp

    with tempfile.TemporaryDirectory() as folder:
        rp.save(small, Path(folder) / _SMALL)
        found = run_apart(Path(__file__).resolve(), name, 300, ("--reload", folder))
        if "hash" not in found:
            raise AssertionError(found.get("error", "no answer"))
        there = torch.load(Path(folder) / _OUTPUTS)
    if found["hash"] != _hash(small):
        raise AssertionError("the loaded network has other tensors")
    here = _outputs(small, subject.inputs)
    if [x.shape for x in here] != [x.shape for x in there]:
        raise AssertionError("the loaded network gives outputs of other shapes")
    pairs = [(x, y) for x, y in zip(here, there, strict=True) if x.numel()]
    most = max(float((x - y).abs().max() / x.abs().max().clamp_min(1e-9)) for x, y in pairs)
    return most or True


def reload(name: str, folder: Path) -> Record:
    """Hash of what a saved network is and computes, loaded without pickle."""
    import pickle

    import torch

    import randprune as rp

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("something was unpickled")

    subject = build(name, seed=1)  # other weights: all must come from the file
    pickle.load = pickle.loads = torch.load = refuse  # type: ignore[assignment]
    small = rp.load(folder / _SMALL, model=subject.model)
    torch.save(_outputs(small, subject.inputs), folder / _OUTPUTS)
    return {"model": name, "hash": _hash(small)}


def _onnx_error(subject: Subject, small: Any) -> float:
    """Largest relative difference between ONNX Runtime's outputs and torch's."""
    from randprune.export import export

    network, inputs = runnable(subject, small)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        return export(network, path, inputs, any_batch=False).difference


def _trains(subject: Subject, small: Any) -> bool:
    """A backward pass and an optimiser step in training mode, with finite gradients."""
    import torch

    network, inputs = runnable(subject, small)
    network.train()
    # Batch norm needs more than one value a channel where the maps have shrunk to one place.
    doubled = [torch.cat([x, x.flip(-1)]) if x.is_floating_point() else x for x in inputs]
    outputs = [t for t in _flat(network(*doubled)) if t.is_floating_point() and t.requires_grad]
    sum((t.float() ** 2).mean() for t in outputs).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not gradients or not all(bool(torch.isfinite(g).all()) for g in gradients):
        raise AssertionError("no finite gradient")
    torch.optim.SGD(network.parameters(), lr=1e-3).step()
    return True


def problems(record: Record) -> list[str]:
    """What is wrong with a record; empty where everything held."""
    if "error" in record:
        return [record["error"]]
    found = []
    for check, value in record["checks"].items():
        if isinstance(value, str):
            found.append(f"{check}: {value}")
        elif check in ("exact", "onnx", "reload") and value is not True and not value <= EXACT:
            found.append(f"{check}: relative error {value:.1e}")
        elif check == "cost" and value != 0:
            found.append(f"cost: off by {value:g}")
    return found


_INTRO = """# Matrix

Written by `python benchmarks/matrix.py` from docs/matrix.json; do not edit.

Networks of other packages with random weights, one input, one thread. *Lowest*: share of the MACs
that remains with every group at 10 % of its width. *At*: the share at which the network was cut,
at random widths and channels. *Exact*: largest relative difference between the cut network and the
masked dense one. *Cost*: difference to what torch's FLOP counter and `numel` say. *Trains*: a step
in training mode with finite gradients. *Reloads*: the saved file gives the same, to the last bit,
in a fresh process without pickle; a number: the same tensors, and outputs that differ by so much,
as those of the uncut network do between two processes. *ONNX*: largest relative difference of ONNX
Runtime's outputs.

torchvision's detectors choose by values, so that they are traced by parts (`within`); their costs,
the training step and the ONNX file are those of these parts. Of the detectors of ultralytics all
outputs count but the feature maps that the head was given (`outputs`).
"""


def render(records: list[Record]) -> str:
    """The page."""
    known = {record["model"]: record for record in records}
    listed = [known[name] for name in ENTRIES if name in known]
    sound = [record for record in listed if not problems(record)]
    lines = [_INTRO, f"- {len(listed)} of {len(ENTRIES)} networks ran; all checks hold for "]
    lines[-1] += f"{len(sound)}.\n"
    for kind in dict.fromkeys(record["kind"] for record in listed):
        lines.append(f"\n## {kind[:1].upper() + kind[1:]}\n\n")
        lines.append(
            "| network | groups | lowest | at | trace | exact | cost | trains | reloads | ONNX |\n"
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        )
        lines += [_row(record) for record in listed if record["kind"] == kind]
    failing = [record for record in listed if problems(record)]
    if failing:
        lines.append("\n## What does not hold\n\n")
        lines += [f"- **{r['model']}**: {'; '.join(problems(r))}\n" for r in failing]
    lines.append("\n## What stays, and why\n\n")
    for record in listed:
        if "error" not in record:
            parts = [f"{why} ({n}, first {layer})" for why, n, layer in record["frozen"]]
            lines.append(f"- **{record['model']}**: {'; '.join(parts) or 'nothing'}.\n")
    versions: dict[str, str] = {}
    for record in listed:
        versions |= record.get("versions", {})
    if versions:
        text = ", ".join(f"{package} {number}" for package, number in versions.items())
        lines.append(f"\nVersions: {text}.\n")
    return "".join(lines)


def _row(record: Record) -> str:
    if "error" in record:
        return f"| {record['model']} | not traced | | | | | | | | |\n"
    cells = [_cell(record["checks"].get(c)) for c in ("exact", "cost", "train", "reload", "onnx")]
    name = record["model"] + (" *" if record["within"] else "")
    return (
        f"| {name} | {record['groups']} | {record['lowest']:.2f} | {record['ratio']:.2f} | "
        f"{record['trace_seconds']} s | {' | '.join(cells)} |\n"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, str) or value is None:
        return "no"
    return f"{value:.0e}" if value else "0"


def versions() -> dict[str, str]:
    """Of the packages that the records depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="also those with a sound record")
    parser.add_argument("--only", nargs="+", default=[""], metavar="BEGINNING")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one network")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--reload", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        import torch

        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        emit_record(reload(options.one, options.reload) if options.reload else measure(options.one))
        return 0
    sound = {record["model"] for record in load_records(RECORDS) if not problems(record)}
    names = [name for name in ENTRIES if name.startswith(tuple(options.only))]
    if not options.all:
        names = [name for name in names if name not in sound]
    for number, name in enumerate([] if options.page else names, start=1):
        record = run_apart(Path(__file__).resolve(), name, options.limit)
        record = {"kind": ENTRIES[name].kind, **record, "versions": versions()}
        merge_records(RECORDS, [record])
        state = "FAIL " + "; ".join(problems(record)) if problems(record) else "ok"
        print(f"[{number}/{len(names)}] {name}: {state}", file=sys.stderr, flush=True)
    records = load_records(RECORDS)
    PAGE.write_text(render(records), encoding="utf-8")
    return int(any(problems(record) for record in records))


if __name__ == "__main__":
    sys.exit(main())
