"""The recipe of `prune`: everything that decides which network comes out, in one TOML file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from randprune.cost import LATENCY, Budget
from randprune.evaluate.engine import Choice
from randprune.recipe.base import Section
from randprune.recipe.job import BudgetSection, JobRecipe, Options, SharedOutputSection
from randprune.recipe.names import (
    CriterionOrObject,
    RecoveryName,
    StrategyOrObject,
    TaskOrObject,
)
from randprune.recipe.presets import DEFAULT, with_preset
from randprune.tasks import Task, tasks
from randprune.training.recipe import TrainRecipe

Rank = Literal["kl", "accuracy", "loss"]
# Keys of [search] and, in benchmarks, of [proposals].
MinKeep = Annotated[
    float,
    Field(ge=0, le=1, description="the smallest share of its channels that a group may keep."),
]
RoundTo = Annotated[int, Field(ge=1, description="widths are multiples of this number.")]
StepOrAuto = Annotated[
    Annotated[int, Field(ge=1)] | Literal["auto"],
    Field(
        description="widths are multiples of this number; auto: 16 or 8, which runtimes reward, "
        "where the network is wide enough, else 1."
    ),
]
RankingPrecision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Field(
        description="the number format in which candidates are ranked; auto: bfloat16 where "
        "the hardware has units for it."
    ),
]
BatchSize = Annotated[
    int | None,
    Field(
        ge=1,
        description="images per batch while networks are evaluated, and at most for calibration; "
        "unset: see engine.",
    ),
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


Ratio = Annotated[float, Field(gt=0, le=1)]


class BudgetsSection(BudgetSection):
    """What the pruned network may cost, or the networks, one for each of several ratios."""

    ratios: Annotated[tuple[Ratio, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="several shares of the dense cost, instead of one: a network for each.",
    )

    def budgets(self) -> tuple[Budget, ...]:
        """All budgets of the job, in their order."""
        ratios = self.ratios or (self.ratio,)
        plain = [Budget(self.metric, ratio, self.tolerance) for ratio in ratios]
        return tuple(self.timed(budget) for budget in plain)

    @model_validator(mode="after")
    def _once_each(self) -> BudgetsSection:
        if self.ratios and self.ms is not None:
            raise ValueError(
                "ms is one budget. Leave out ratios, or ask for ratios of the latency."
            )
        if self.ratios and len(set(self.ratios)) < len(self.ratios):
            given = ", ".join(f"{ratio:g}" for ratio in self.ratios)
            raise ValueError(f"ratios must be given once each. Got {given}.")
        return self


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


class SearchSection(Section):
    """How configurations are proposed and compared."""

    strategy: StrategyOrObject = Field(
        default="lagrangian", description="the name of a search strategy."
    )
    candidates: int = Field(
        default=100, ge=1, le=1_000_000, description="how many configurations are evaluated."
    )
    min_keep: MinKeep = 0.1
    round_to: StepOrAuto = "auto"
    rank_by: Rank = Field(
        default="kl",
        description="what ranks candidates on the search images: the divergence from the dense "
        "network's outputs (kl), the loss, or the accuracy.",
    )
    images: RankingImages = 2000
    precision: RankingPrecision = "auto"
    batch_size: BatchSize = None
    engine: EngineChoice = "rules"
    options: Options = Field(default={}, description="further arguments of the strategy.")


class PruneSearchSection(SearchSection):
    """The same, where candidates are cut from a trained network."""

    race: bool = Field(
        default=False,
        exclude_if=lambda race: not race,
        description="whether a candidate that is clearly behind on the first of the images that "
        "rank, by the differences that candidates before it have shown, is not looked at on the "
        "others.",
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
    swaps: int = Field(
        default=0,
        ge=0,
        le=100_000,
        exclude_if=lambda swaps: not swaps,
        description="most exchanges of a kept and a cut channel in each group of a finalist, by "
        "the error of the layers behind, whatever ranked the channels; 0: none.",
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
        default="",
        exclude_if=lambda name: not name,
        description="the caller's own trainer, where one was given; no key for files.",
    )


class ControlsSection(Section):
    """What the searched network is set beside, besides uniform widths and random channels."""

    random_search: bool = Field(
        default=False,
        description="whether as many random configurations are searched, too: the time of a second "
        "search, where the strategy is not random itself.",
    )


class PruneRecipe(JobRecipe):
    """A whole pruning job."""

    job: Literal["prune"] = "prune"
    criterion: CriterionOrObject = Field(
        default="reconstruction", description="the name of the criterion that ranks channels."
    )
    recovery: RecoveryName = Field(
        default="least_squares", description="how candidates are repaired without training."
    )
    preset: str = Field(
        default=DEFAULT, description="named settings for the keys that are left out: see presets."
    )
    task: TaskSection | None = None
    budget: BudgetsSection = BudgetsSection()
    search: PruneSearchSection = PruneSearchSection()
    finalists: FinalistsSection = FinalistsSection()
    controls: ControlsSection = Field(
        default=ControlsSection(), exclude_if=lambda controls: controls == ControlsSection()
    )
    finetune: FinetuneSection | None = None
    output: SharedOutputSection = SharedOutputSection()

    def for_each_budget(self) -> tuple[PruneRecipe, ...]:
        """The recipes of several budgets, one each, in their order; none where it has one budget.

        Each is what a job with that budget alone is asked for.
        """
        budget = self.budget
        return tuple(
            self.model_copy(
                update={"budget": budget.model_copy(update={"ratio": ratio, "ratios": None})}
            )
            for ratio in budget.ratios or ()
        )

    @model_validator(mode="after")
    def _side_by_side(self) -> PruneRecipe:
        output = self.output
        if output.workers or output.executor != "processes":
            if self.search.race:
                raise ValueError(
                    "search.race compares candidates one after the other. Leave it out, or "
                    "output.workers and output.executor."
                )
            if self.budget.metric == LATENCY:
                raise ValueError(
                    "A budget of latency is measured by one process. Leave out output.workers and "
                    "output.executor."
                )
        return self

    @model_validator(mode="before")
    @classmethod
    def _take_preset(cls, document: Any) -> Any:
        # The default preset is what the fields say themselves.
        preset = document.get("preset", DEFAULT) if isinstance(document, dict) else DEFAULT
        if preset == DEFAULT or not isinstance(preset, str):
            return document
        return with_preset(document)
