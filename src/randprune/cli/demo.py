"""`randprune demo`: the whole job on data that needs no download, in a minute or two."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from randprune.cli import options
from randprune.cli.console import output, print_lines
from randprune.cli.progress import progress
from randprune.cli.prune import run

if TYPE_CHECKING:
    from randprune.jobs.progress import Progress

_MODEL = "randprune:digits_cnn"
_EPOCHS = 6
# The bar moves this often within an epoch.
_TICKS = 100


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="The folder for everything that the demo writes."
        ),
    ] = Path("runs/demo"),
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a small network on handwritten digits, then prune it to half of its MACs.

    Takes a minute or two on two cores. Nothing is downloaded: the images are part of the package.
    """
    from randprune.recipe import PruneRecipe

    if not json:
        output().print(
            "A small ResNet learns handwritten digits; then half of its MACs are cut away.\n"
            "Widths within the budget are proposed, cut, repaired without training, ranked on\n"
            "held-out images, and the best one is fine-tuned for 3 epochs.\n",
            markup=False,
        )
    weights = out / "digits_cnn.safetensors"
    recipe = PruneRecipe.parse(
        {
            "seed": seed,
            "model": {"spec": _MODEL, "weights": str(weights)},
            "data": {"spec": "digits"},
            "budget": {"ratio": 0.5},
            "search": {"candidates": 40},
            "finalists": {"count": 3},
            "finetune": {"epochs": 3},
            # A network this small is done before a clock can tell: its latency would be noise.
            "output": {"folder": str(out), "latency_seconds": 0.0},
        }
    )
    with progress(quiet) as shown:
        _train(weights, seed, shown)
        outcome = run(recipe, shown)
    outcome.print(json=json)
    if not json:
        print_lines(
            [
                "",
                "All networks but the first have half of the MACs. The report opens in any "
                "browser. Now yours:",
                "",
            ]
        )
        output().print(
            "  randprune inspect my_package.my_module:make_network --input 1x3x224x224\n"
            "  randprune prune my_package.my_module:make_network --weights weights.pth \\\n"
            "      --data imagefolder:FOLDER --budget 0.5 --epochs 3",
            markup=False,
            soft_wrap=True,
        )


def _train(file: Path, seed: int, shown: Progress) -> None:
    """Train the demo's network on the digits and write its weights; the same for equal seeds."""
    import safetensors.torch
    import torch

    from randprune.atomic import write_file
    from randprune.evaluate.threads import decide, using
    from randprune.jobs.progress import phase
    from randprune.training import TrainProgress, TrainRecipe, train
    from randprune.zoo.data import load_data
    from randprune.zoo.models import build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_model(_MODEL)
    images = load_data("digits").full_train
    recipe = TrainRecipe(epochs=_EPOCHS, lr=0.1, batch_size=64, seed=seed)
    text = f"Training a network to prune for {_EPOCHS} epochs"
    with phase(shown, "train", text, total=_EPOCHS * _TICKS) as running:

        def tell(now: TrainProgress) -> None:
            done = (now.epoch - 1) * _TICKS + _TICKS * now.step // now.steps
            running.at(max(running.done, done), loss=now.loss)

        with using(decide().count):
            trained = train(network, images, recipe, progress=tell).model
    write_file(file, safetensors.torch.save(dict(trained.state_dict())))
