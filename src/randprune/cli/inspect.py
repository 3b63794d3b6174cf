"""`randprune inspect`: what could be cut from a network, and what it would save."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json, table
from randprune.errors import InvalidInputError
from randprune.report.format import number, percent, si

if TYPE_CHECKING:
    from torch import nn

    from randprune.space import ChannelGroup, FrozenChannels, Space

_SHOWN = 40
_METRICS = ("macs", "params")


def inspect(
    model: options.Model,
    weights: options.Weights = None,
    input_shape: options.InputShape = None,
    num_classes: options.NumClasses = None,
    in_channels: options.InChannels = None,
    freeze: options.Freeze = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Fail where an operation is not supported, instead of freezing its channels.",
        ),
    ] = False,
    as_graph: options.AsGraph = False,
    allow: options.Allow = None,
    min_keep: options.MinKeep = 0.1,
    round_to: options.RoundTo = 1,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="Measure latency there: onnxruntime, openvino, torch or torch.compile.",
            show_default="not measured",
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of it.")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a batch of it.")] = 1,
    show_all: Annotated[
        bool,
        typer.Option(
            "--all", help=f"List all groups and frozen layers, not only the first {_SHOWN}."
        ),
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what can be pruned: channel groups, their costs, and which layers stay and why.

    Nothing is trained or changed, and no data is needed. MACs are multiply-adds for one image
    (FLOPs = 2 x MACs).
    """
    from randprune.graph.trace import trace
    from randprune.zoo.models import build_model
    from randprune.zoo.weights import load_weights

    with messages().status(f"Tracing {model} ..."):
        network = build_model(model, num_classes, in_channels)
        if weights is not None:
            load_weights(network, weights)
        shape = parse_shape(input_shape) if input_shape else default_shape(model, network)
        space = trace(
            network, _example(shape), freeze or (), strict, as_graph=as_graph, allow=allow or ()
        )
        if runtime is not None:
            space = _timed(network, space, (runtime, threads, batch), round_to)
    document = describe(model, space, min_keep, round_to)
    if json:
        print_json(document)
    else:
        _print(document, space, None if show_all else _SHOWN)


def _timed(network: nn.Module, space: Space, setting: tuple[str, int, int], round_to: int) -> Space:
    """The space with the latency of its configurations, measured here."""
    from dataclasses import replace

    from randprune.latency import Setting, latency_cost

    cost = latency_cost(network, space, Setting(*setting), step=round_to)
    return replace(space, costs={**space.costs, "latency": cost})


def parse_shape(text: str) -> tuple[int, ...]:
    """ "1x3x32x32" -> (1, 3, 32, 32)."""
    if not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)+", text.strip()):
        raise InvalidInputError(
            f"The option --input must be a shape such as 1x3x224x224. Got {text!r} instead."
        )
    return tuple(int(part) for part in re.split("[x,]", text.strip()))


def default_shape(spec: str, network: nn.Module) -> tuple[int, ...]:
    """The input that a network of this zoo expects, for one image; (1, 3, 224, 224) if unknown."""
    source, _, name = spec.partition(":")
    channels = _input_channels(network)
    if source == "randprune":
        side = 8 if name.startswith("digits") else 32
        return (1, channels or 3, side, side)
    if source == "timm":
        config: dict[str, Any] = getattr(network, "pretrained_cfg", None) or {}
        size = config.get("input_size", (3, 224, 224))
        return (1, channels or size[0], *size[1:])
    side = 299 if source == "torchvision" and name.startswith("inception") else 224
    return (1, channels or 3, side, side)


def _input_channels(network: nn.Module) -> int | None:
    """Input channels of the first convolution."""
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return module.in_channels
    return None


def _example(shape: tuple[int, ...]) -> Any:
    import torch

    return torch.zeros(shape)


def describe(model: str, space: Space, min_keep: float, round_to: int) -> dict[str, Any]:
    """Everything that `inspect` tells, JSON-ready; shares are parts of the dense cost."""
    import numpy as np

    from randprune.strategies.feasible import reachable

    macs = space.cost("macs")
    timed = "latency" in space.costs
    metrics = (*_METRICS, "latency") if timed else _METRICS
    # Row g: group g cut to a single channel, all others at full width.
    alone = np.tile(space.widths, (len(space), 1))
    np.fill_diagonal(alone, 1)
    return {
        "model": model,
        "inputs": [list(shape) for shape, _ in space.inputs],
        "params": int(space.cost("params").dense),
        "macs": int(macs.dense),
        "flops": 2 * int(macs.dense),
        "fingerprint": space.fingerprint,
        "min_keep": min_keep,
        "round_to": round_to,
        "reachable": {
            metric: list(reachable(space, metric, min_keep, round_to)) for metric in metrics
        },
        **(_latency(space) if timed else {}),
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "layers": producers(group),
                "largest_saving_macs": (macs.dense - float(cost)) / macs.dense,
                **({"largest_saving_ms": saved} if timed else {}),
            }
            for group, cost, saved in zip(
                space.groups, macs(alone), _milliseconds(space, round_to), strict=True
            )
        ],
        "frozen": [
            {
                "layer": frozen.layer,
                "tensor": frozen.tensor,
                "channels": frozen.channels,
                "of": frozen.width,
                "reason": frozen.reason,
            }
            for frozen in space.frozen
        ],
        "inexact": list(space.inexact),
        "as_graph": space.as_graph,
    }


