"""Options that several commands share, so that a flag means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUN = "Recipe and output"
"""The panel of `--help` that says where a job's keys come from and where its results go."""

RECIPE_FILE = "recipe.toml"
"""What the folder of a run calls its recipe."""

RunFolder = Annotated[
    Path, typer.Argument(metavar="OUT", help="The output folder of a run.", show_default=False)
]

MODEL_HELP = (
    "The network: randprune:NAME, torchvision:NAME, timm:NAME or package.module:callable, "
    "e.g. randprune:resnet56 or my_project.nets:make_network."
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Trained weights: .safetensors, or .pt/.pth/.bin with tensors only.",
        show_default="random weights",
    ),
]
NumClasses = Annotated[
    int | None,
    typer.Option(
        "--num-classes",
        min=1,
        metavar="N",
        help="Number of classes that the network tells apart.",
        show_default="the network's own",
    ),
]
InChannels = Annotated[
    int | None,
    typer.Option(
        "--in-channels",
        min=1,
        metavar="N",
        help="Number of channels of the input.",
        show_default="the network's own",
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="NxCxHxW",
        help="Shape of the example input, such as 1x3x224x224.",
        show_default="what the network expects",
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze",
        metavar="LAYER",
        help="Never cut the output channels of this layer, a name or a pattern such as 'layer4.*'; "
        "can be repeated.",
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="OPERATION",
        help="Also cut channels that pass through this operation (layer_norm, group_norm, ...), "
        "although the result is then not exactly the masked network; can be repeated.",
        show_default=False,
    ),
]
AsGraph = Annotated[
    bool,
    typer.Option(
        "--as-graph",
        help="Also cut groups whose size is a constant in the forward pass. The pruned network is "
        "then a torch.fx graph.",
    ),
]
MinKeep = Annotated[
    float,
    typer.Option(
        "--min-keep",
        min=0.0,
        max=1.0,
        metavar="SHARE",
        help="Smallest share of its channels that a group may keep.",
    ),
]
RoundTo = Annotated[
    int,
    typer.Option(
        "--round-to", min=1, metavar="N", help="Make every width a multiple of this number."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Random seed.")]

# Of the commands that read a pruned network: export, check.
PrunedFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A network that randprune saved (.safetensors).")
]
Architecture = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The dense architecture, if the file does not name it.",
        show_default="what the file names",
    ),
]

# Of the commands that do a recipe: prune, scratch, bench.
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Start from this TOML recipe; other options override its keys.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any other key of the recipe, such as budget.tolerance=0.01; can be repeated.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
TrustPlugins = Annotated[
    bool,
    typer.Option(
        "--trust-plugins",
        help="Let the recipe file import code: its plug-ins, and networks of other packages.",
        rich_help_panel=RUN,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Where networks are evaluated and trained: cpu, cuda, cuda:1, ...",
        rich_help_panel=RUN,
        show_default="a GPU if there is one",
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Tell a tracker the metrics, too: tensorboard, mlflow, ...; can be repeated.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check everything, show the plan and what it would cost, and stop.",
        rich_help_panel=RUN,
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
# `main` looks for this flag in the arguments, since an error may come before they are parsed.
Debug = Annotated[bool, typer.Option("--debug", help="With an error, also show where it happened.")]
