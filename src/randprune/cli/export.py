"""`randprune export`: a pruned network for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from randprune.cli import options
from randprune.cli.console import messages, output, print_json
from randprune.cli.inspect import parse_shape
from randprune.errors import InvalidInputError
from randprune.report.format import size


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
    seed: options.Seed = 0,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write a pruned network as ONNX or .pt2, and check that it computes the same there.

    ONNX needs the extra: pip install 'randprune\\[export]'.
    """
    from randprune.artifact import load, read_header
    from randprune.export import export as export_network

    if time and out.suffix != ".onnx":
        raise InvalidInputError(f"The option --time needs an .onnx file. Got {out.name!r}.")
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
    if json:
        print_json(
            {
                "file": str(made.path),
                "format": made.format,
                "size_bytes": made.size_bytes,
                "batch": made.batch,
                "difference": made.difference,
                **timed,
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
