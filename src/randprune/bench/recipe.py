"""The recipe of `bench`: methods, criteria, seeds and lengths, in one TOML file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from randprune.bench.methods import RandomChannels, RandomSearchMethod, UniformWidth
from randprune.bench.methods.base import Method, methods
from randprune.bench.records import DENSE, SCRATCH, Setting, row_of
from randprune.criteria import criteria
from randprune.errors import InvalidInputError
from randprune.recipe import (
    BudgetSection,
    DataSection,
    ModelSection,
    Names,
    RecipeBase,
    Section,
    SupernetSection,
    WidenSection,
)
from randprune.recipe.prune import Options, Precision, Rank
from randprune.recovery import parse
from randprune.search.feasible import check_grid
from randprune.training.recipe import TrainRecipe

RANDOM_CRITERION = "random"
"""The criterion of methods that choose channels by themselves."""

Lengths = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]


def _is(kind: type[Method]) -> Callable[[Method], bool]:
    return lambda method: isinstance(method, kind)


def _looks_at(method: Method) -> int:
    return method.candidates if isinstance(method, RandomSearchMethod) else 0


# A comparison without these says nothing about search, widths or criteria: name, what it is, role,
# and the table that a recipe lacks.
_Required = tuple[str, Callable[[Method], bool], str, str]
_SEARCH: _Required = (
    "random_search",
    _is(RandomSearchMethod),
    "the baseline of random configurations",
    "an empty table [methods.random_search]",
)
_UNIFORM: _Required = (
    "uniform",
    _is(UniformWidth),
    "the control without a search",
    "an empty table [methods.uniform]",
)
_REQUIRED: dict[Setting, tuple[_Required, ...]] = {
    "pretrained": (
        _SEARCH,
        _UNIFORM,
        (
            "random_channels",
            _is(RandomChannels),
            "the control without a criterion",
            "an empty table [methods.random_channels]",
        ),
    ),
    "scratch": (
        (*_SEARCH[:1], lambda method: _looks_at(method) > 1, *_SEARCH[2:]),
        _UNIFORM,
        (
            "random_configuration",
            lambda method: _looks_at(method) == 1,
            "one random configuration without a search",
            'a table [methods.random_configuration] with method = "random_search" and '
            "options = { candidates = 1 }",
        ),
    ),
}


class MethodSection(Section):
    """One method of the comparison; its table's name is what its rows are called."""

    method: str = Field(default="", description="a registered method; default: the table's name.")
    criteria: Names | None = Field(
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
        description="the row that differences are taken to, as method/criterion; default: the "
        "first row of random_search.",
    )
    margin: float = Field(
        default=0.005, gt=0, lt=1, description="smaller differences of accuracy are equivalent."
    )
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the intervals.")


class ProposalSection(Section):
    """Limits on widths, and how candidates are compared; the same for all methods."""

    min_keep: float = Field(
        default=0.1, ge=0, le=1, description="the least share of a group that stays."
    )
    round_to: int = Field(default=1, ge=1, description="what widths are multiples of.")
    rank_by: Rank = Field(
        default="kl",
        description="what ranks candidates on the search images: the divergence from the dense "
        "network's outputs (kl), the loss, or the accuracy. From scratch the default is accuracy.",
    )
    precision: Precision = Field(
        default="auto",
        description="what candidates are ranked in; auto: bfloat16 where it is clearly faster.",
    )


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


