"""What the recipes of all jobs have: the network, the images, the budget, plug-ins, a seed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from randprune.cost import LATENCY, Budget
from randprune.errors import InfeasibleBudgetError, InvalidInputError, quoted
from randprune.imports import import_named
from randprune.recipe.base import RecipeBase, Section
from randprune.recipe.names import PLUGINS_TO_COME

Options = dict[str, Any]
Names = Annotated[tuple[str, ...], Field(strict=False)]
S = TypeVar("S")
MOST = 2**63 - 1  # what torch takes as a seed


class ModelSection(Section):
    """The network to prune."""

    spec: str = Field(
        description="randprune:NAME, torchvision:NAME, timm:NAME or package.module:callable."
    )
    weights: str = Field(
        default="", description="the file with trained weights, safetensors, pt or pth."
    )
    num_classes: int | None = Field(default=None, ge=1, description="the number of outputs.")
    in_channels: int | None = Field(default=None, ge=1, description="the number of input channels.")
    options: Options = Field(
        default={}, description="further arguments of the network's constructor."
    )
    freeze: Names = Field(
        default=(), description="the layers whose outputs stay, names or patterns."
    )
    allow: Names = Field(
        default=(), description="operations across which channels may be cut, although not exactly."
    )
    as_graph: bool = Field(
        default=False,
        description="whether groups are cut, too, that can be cut only in an emitted graph.",
    )


class DataSection(Section):
    """The images, and how the training images are divided."""

    spec: str = Field(description="digits, npz:DIR, imagefolder:DIR, cifar10:DIR or cifar100:DIR.")
    calibration: int | None = Field(
        default=None, ge=1, description="how many training images repair and criteria use."
    )
    search: int | None = Field(
        default=None, ge=1, description="how many training images rank the candidates."
    )
    calibration_data: str = Field(
        default="",
        exclude_if=lambda spec: not spec,
        description="another source, whose training images repair and criteria use instead.",
    )
    search_data: str = Field(
        default="",
        exclude_if=lambda spec: not spec,
        description="another source, whose training images rank the candidates instead.",
    )
    seed: int = Field(
        default=0, ge=0, le=MOST, description="random seed of how the training images are divided."
    )
    options: Options = Field(
        default={}, description="further options of the data source, such as mean."
    )


class BudgetSection(Section):
    """What the pruned network may cost."""

    metric: str = Field(
        default="macs", description="the cost: macs, params, activations or latency."
    )
    ratio: float = Field(
        default=0.5, gt=0, le=1, description="the share of the dense cost that remains."
    )
    tolerance: float = Field(
        default=0.005, gt=0, lt=1, description="how far the cost may be from the ratio."
    )

    runtime: str | None = Field(
        default=None,
        description="of latency, what networks run in: onnxruntime where it is unset, openvino, "
        "torch, torch.compile.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="of latency, threads of the CPU; 1 where it is unset."
    )
    batch: int | None = Field(
        default=None, ge=1, description="of latency, images per batch; 1 where it is unset."
    )
    ms: float | None = Field(
        default=None,
        gt=0,
        description="of latency, how many milliseconds a batch may take, instead of a ratio.",
    )

    @model_validator(mode="before")
    @classmethod
    def _milliseconds_are_latency(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("ms") is not None:
            return {"metric": LATENCY, **document}
        return document

    @model_validator(mode="after")
    def _latency_alone(self) -> Self:
        given = [name for name in ("runtime", "threads", "batch", "ms") if getattr(self, name)]
        if given and self.metric != LATENCY:
            raise ValueError(
                f"budget.{given[0]} goes with budget.metric = 'latency'. Got {quoted(self.metric)}."
            )
        return self

    def budget(self, dense_ms: float | None = None) -> Budget:
        """The same as a `Budget`.

        Args:
            dense_ms: the dense network's latency, where milliseconds are asked for.

        Raises:
            InfeasibleBudgetError: the dense network is as fast as is asked.
        """
        return self.timed(Budget(self.metric, self.ratio, self.tolerance), dense_ms)

    def timed(self, budget: Budget, dense_ms: float | None = None) -> Budget:
        """A budget of this section with what is measured, where it is one of latency."""
        if self.metric != LATENCY:
            return budget
        ratio = budget.ratio
        if self.ms is not None and dense_ms is not None:
            ratio = self.ms / dense_ms
            if ratio > 1.0:
                raise InfeasibleBudgetError(
                    f"A latency of {self.ms:g} ms is asked, and the dense network takes "
                    f"{dense_ms:.3g} ms: nothing has to be pruned. Ask for less."
                )
        runtime, threads, batch = self.runtime or "", self.threads or 1, self.batch or 1
        return replace(budget, ratio=ratio, runtime=runtime, threads=threads, batch=batch)

    def budgets(self) -> tuple[Budget, ...]:
        """All budgets of the job: one."""
        return (self.budget(),)


class OutputSection(Section):
    """Where results go, and how exactly speed is measured. Does not decide which network wins."""

    folder: str = Field(default="", description="the output folder.")
    latency_seconds: float = Field(
        default=10.0,
        ge=0,
        description="how long latency is measured, per batch size; 0: not at all.",
    )


ExecutorName = Annotated[
    Literal["processes", "ray"],
    Field(
        exclude_if=lambda name: name == "processes",
        description="whose processes: of this machine, or of a Ray cluster.",
    ),
]
RayAddress = Annotated[
    str,
    Field(
        exclude_if=lambda address: not address,
        description="of the Ray cluster: auto, host:port or ray://host:port; unset: one of this "
        "machine alone.",
    ),
]


class SharedOutputSection(OutputSection):
    """The same, and who does the work."""

    workers: int = Field(
        default=0,
        ge=0,
        exclude_if=lambda workers: not workers,
        description="processes that make and judge candidates side by side, one thread each; 0: "
        "this process, with several threads.",
    )
    executor: ExecutorName = "processes"
    address: RayAddress = ""


class JobRecipe(RecipeBase):
    """The keys of all jobs."""

    NOT_HASHED: ClassVar[frozenset[str]] = frozenset({"output"})

    job: Literal["prune", "scratch", "bench"]
    seed: int = Field(default=0, ge=0, le=MOST, description="random seed.")
    plugins: Names = Field(
        default=(),
        exclude_if=lambda names: not names,
        description="modules to import first, which register criteria, strategies, recoveries.",
    )
    model: ModelSection | None = None
    data: DataSection | None = None
    budget: BudgetSection = BudgetSection()

    @classmethod
    def parse(
        cls,
        document: Mapping[str, Any],
        where: str = "the recipe",
        *,
        context: Mapping[str, Any] | None = None,
    ) -> Self:
        """See `RecipeBase.parse`; names that plug-ins may bring are checked by `resolved`."""
        if context is None:
            plugins = document.get("plugins")
            missing = isinstance(plugins, list | tuple) and not set(plugins) <= set(sys.modules)
            context = {PLUGINS_TO_COME: missing}
        return super().parse(document, where, context=context)

    def resolved(self, where: str = "the recipe") -> Self:
        """The same recipe with its plug-ins imported and every name checked: as a job starts.

        Raises:
            InvalidInputError: a plug-in that cannot be imported, or a name that nobody registers.
        """
        for name in self.plugins:
            try:
                import_named(name)
            except ImportError as error:
                raise InvalidInputError(
                    f"The key 'plugins' in {where}: the module {name!r} cannot be imported "
                    f"({error}). Give a module of an installed package or of the current "
                    "directory, without '.py'."
                ) from error
        return self.parse(self.document(), where, context={})

    @property
    def network(self) -> ModelSection:
        """The section [model]; raises an `InvalidInputError` where the recipe has none."""
        return _given(self.model, "model", "randprune:resnet20")

    @property
    def images(self) -> DataSection:
        """The section [data]; raises an `InvalidInputError` where the recipe has none."""
        return _given(self.data, "data", "digits")


def _given(section: S | None, name: str, example: str) -> S:
    if section is None:
        raise InvalidInputError(
            f'The recipe has no [{name}] section. Add one, e.g. [{name}] with spec = "{example}".'
        )
    return section