def _latency(space: Space) -> dict[str, Any]:
    """The dense network's predicted latency, by layer, and how far to trust it."""
    from randprune.latency import LatencyCost

    cost = space.cost("latency")
    assert isinstance(cost, LatencyCost)
    errors = sorted(cost.errors.tolist())
    return {
        "latency": {
            "runtime": cost.setting.runtime,
            "version": cost.version,
            "threads": cost.setting.threads,
            "batch": cost.setting.batch,
            "dense_ms": cost.dense,
            "median_error": errors[len(errors) // 2],
            "largest_error": errors[-1],
            "layers_ms": cost.of_layers(space.widths),
            "notes": list(cost.notes),
        }
    }


def _milliseconds(space: Space, round_to: int) -> list[float]:
    """What each group, cut alone to its cheapest width, saves of the latency; 0 if not timed."""
    import numpy as np

    from randprune.cost import StructuredCost
    from randprune.strategies.feasible import WidthGrid

    cost = space.costs.get("latency")
    if not isinstance(cost, StructuredCost):
        return [0.0] * len(space)
    grid, dense = WidthGrid.of(space, 0.0, round_to), space.widths[None]
    found = []
    for g in range(len(space)):
        times = cost.profile(dense, g, grid.levels(g))[0]
        found.append(float(times[-1] - np.min(times)))
    return found


def producers(group: ChannelGroup) -> list[str]:
    """The layers whose output channels are in the group, in the order of the network."""
    names = (slot.tensor.rpartition(".")[0] or slot.tensor for slot in group.with_role("out"))
    return list(dict.fromkeys(names))


def _print(document: dict[str, Any], space: Space, limit: int | None) -> None:
    console = output()
    shapes = ", ".join("x".join(map(str, shape)) for shape in document["inputs"])
    console.print(f"[bold]{document['model']}[/] ({space.model}), input {shapes}")
    console.print(
        f"{si(document['macs'])} MACs ({si(document['flops'])} FLOPs), "
        f"{number(document['params'])} parameters"
    )
    if not document["groups"]:
        console.print("\nNothing can be pruned: every channel is frozen, for the reasons below.")
    else:
        console.print()
        console.print(_groups_table(document["groups"], limit))
        _more(len(document["groups"]), limit, "groups")
    if document["frozen"]:
        console.print()
        console.print(_frozen_table(space.frozen, limit))
        _more(len(document["frozen"]), limit, "frozen layers")
    for note in document["inexact"]:
        console.print(f"\nNot exact, as allowed: {note}")
    console.print()
    low = {metric: document["reachable"][metric][0] for metric in _METRICS}
    if (timed := document.get("latency")) is not None:
        threads = f"{timed['threads']} thread{'s' if timed['threads'] > 1 else ''}"
        console.print(
            f"[bold]Latency[/] in {timed['runtime']} {timed['version']}, {threads}, batch of "
            f"{timed['batch']}: {timed['dense_ms']:.3g} ms, reachable from "
            f"{document['reachable']['latency'][0] * timed['dense_ms']:.3g} ms. Error on networks "
            f"that it was not corrected by: median {percent(timed['median_error'])}, largest "
            f"{percent(timed['largest_error'])}."
        )
        for note in timed["notes"]:
            console.print(note)
    console.print(
        f"[bold]Reachable budgets[/] with --min-keep {document['min_keep']:g}"
        + (f" --round-to {document['round_to']}" if document["round_to"] > 1 else "")
        + f": from {percent(low['macs'])} of the MACs, from {percent(low['params'])} of the "
        "parameters."
    )


def _groups_table(groups: Sequence[dict[str, Any]], limit: int | None) -> Any:
    timed = any("largest_saving_ms" in group for group in groups)
    return table(
        [">#", "group", ">channels", ">saves up to", *([">ms"] if timed else []), "made by"],
        [
            [
                str(position),
                group["name"],
                str(group["width"]),
                f"{percent(group['largest_saving_macs'])}",
                *([f"{group['largest_saving_ms']:.3g}"] if timed else []),
                _listing(group["layers"]),
            ]
            for position, group in enumerate(groups[:limit])
        ],
        title=f"{len(groups)} channel groups. Saves up to: the share of the MACs that goes when "
        "only this group is cut" + ("; ms: the time that goes." if timed else "."),
    )


def _frozen_table(frozen: Sequence[FrozenChannels], limit: int | None) -> Any:
    return table(
        ["layer", ">stay", "because"],
        [[part.layer, f"{part.channels} of {part.width}", part.reason] for part in frozen[:limit]],
        title="Frozen",
    )


def _listing(layers: Sequence[str], shown: int = 3) -> str:
    rest = len(layers) - shown
    return ", ".join(layers[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _more(count: int, limit: int | None, what: str) -> None:
    if limit is not None and count > limit:
        output().print(f"... and {count - limit} more {what}: --all lists them.")
