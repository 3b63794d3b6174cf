"""`randprune export`: a pruned network for another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json, table
from randprune.cli.inspect import parse_shape
from randprune.errors import InvalidInputError
from randprune.report.format import number, size, times

if TYPE_CHECKING:
    from randprune.jobs.arms import Arm


def export(
    file: options.PrunedFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The file to write. Its ending is the format: .onnx, or .pt2 for torch.export.",
            show_default=False,
        ),
    ],
    model: options.Architecture = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", min=1, metavar="N", help="Fix the batch size to N.", show_default="any"
        ),
    ] = None,
    input_shape: options.InputShape = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", min=1, help="Of an ONNX file.", show_default="the exporter's"),
    ] = None,
    time: Annotated[
        bool,
        typer.Option(
            "--time",
            help="Run the file in ONNX Runtime beside the dense network's, with one thread.",
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Also write FILE.int8.onnx, quantised on the run's calibration images, and judge "
            "and time the dense and the pruned network in both forms. For a file in the folder of "
            "its run.",
        ),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="For --int8: the dense network's weights, instead of those of the run's recipe.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="For --int8: the images, instead of those of the run's recipe.",
            show_default=False,
        ),
    ] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a pruned network as ONNX or .pt2, and check that it computes the same there.

    ONNX needs the extra: pip install 'randprune\\[export]'.
    """
    from randprune.artifact import load, read_header
    from randprune.export import export as export_network

    for flag, given in (("--time", time), ("--int8", int8)):
        if given and out.suffix != ".onnx":
            raise InvalidInputError(f"The option {flag} needs an .onnx file. Got {out.name!r}.")
    with messages().status(f"Exporting {file} ..."):
        header = read_header(file)
        shapes = [parse_shape(input_shape)] if input_shape else _traced_shapes(header)
        if not shapes:
            raise InvalidInputError(
                f"The file {file} does not tell the shape of the network's input. "
                "Give it, e.g. --input 1x3x224x224."
            )
        network = load(file, model)
        made = export_network(
            network,
            out,
            _examples(shapes, batch),
            any_batch=batch is None,
            seed=seed,
            opset=opset,
            metadata=_metadata(header) if out.suffix == ".onnx" else None,
        )
        timed = _timed(header, model, made.path, _examples(shapes, batch)) if time else {}
        instead = {"model": {"weights": weights}, "data": {"spec": data}}
        arms = _arms(file, network, _examples(shapes, batch), made.path, instead) if int8 else []
    if json:
        print_json(
            {
                "file": str(made.path),
                "format": made.format,
                "size_bytes": made.size_bytes,
                "batch": made.batch,
                "difference": made.difference,
                **timed,
                **({"arms": [_document(arm) for arm in arms]} if arms else {}),
            }
        )
        return
    images = "any batch size" if made.batch is None else f"batches of {made.batch}"
    output().print(
        f"Wrote {made.path} ({size(made.size_bytes)}, {images}). Its outputs agree with the "
        f"network's within {made.difference:.0e} of the largest."
    )
    if timed:
        output().print(
            f"In ONNX Runtime, one thread: {timed['milliseconds']:.3g} ms, the dense network "
            f"{timed['dense_milliseconds']:.3g} ms: {timed['speedup']:.2f} times as fast."
        )
    if arms:
        metric, judged = arms[0].metric, arms[0].quality.samples
        rows = [
            (
                arm.name,
                metric.shown(arm.quality.value),
                size(arm.size_bytes),
                f"{arm.milliseconds:.3g} ms",
                times(arm.speedup),
            )
            for arm in arms
        ]
        head = ("File", f">{metric.name.capitalize()}", ">Size", ">Time", ">Speed-up")
        output().print(table(head, rows))
        output().print(
            f"\nOn {number(judged)} search images, which rank candidates and read high; in ONNX "
            f"Runtime, one thread. Quantised: {_quantised(made.path)}"
        )


def _arms(
    file: Path,
    network: Any,
    examples: tuple[Any, ...],
    made: Path,
    instead: Mapping[str, Mapping[str, str | None]],
) -> list[Arm]:
    """The four files, judged and timed; the quantised pruned one is written beside `made`.

    `instead` holds keys of the run's recipe, section by section, that the caller knows better.
    """
    from randprune.jobs.arms import four_arms
    from randprune.jobs.opening import images_of_recipe, network_of, task_of_recipe
    from randprune.recipe import PruneRecipe

    named = file.parent / options.RECIPE_FILE
    if not named.is_file():
        raise InvalidInputError(
            f"The option --int8 calibrates on the images of the run, and {file.parent} holds no "
            f"{options.RECIPE_FILE}. Give the pruned network in the folder of its run."
        )
    document = PruneRecipe.load(named).document()
    for section, keys in instead.items():
        document[section] |= {key: value for key, value in keys.items() if value is not None}
    recipe = PruneRecipe.parse(document).resolved()
    data = images_of_recipe(recipe)
    dense, task = network_of(recipe.network).eval(), task_of_recipe(recipe, data)
    return four_arms(dense, network, data, task, examples, keep=_quantised(made))


def _quantised(path: Path) -> Path:
    """small.onnx -> small.int8.onnx."""
    return path.with_suffix(f".int8{path.suffix}")


def _document(arm: Arm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "size_bytes": arm.size_bytes,
        "metric": arm.metric.name,
        "value": arm.quality.value,
        "images": arm.quality.samples,
        "milliseconds": arm.milliseconds,
        "speedup": arm.speedup,
    }


def _metadata(header: Any) -> dict[str, str]:
    """What the ONNX file says of itself."""
    from randprune import __version__

    return {"producer": f"randprune {__version__}", "network": header.model or "a custom network"}


def _timed(
    header: Any, model: str | None, path: Path, examples: tuple[Any, ...]
) -> dict[str, float]:
    """The file's time and the dense network's, each the sum of its kernels' fastest runs."""
    from randprune.latency import paired_ms, runtimes
    from randprune.latency.onnx_runtime import OnnxFile
    from randprune.zoo.models import build_model

    name = model or header.model
    if not name:
        raise InvalidInputError(
            "The file does not name its dense network, which --time runs beside it. "
            "Give it with --model."
        )
    dense = build_model(name, **(header.options if name == header.model else {}))
    runner = runtimes.create("onnxruntime").prepare(dense, examples, 1)
    found = paired_ms(runner, OnnxFile(path.read_bytes(), 1, examples))
    return {
        "milliseconds": found.second_ms,
        "dense_milliseconds": found.first_ms,
        "speedup": 1.0 / found.ratio,
    }


def _traced_shapes(header: Any) -> list[tuple[int, ...]]:
    return [shape for shape, _ in header.steps[0].space.inputs] if header.steps else []


def _examples(shapes: list[tuple[int, ...]], batch: int | None) -> tuple[Any, ...]:
    import torch

    return tuple(torch.zeros((batch or shape[0], *shape[1:])) for shape in shapes)
