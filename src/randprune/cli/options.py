"""Options that several commands share, so that a flag means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUN = "Recipe and output"
"""The panel of `--help` that says where a job's keys come from and where its results go."""

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
    typer.Option("--num-classes", min=1, help="Outputs.", show_default="the network's own"),
]
InChannels = Annotated[
    int | None,
    typer.Option("--in-channels", min=1, help="Input channels.", show_default="the network's own"),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="NxCxHxW",
        help="Shape of the example input, such as 1x3x224x224.",
        show_default="by the network",
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze",
        metavar="LAYER",
        help="Keep the outputs of this layer (a name or a pattern such as 'layer4.*'); repeatable.",
        show_default=False,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="OPERATION",
        help="Also cut channels across this operation (layer_norm, group_norm, ...), although the "
        "result is then not exactly the masked network; repeatable.",
        show_default=False,
    ),
]
AsGraph = Annotated[
    bool,
    typer.Option(
        "--as-graph",
        help="Also cut groups that need constants of the forward pass recomputed; the pruned "
        "network is then a torch.fx graph.",
    ),
]
MinKeep = Annotated[
    float, typer.Option("--min-keep", min=0.0, max=1.0, help="Least share of a group that stays.")
]
RoundTo = Annotated[
    int, typer.Option("--round-to", min=1, help="Widths are multiples of this number.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]

# Of the commands that read a pruned network: export, check.
PrunedFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A network that randprune saved (.safetensors).")
]
Architecture = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="The dense architecture, where the file does not name it.",
        show_default="by the file",
    ),
]

# Of the commands that do a recipe: prune, scratch, bench.
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Start from this TOML recipe; flags override it.",
        rich_help_panel=RUN,
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other recipe key, such as budget.tolerance=0.01; repeatable.",
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
        help="Where networks are evaluated and trained: cpu, cuda, cuda:1, ...",
        rich_help_panel=RUN,
        show_default="a GPU if there is one",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the plan and its cost, and stop.", rich_help_panel=RUN),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
# `main` looks for this flag in the arguments, since an error may come before they are parsed.
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show where it happened.")]
