"""The recipe of `prune`: everything that decides which network comes out, in one TOML file."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from randprune.cost import LATENCY, Budget
from randprune.errors import InfeasibleBudgetError
from randprune.evaluate.engine import Choice
from randprune.recipe.base import RecipeBase, Section
from randprune.recipe.names import CriterionOrObject, RecoveryName, StrategyOrObject
from randprune.recipe.presets import DEFAULT, with_preset
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


class BudgetSection(Section):
    """What the pruned network may cost."""

    metric: str = Field(
        default="macs", description="the cost: macs, params, activations or latency."
    )
    ratio: float = Field(
        default=0.5, gt=0, le=1, description="the share of the dense cost that remains."
    )
    tolerance: float = Field(
        default=0.005, gt=0, lt=1, description="how far from the ratio is accepted."
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
        default=None, ge=1, description="of latency, images a batch; 1 where it is unset."
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
    def _latency_alone(self) -> BudgetSection:
        given = [name for name in ("runtime", "threads", "batch", "ms") if getattr(self, name)]
        if given and self.metric != LATENCY:
            raise ValueError(
                f"budget.{given[0]} goes with budget.metric = 'latency'. Got {self.metric!r}."
            )
        return self

    def budget(self, dense_ms: float | None = None) -> Budget:
        """The same as a `Budget`.

        Args:
            dense_ms: the dense network's latency, where milliseconds are asked for.

        Raises:
            InfeasibleBudgetError: the dense network is as fast as is asked.
        """
        if self.metric != LATENCY:
            return Budget(self.metric, self.ratio, self.tolerance)
        ratio = self.ratio
        if self.ms is not None and dense_ms is not None:
            ratio = self.ms / dense_ms
            if ratio > 1.0:
                raise InfeasibleBudgetError(
                    f"A latency of {self.ms:g} ms is asked, and the dense network takes "
                    f"{dense_ms:.3g} ms: nothing has to be pruned. Ask for less."
                )
        runtime, threads, batch = self.runtime or "", self.threads or 1, self.batch or 1
        return Budget(self.metric, ratio, self.tolerance, runtime, threads, batch)


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