class BenchRecipe(RecipeBase):
    """A whole benchmark."""

    NOT_HASHED: ClassVar[frozenset[str]] = frozenset({"output"})

    job: Literal["bench"] = "bench"
    title: str = Field(default="Benchmark", description="what people call it.")
    study: str = Field(default="", description="the shipped study that it comes from.")
    setting: Setting = Field(
        default="pretrained",
        description="what networks are made from: a trained network that is pruned (pretrained), "
        "or random weights at widths that are searched (scratch).",
    )
    seed: int = Field(default=0, ge=0, description="what decides everything random.")
    plugins: Names = Field(
        default=(),
        description="modules to import first, which register methods, criteria, recoveries.",
    )
    criteria: Names = Field(default=("l1",), description="what ranks channels, one row for each.")
    recovery: str = Field(
        default="least_squares+bn", description="how networks are repaired without training."
    )
    methods: dict[str, MethodSection] = Field(
        default={"random_search": MethodSection(), "uniform": MethodSection(),
                 "random_channels": MethodSection()},
        description="what is compared, one table for each method.",
    )  # fmt: skip
    model: ModelSection | None = None
    data: DataSection | None = None
    budget: BudgetSection = BudgetSection()
    proposals: ProposalSection = ProposalSection()
    design: DesignSection = DesignSection()
    finetune: FinetuneSection | None = FinetuneSection.model_validate({})
    pretrain: PretrainSection | None = None
    widen: WidenSection | None = None
    supernet: SupernetSection | None = None
    training: FromRandomSection | None = None
    output: OutputSection = OutputSection()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_setting(cls, document: Any) -> Any:
        if isinstance(document, Mapping) and document.get("setting") == "scratch":
            return _from_scratch(document)
        return document

    @field_validator("plugins")
    @classmethod
    def _plugins_are_imported(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        here = str(Path.cwd())
        sys.path[:] = [*([] if here in sys.path else [here]), *sys.path]
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise ValueError(
                    f"the module {name!r} cannot be imported ({error}). Give a module of an "
                    "installed package or of the current directory, without '.py'."
                ) from error
        return names

    @field_validator("criteria")
    @classmethod
    def _criteria_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known_criteria(names)

    @field_validator("recovery")
    @classmethod
    def _recovery_is_known(cls, name: str) -> str:
        parse(name)
        return name

    @model_validator(mode="after")
    def _methods_are_sound(self) -> BenchRecipe:
        self._check_setting()
        made = {}
        for label, section in self.methods.items():
            if "/" in label or not label:
                raise ValueError(f"a method's name must not be empty or hold '/'. Got {label!r}.")
            made[label] = methods.create(section.method or label, **section.options)
            _known_criteria(section.criteria or ())
            if self.setting == "scratch" and getattr(made[label], "needs_trained", False):
                raise ValueError(
                    f"the method {section.method or label} needs a trained network, to rank "
                    f"channels or to predict configurations. Leave out [methods.{label}]."
                )
        for name, fits, role, table in _REQUIRED[self.setting]:
            if not any(fits(method) for method in made.values()):
                raise ValueError(f"a comparison needs a row of {name}, {role}. Add {table}.")
        check_grid("the [proposals] section", self.proposals.min_keep, self.proposals.round_to)
        rows = [row for label in self.methods for row in self.rows(label)]
        if self.design.reference and self.design.reference not in rows:
            raise ValueError(
                f"design.reference must be one of the rows {', '.join(rows)}. "
                f"Got {self.design.reference!r} instead."
            )
        return self

    def _check_setting(self) -> None:
        """Refuse keys that mean nothing in the recipe's setting."""
        if self.setting == "pretrained":
            for name in ("widen", "supernet", "training"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"[{name}] is for networks from scratch. Leave it out, or set "
                        'setting = "scratch".'
                    )
            if not self.criteria:
                raise ValueError("criteria must have at least 1 item, what ranks channels.")
            if self.finetune is None:
                raise ValueError("finetune must not be None: it trains every proposed network.")
            return
        for what, why in self._meaningless():
            raise ValueError(f'{what} means nothing with setting = "scratch": {why}')

    def _meaningless(self) -> Iterator[tuple[str, str]]:
        """What a recipe from scratch gives and must not, and what to do about it."""
        unranked = (
            "no criterion ranks channels, every network keeps the first ones of each group. "
            "Leave it out."
        )
        if self.model and self.model.weights:
            yield "model.weights", "all networks are trained from random weights. Leave it out."
        if self.model and self.model.as_graph:
            yield "model.as_graph", "what is cut as a graph cannot be widened. Leave it out."
        if self.pretrain is not None:
            yield "[pretrain]", "the dense network is trained beside the others. Leave it out."
        if self.finetune is not None:
            yield "[finetune]", "there is nothing to tune yet. Give these keys in [training]."
        if self.criteria:
            yield "criteria", unranked
        if self.recovery:
            yield "recovery", "there are no trained weights to repair. Leave it out."
        if self.proposals.rank_by == "kl":
            yield (
                'proposals.rank_by = "kl"',
                "there are no outputs of a trained network to diverge from. Give accuracy or loss.",
            )
        for name in ("supernet", "training"):
            if getattr(self, name).distill_weight > 0:
                yield f"{name}.distill_weight", "there is no trained teacher. Leave it out."
        if 0 in self.design.epochs:
            yield "0 in design.epochs", "networks need training. Give lengths of 1 and more."
        for label, section in self.methods.items():
            if label == DENSE:
                yield (
                    f"[methods.{DENSE}]",
                    "the dense network is trained beside the others anyway. Choose another name.",
                )
            if section.criteria is not None:
                yield f"methods.{label}.criteria", unranked
            if 0 in (section.epochs or ()):
                yield f"0 in methods.{label}.epochs", "networks need training. Leave it out."
        assert self.supernet is not None
        if self.supernet.distill and not self.supernet.sandwich:
            yield (
                "supernet.distill without supernet.sandwich",
                "only the sandwich rule trains the widest network, which the others learn from. "
                "Set supernet.sandwich = true.",
            )

    def document(self) -> dict[str, Any]:
        """All keys that mean something in the recipe's setting; see `RecipeBase.document`."""
        found = super().document()
        empty = ("criteria", "recovery") if self.setting == "scratch" else ()
        return {key: value for key, value in found.items() if key not in empty}

    @property
    def trained_by(self) -> FinetuneSection:
        """How proposed networks are trained: [finetune], or [training] from scratch."""
        section = self.training or self.finetune
        assert section is not None
        return section

    def method(self, label: str) -> Method:
        """The method called `label`."""
        return methods.create(self.method_name(label), **self.methods[label].options)

    def method_name(self, label: str) -> str:
        """The registered name of the method called `label`; "dense" for the dense network."""
        section = self.methods.get(label)
        return section.method or label if section else label

    def criteria_of(self, label: str) -> tuple[str, ...]:
        """The criteria of a method's rows."""
        if self.setting == "scratch":
            return (SCRATCH,)
        if not self.method(label).uses_criterion:
            return (RANDOM_CRITERION,)
        own: tuple[str, ...] | None = self.methods[label].criteria
        return own or self.criteria

    def epochs_of(self, label: str) -> tuple[int, ...]:
        """The lengths of training of a method, or of the dense network, ascending."""
        section = self.methods.get(label)
        return tuple(sorted(set((section and section.epochs) or self.design.epochs)))

    def rows(self, label: str) -> tuple[str, ...]:
        """The rows of a method."""
        return tuple(row_of(label, criterion) for criterion in self.criteria_of(label))

    @property
    def reference(self) -> str:
        """The row that differences are taken to."""
        if self.design.reference:
            return self.design.reference
        first = next(m for m in self.methods if isinstance(self.method(m), RandomSearchMethod))
        return self.rows(first)[0]


def _known_criteria(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        criteria.constructor(name)
    if len(set(names)) < len(names):
        raise InvalidInputError(f"criteria are named once each. Got {', '.join(names)}.")
    return names


def _from_scratch(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the defaults of the setting "scratch" where it says nothing."""
    single = {"method": "random_search", "options": {"candidates": 1}}
    defaults: dict[str, Any] = {
        "criteria": (),
        "recovery": "",
        "finetune": None,
        "methods": {"random_search": {}, "uniform": {}, "random_configuration": single},
        "widen": {},
        "supernet": {},
        "training": {},
        "proposals": {},
        "design": {},
    }
    found = {**defaults, **document}
    for section, given in (("proposals", {"rank_by": "accuracy"}), ("design", {"epochs": (20,)})):
        if isinstance(found[section], Mapping):
            found[section] = {**given, **found[section]}
    return found
