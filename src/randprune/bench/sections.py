"""The keys of a benchmark's recipe, section by section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from randprune.bench.records import Setting
from randprune.errors import InvalidInputError
from randprune.recipe import (
    JobRecipe,
    Names,
    Section,
    SupernetSection,
    WidenSection,
)
from randprune.recipe.job import ExecutorName, Options, RayAddress
from randprune.recipe.names import CriterionName, RecoveryName
from randprune.recipe.prune import (
    BatchSize,
    EngineChoice,
    MinKeep,
    Rank,
    RankingImages,
    RankingPrecision,
    RoundTo,
)
from randprune.training.recipe import TrainRecipe


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"criteria must name each criterion only once. Got {', '.join(names)}."
        )
    return names


Criteria = Annotated[tuple[CriterionName, ...], Field(strict=False), AfterValidator(_once_each)]
Lengths = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]


class MethodSection(Section):
    """One method of the comparison; its table's name is what its rows are called."""

    method: str = Field(default="", description="a registered method; default: the table's name.")
    criteria: Criteria | None = Field(
        default=None, description="the criteria of its rows; default: those of the recipe."
    )
    epochs: Lengths | None = Field(
        default=None, description="its lengths of training; default: those of [design]."
    )
    options: Options = Field(default={}, description="what the method's constructor gets.")


class DesignSection(Section):
    """How often everything is repeated, and what counts as a difference."""

    draws: int = Field(
        default=3, ge=1, description="seeds of configurations; all rows share the draws."
    )
    trainings: int = Field(default=1, ge=1, description="trainings of each proposed network.")
    epochs: Lengths = Field(
        default=(2,),
        description="lengths of training; 0: none. From scratch the default is [20].",
    )
    reference: str = Field(
        default="",
        description="the row to which differences are taken, as method/criterion; default: the "
        "first row of random_search.",
    )
    margin: float = Field(
        default=0.005, gt=0, lt=1, description="smaller differences of accuracy are equivalent."
    )
    confidence: float = Field(default=0.95, gt=0, lt=1, description="confidence of the intervals.")


class ProposalSection(Section):
    """Limits on widths, and how candidates are compared; the same for all methods."""

    min_keep: MinKeep = 0.1
    round_to: RoundTo = 1
    rank_by: Rank = Field(
        default="kl",
        description="what ranks candidates on the search images: the divergence from the dense "
        "network's outputs (kl), the loss, or the accuracy. From scratch the default is accuracy.",
    )
    images: RankingImages = None
    precision: RankingPrecision = "auto"
    batch_size: BatchSize = None
    engine: EngineChoice = "rules"


class TrainingSection(TrainRecipe):
    """How networks are trained; the keys of a `TrainRecipe`."""

    model_config = Section.model_config

    seed: Literal[0] = Field(
        default=0, exclude=True, description="not given here: it follows from the recipe's seed"
    )

    def __init__(self, **fields: Any) -> None:
        # Past TrainRecipe's own message: `RecipeBase.parse` names the key and the file.
        BaseModel.__init__(self, **fields)

    def recipe(self, epochs: int, seed: int) -> TrainRecipe:
        """The plain recipe of one training."""
        return TrainRecipe(**{**self.model_dump(), "epochs": epochs, "seed": seed})


class FinetuneSection(TrainingSection):
    """How every proposed network is fine-tuned, whatever proposed it."""

    epochs: Literal[0] = Field(
        default=0, exclude=True, description="not given here: the lengths are in design.epochs"
    )


class FromRandomSection(FinetuneSection):
    """How every network is trained from random weights, the dense one included."""

    lr: float = Field(0.1, gt=0.0, description="peak learning rate")


class PretrainSection(TrainingSection):
    """How the dense network is trained first, where no trained weights are at hand."""


class OutputSection(Section):
    """Where results go and how the machine is shared. Does not decide any result."""

    folder: str = Field(default="", description="the output folder.")
    workers: int | None = Field(
        default=None,
        ge=0,
        description="processes that work side by side, one thread each; default: one per core; "
        "0: everything in this process.",
    )
    executor: ExecutorName = "processes"
    address: RayAddress = ""


class BenchKeys(JobRecipe):
    """All keys of a benchmark's recipe, before anything is said of how they fit together."""

    job: Literal["bench"] = "bench"
    title: str = Field(default="Benchmark", description="what people call it.")
    study: str = Field(default="", description="the shipped study that it comes from.")
    setting: Setting = Field(
        default="pretrained",
        description="what networks are made from: a trained network that is pruned (pretrained), "
        "or random weights at widths that are searched (scratch).",
    )
    plugins: Names = Field(
        default=(),
        description="modules to import first, which register methods, criteria, recoveries.",
    )
    criteria: Criteria = Field(
        default=("l1",), description="what ranks channels, one row for each."
    )
    recovery: RecoveryName = Field(
        default="least_squares+bn", description="how networks are repaired without training."
    )
    methods: dict[str, MethodSection] = Field(
        default={"random_search": MethodSection(), "uniform": MethodSection(),
                 "random_channels": MethodSection()},
        description="what is compared, one table for each method.",
    )  # fmt: skip
    proposals: ProposalSection = ProposalSection()
    design: DesignSection = DesignSection()
    finetune: FinetuneSection | None = FinetuneSection.model_validate({})
    pretrain: PretrainSection | None = None
    widen: WidenSection | None = None
    supernet: SupernetSection | None = None
    training: FromRandomSection | None = None
    output: OutputSection = OutputSection()
