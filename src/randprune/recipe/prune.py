"""The recipe of `prune`: everything that decides which network comes out, in one TOML file."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from randprune.cost import Budget
from randprune.evaluate.engine import Choice
from randprune.recipe.base import RecipeBase, Section
from randprune.recipe.names import (
    CriterionOrObject,
    RecoveryName,
    StrategyOrObject,
    TaskOrObject,
)
from randprune.recipe.presets import DEFAULT, with_preset
from randprune.tasks import Task, tasks
from randprune.training.recipe import TrainRecipe

Options = dict[str, Any]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Rank = Literal["kl", "accuracy", "loss"]
# Keys of [search] and, in benchmarks, of [proposals].
MinKeep = Annotated[float, Field(ge=0, le=1, description="the least share of a group that stays.")]
RoundTo = Annotated[int, Field(ge=1, description="what widths are multiples of.")]
RankingPrecision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Field(
        description="what candidates are ranked in; auto: bfloat16 where the hardware has units "
        "for it."
    ),
]
BatchSize = Annotated[
    int | None,
    Field(ge=1, description="images a batch while networks are evaluated; unset: see engine."),
]
RankingImages = Annotated[
    int | None,
    Field(
        ge=1,
        description="how many of the search images rank candidates, at most; unset: all. "
        "Finalists are compared on all of them.",
    ),
]
EngineChoice = Annotated[
    Choice,
    Field(
        description="what chooses precision and batch size where they are not given: rules, which "
        "give the same bits on every machine of a kind, or measured, the fastest at the moment, "
        "with which two runs may differ in the last bits."
    ),
]


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
    options: Options = Field(default={}, description="what the network's constructor gets besides.")
    freeze: Names = Field(
        default=(), description="the layers whose outputs stay, names or patterns."
    )
    allow: Names = Field(
        default=(), description="the operations that may be cut although not exactly."
    )
    as_graph: bool = Field(
        default=False, description="whether groups count that can be cut in an emitted graph only."
    )


class DataSection(Section):
    """The images, and how the training images are divided."""

    spec: str = Field(description="digits, npz:DIR, imagefolder:DIR, cifar10:DIR or cifar100:DIR.")
    calibration: int | None = Field(
        default=None, ge=1, description="how many training images feed recovery and criteria."
    )
    search: int | None = Field(
        default=None, ge=1, description="how many training images rank the candidates."
    )
    seed: int = Field(default=0, ge=0, description="what draws the parts of the training images.")
    options: Options = Field(
        default={}, description="what the data source gets besides, such as mean."
    )


class TaskSection(Section):
    """What the network is for."""

    name: TaskOrObject = Field(
        description="classification, multi_label, regression, segmentation, or outputs, which "
        "needs no labels."
    )
    options: Options = Field(default={}, description="what the task's constructor gets.")

    def task(self) -> Task:
        """The task that is named."""
        return tasks.create(self.name, **self.options)


class BudgetSection(Section):
    """What the pruned network may cost."""

    metric: str = Field(default="macs", description="the cost: macs, params or activations.")
    ratio: float = Field(
        default=0.5, gt=0, le=1, description="the share of the dense cost that remains."
    )
    tolerance: float = Field(
        default=0.005, gt=0, lt=1, description="how far from the ratio is accepted."
    )

    def budget(self) -> Budget:
        """The same as a `Budget`."""
        return Budget(self.metric, self.ratio, self.tolerance)


class SearchSection(Section):
    """How configurations are proposed and compared."""

    strategy: StrategyOrObject = Field(
        default="lagrangian", description="the name of a search strategy."
    )
    candidates: int = Field(default=100, ge=1, description="how many configurations are evaluated.")
    min_keep: MinKeep = 0.1
    round_to: RoundTo = 1
    rank_by: Rank = Field(
        default="kl",
        description="what ranks candidates on the search images: the divergence from the dense "
        "network's outputs (kl), the loss, or the accuracy.",
    )
    images: RankingImages = 2000
    precision: RankingPrecision = "auto"
    batch_size: BatchSize = None
    engine: EngineChoice = "rules"
    options: Options = Field(
        default={}, description="what the strategy's constructor gets besides."
    )


class FinalistsSection(Section):
    """The best candidates are repaired again, with more effort, before the winner is chosen."""

    count: int = Field(
        default=5, ge=1, description="how many of the best candidates are finalists."
    )
    recovery: RecoveryName = Field(
        default="least_squares+sequential",
        description='their recovery; "" keeps that of all candidates.',
    )


class TrainSection(TrainRecipe):
    """The keys of a `TrainRecipe` as a table of a job's recipe."""

    model_config = Section.model_config

    seed: int | None = Field(  # type: ignore[assignment]
        default=None, ge=0, description="order, augmentation and dropout; default: the job's seed"
    )

    def __init__(self, **fields: Any) -> None:
        # Past TrainRecipe's own message: `RecipeBase.parse` names the key and the file.
        BaseModel.__init__(self, **fields)

    def train_recipe(self, seed: int) -> TrainRecipe:
        """The plain recipe; `seed` is used where this section gives none."""
        fields = self.model_dump(include=set(TrainRecipe.model_fields))
        return TrainRecipe(**{**fields, "seed": seed if self.seed is None else self.seed})


class FinetuneSection(TrainSection):
    """How the winner is trained; the keys of a `TrainRecipe`, and whom else to train."""

    controls: bool = Field(default=False, description="whether the controls are trained as well.")
    trainer: str = Field(
        default="", description="the caller's own trainer, where one was given; no key for files."
    )


class OutputSection(Section):
    """Where results go, and how exactly speed is measured. Does not decide which network wins."""

    folder: str = Field(default="", description="the output folder.")
    latency_seconds: float = Field(
        default=10.0,
        ge=0,
        description="how long latency is measured, per batch size; 0: not at all.",
    )


class PruneRecipe(RecipeBase):
    """A whole pruning job."""

    NOT_HASHED: ClassVar[frozenset[str]] = frozenset({"output"})

    job: Literal["prune"] = "prune"
    seed: int = Field(default=0, ge=0, description="random seed.")
    criterion: CriterionOrObject = Field(
        default="reconstruction", description="the name of the criterion that ranks channels."
    )
    recovery: RecoveryName = Field(
        default="least_squares", description="how candidates are repaired without training."
    )
    preset: str = Field(
        default=DEFAULT, description="the named settings that keys left out take: see presets."
    )
    model: ModelSection | None = None
    data: DataSection | None = None
    task: TaskSection | None = None
    budget: BudgetSection = BudgetSection()
    search: SearchSection = SearchSection()
    finalists: FinalistsSection = FinalistsSection()
    finetune: FinetuneSection | None = None
    output: OutputSection = OutputSection()

    @model_validator(mode="before")
    @classmethod
    def _take_preset(cls, document: Any) -> Any:
        # The default preset is what the fields say themselves.
        preset = document.get("preset", DEFAULT) if isinstance(document, dict) else DEFAULT
        if preset == DEFAULT or not isinstance(preset, str):
            return document
        return with_preset(document)
