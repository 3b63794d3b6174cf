"""The recipe of `prune_from_scratch`: everything that decides its table, in one TOML file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from randprune.recipe.base import Section
from randprune.recipe.job import JobRecipe, OutputSection
from randprune.recipe.names import CriterionName, RecoveryName, StrategyOrObject
from randprune.recipe.prune import RankingImages, SearchSection, TrainSection


class WidenSection(Section):
    """How much wider than the original a configuration may be."""

    factor: float = Field(
        default=1.5,
        ge=1,
        le=1000,
        description="the largest width of a group, relative to its original width.",
    )
    factors: dict[str, float] = Field(
        default={}, description="the same for single groups, by name; they win over factor."
    )
    round_to: int = Field(
        default=1, ge=1, description="the largest widths are multiples of this number."
    )


class SupernetSection(TrainSection):
    """How the shared weights are trained; the keys of a `TrainRecipe`, and what a step trains."""

    epochs: int = Field(20, ge=1, description="passes over the fitting images")
    lr: float = Field(0.1, gt=0.0, description="peak learning rate")
    per_step: int = Field(
        default=1, ge=1, description="how many random configurations a step trains."
    )
    pool: int = Field(
        default=4096,
        ge=1,
        description="how many configurations within the budget are drawn in advance for the steps.",
    )
    sandwich: bool = Field(
        default=False,
        description="whether each step also trains the widest and the narrowest configuration.",
    )
    distill: bool = Field(
        default=False,
        description="whether the others learn the widest one's outputs in place of the labels.",
    )


class ScratchSearchSection(SearchSection):
    """How configurations are proposed, and compared with shared weights."""

    strategy: StrategyOrObject = Field(
        default="random", description="the name of a search strategy."
    )
    rank_by: Literal["accuracy", "loss"] = Field(
        default="accuracy", description="what ranks candidates on the search images."
    )
    images: RankingImages = None


class TrainingSection(TrainSection):
    """How networks are trained from random weights; the keys of a `TrainRecipe`, and how many."""

    epochs: int = Field(20, ge=1, description="passes over the training images")
    lr: float = Field(0.1, gt=0.0, description="peak learning rate")
    seeds: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="how many times each network is trained, with other seeds.",
    )
    standalone: int = Field(
        default=0,
        ge=0,
        description="how many more candidates, spread over the ranking, are trained once each: "
        "for the rank correlation between shared weights and weights of their own.",
    )


class ControlsSection(Section):
    """Which networks the searched one is set beside."""

    dense: bool = Field(default=True, description="the original network at full width.")
    uniform: bool = Field(default=True, description="the same share of channels everywhere.")
    random: bool = Field(
        default=True, description="random configurations without search, another one per seed."
    )
    pretrained: bool = Field(
        default=True,
        description="the original network trained, pruned and fine-tuned, at the compute of the "
        "search and one final training.",
    )


class PretrainedSection(Section):
    """The pre-trained route among the controls."""

    share: float = Field(
        default=0.3, gt=0, lt=1, description="the share of its compute that fine-tunes."
    )
    lr: float = Field(default=0.02, gt=0, description="the fine-tuning's peak learning rate.")
    criterion: CriterionName = Field(default="l1", description="what ranks its channels.")
    recovery: RecoveryName = Field(
        default="least_squares", description="how its candidates are repaired without training."
    )


class ScratchRecipe(JobRecipe):
    """A whole job of pruning from scratch."""

    job: Literal["scratch"] = "scratch"
    widen: WidenSection = WidenSection()
    supernet: SupernetSection = SupernetSection.model_validate({})
    search: ScratchSearchSection = ScratchSearchSection()
    training: TrainingSection = TrainingSection.model_validate({})
    controls: ControlsSection = ControlsSection()
    pretrained: PretrainedSection = PretrainedSection()
    output: OutputSection = OutputSection()

    @model_validator(mode="after")
    def _fits_together(self) -> ScratchRecipe:
        if self.model and (self.model.weights or self.model.as_graph):
            key = "weights" if self.model.weights else "as_graph"
            raise ValueError(f"a job from scratch takes no model.{key}; leave it out")
        if self.supernet.distill and not self.supernet.sandwich:
            raise ValueError("supernet.distill needs supernet.sandwich = true")
        for name, section in (("supernet", self.supernet), ("training", self.training)):
            if section.distill_weight > 0:
                raise ValueError(f"{name}.distill_weight must be 0: there is no trained teacher")
        return self
