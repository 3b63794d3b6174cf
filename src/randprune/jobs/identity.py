"""Which job this is: what makes two calls the same one, and what is recorded of it at its start."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from randprune.atomic import write_file
from randprune.graph.program import Inputs
from randprune.graph.trees import named_leaves
from randprune.jobs.session import Session
from randprune.provenance import OUTSIDE, shared_name
from randprune.recipe import CUSTOM, JobRecipe, shareable_toml
from randprune.store import (
    BudgetInfo,
    MetricInfo,
    ModelInfo,
    Reproduce,
    Run,
    RunKey,
    SpaceInfo,
    content_hash,
)
from randprune.zoo.data import Data
from randprune.zoo.weights import weights_hash

# Keys of a recipe that do not decide which network comes out: weights and images count by their
# content, wherever they lie.
_NOT_DECISIVE = frozenset({"output", "model", "data"})
_TRACE_KEYS = ("freeze", "allow", "as_graph")
_DATA_PARTS = (
    "train_fingerprint",
    "test_fingerprint",
    "split_seed",
    "calibration_images",
    "search_images",
    # Of images that are not training images, where there are some.
    "calibration_fingerprint",
    "search_fingerprint",
)


def run_key(
    recipe: JobRecipe,
    session: Session,
    *,
    not_decisive: Collection[str] = (),
    example: bool = True,
) -> RunKey:
    """What makes two calls the same job: all that decides the result, by content.

    Args:
        recipe: what was asked.
        session: of the network as it was given.
        not_decisive: keys of the recipe that do not decide the result, besides those of all jobs.
        example: whether the network may be traced with something else than an image of the data.
    """
    document = recipe.document()
    traced = {k: v for k, v in document.get("model", {}).items() if k in _TRACE_KEYS}
    if example:
        traced["example"] = _shapes(session.example)
    left_out = _NOT_DECISIVE | set(not_decisive)
    decisive = {k: v for k, v in document.items() if k not in left_out}
    return RunKey(
        kind=recipe.job,
        recipe={**decisive, "trace": traced},
        seed=recipe.seed,
        fingerprint=session.original.space.fingerprint,
        weights_hash=weights_hash(session.original.network),
        data_fingerprint=data_fingerprint(session.data),
    )


def data_fingerprint(data: Data) -> str:
    """Of the images and how they are divided."""
    described = data.describe()
    return content_hash({p: described[p] for p in _DATA_PARTS if p in described})


def _shapes(example: Inputs) -> list[Any]:
    """The shape of the one input, or of all tensors of several."""
    shapes = [list(x.shape) for _, x in named_leaves(example)]
    return shapes[0] if isinstance(example, Tensor) else shapes


def describe(recipe: JobRecipe, session: Session, run: Run, file: str, command: str) -> None:
    """Record what is pruned, on which images, under which budget; write the recipe.

    Args:
        recipe: what was asked.
        session: of the network as it was given.
        run: the records.
        file: the recipe's name in the output folder, such as "recipe.toml".
        command: does the same again where this one was given, with the recipe's file at its end,
            where the recipe says all.
    """
    name = network_name(recipe)
    complete = bool(name) and recipe.data is not None
    again = f"{command} {shlex.quote(_name_here(run.store.folder / file))}" if complete else ""
    text = shareable_toml(recipe.document(), again)
    budget = session.original.budget
    with run.transaction():
        run.write(
            ModelInfo(
                title=name.rpartition(":")[2] or session.original.space.model,
                name=name,
                weights=Path(recipe.model.weights).name if recipe.model else "",
                data=session.data.name,
                classes=session.data.num_classes or None,
                input_shape=session.space.inputs[0][0][1:],
                images=images_of(session.data),
                test_fingerprint=session.data.describe()["test_fingerprint"],
            )
        )
        metric = session.task.metric
        run.write(MetricInfo(session.task.name, metric.name, metric.unit, metric.higher_is_better))
        run.write(SpaceInfo.from_space(session.original.space, session.reachable()))
        run.write(BudgetInfo(budget.metric, budget.ratio, budget.tolerance))
        run.write(Reproduce(again, text, file))
    write_file(run.store.folder / file, text.encode())


def _name_here(path: Path) -> str:
    """A file's name from the working directory, or its own name where it lies elsewhere."""
    name = shared_name(str(path.resolve()))
    return path.name if name.startswith(OUTSIDE) else name


def images_of(data: Data) -> dict[str, int]:
    """How many images each part of the data has."""
    sizes = data.describe()
    return {part: sizes[f"{part}_images"] for part in ("fit", "calibration", "search", "test")}


def network_name(recipe: JobRecipe) -> str:
    """The network's name for `build_model`; "" where it was given as an object."""
    spec = recipe.model.spec if recipe.model else ""
    return "" if spec.startswith(CUSTOM) else spec


def network_options(recipe: JobRecipe) -> dict[str, Any]:
    """What `build_model` needs beside the network's name."""
    asked = recipe.model
    if asked is None:
        return {}
    given = {"num_classes": asked.num_classes, "in_channels": asked.in_channels}
    return {**asked.options, **{name: value for name, value in given.items() if value is not None}}


def numbered(run: Run, name: str) -> str:
    """`name` for the first run in a folder, "name-2" for the second, ..."""
    stem, _, suffix = name.rpartition(".")
    return name if run.id == 1 else f"{stem}-{run.id}.{suffix}"
