"""The recipe of `bench`: methods, criteria, seeds and lengths, in one TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, model_validator

from randprune.bench.controls import check_controls
from randprune.bench.keys import RANDOM_CRITERION, Row
from randprune.bench.methods import RandomSearchMethod
from randprune.bench.methods.base import Method, methods
from randprune.bench.records import SCRATCH, Setting
from randprune.bench.scratch_recipe import check_scratch, scratch_document
from randprune.errors import InvalidInputError
from randprune.imports import import_named
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
from randprune.recipe.names import (
    PLUGINS_TO_COME,
    CriterionName,
    RecoveryName,
    plugins_to_come,
)
from randprune.recipe.prune import (
    BatchSize,
    MinKeep,
    Options,
    Rank,
    RankingPrecision,
    RoundTo,
)
from randprune.search.feasible import check_grid
from randprune.training.recipe import TrainRecipe

S = TypeVar("S")


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise InvalidInputError(f"criteria are named once each. Got {', '.join(names)}.")
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
        description="the row that differences are taken to, as method/criterion; default: the "
        "first row of random_search.",
    )
    margin: float = Field(
        default=0.005, gt=0, lt=1, description="smaller differences of accuracy are equivalent."
    )
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the intervals.")


class ProposalSection(Section):
    """Limits on widths, and how candidates are compared; the same for all methods."""

    min_keep: MinKeep = 0.1
    round_to: RoundTo = 1
    rank_by: Rank = Field(
        default="kl",
        description="what ranks candidates on the search images: the divergence from the dense "
        "network's outputs (kl), the loss, or the accuracy. From scratch the default is accuracy.",
    )
    precision: RankingPrecision = "auto"
    batch_size: BatchSize = None


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
            InvalidInputError: a plug-in that cannot be imported, a name that nobody registers, or
                methods that do not fit together.
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
        methods.names()  # those of installed packages, too
        return self.parse(self.document(), where, context={})

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_setting(cls, document: Any) -> Any:
        if isinstance(document, Mapping) and document.get("setting") == "scratch":
            return scratch_document(document)
        return document

    @model_validator(mode="after")
    def _methods_are_sound(self, info: ValidationInfo) -> BenchRecipe:
        self._check_setting()
        for label in self.methods:
            if "/" in label or not label:
                raise ValueError(f"a method's name must not be empty or hold '/'. Got {label!r}.")
        names = [self.method_name(label) for label in self.methods]
        if not plugins_to_come(info):
            names = [methods.check(name) for name in names]
        if not all(map(methods.is_loaded, names)):
            return self  # the rest is checked when the job starts, which imports them
        check_controls(self.setting, {label: self.method(label) for label in self.methods})
        for epochs in sorted({e for label in self.methods for e in self.epochs_of(label)}):
            self.trained_by.recipe(epochs, 0)  # raises, where a length is shorter than the warm-up
        check_grid("the [proposals] section", self.proposals.min_keep, self.proposals.round_to)
        rows = [row for label in self.methods for row in self.rows(label)]
        if self.design.reference and self.design.reference not in map(str, rows):
            raise ValueError(
                f"design.reference must be one of the rows {', '.join(map(str, rows))}. "
                f"Got {self.design.reference!r} instead."
            )
        return self

    def _check_setting(self) -> None:
        """Refuse keys that mean nothing in the recipe's setting."""
        if self.setting == "scratch":
            check_scratch(self)
            return
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

    def document(self) -> dict[str, Any]:
        """All keys that mean something in the recipe's setting; see `RecipeBase.document`."""
        found = super().document()
        empty = ("criteria", "recovery") if self.setting == "scratch" else ()
        return {key: value for key, value in found.items() if key not in empty}

    def check_complete(self, folder: str) -> None:
        """Raise where the recipe lacks what a run needs: network, weights, images, or a folder.

        Raises:
            InvalidInputError: says what to add.
        """
        network, _ = self.network, self.images
        if not folder:
            raise InvalidInputError(
                "A benchmark keeps its records in a folder. Give one, as the recipe's "
                "output.folder or the parameter 'out'."
            )
        if self.setting == "pretrained" and not network.weights and self.pretrain is None:
            raise InvalidInputError(
                "The recipe's network has no trained weights, so there is nothing to compare. Give "
                "model.weights, or a section [pretrain] that trains it first. To search widths "
                'without trained weights, set setting = "scratch".'
            )

    @property
    def network(self) -> ModelSection:
        """The section [model]; raises an `InvalidInputError` where the recipe has none."""
        return _given(self.model, "model", "randprune:resnet20")

    @property
    def images(self) -> DataSection:
        """The section [data]; raises an `InvalidInputError` where the recipe has none."""
        return _given(self.data, "data", "digits")

    @property
    def trained_by(self) -> FinetuneSection:
        """How proposed networks are trained: [finetune], or [training] from scratch."""
        return _of_setting(self.training or self.finetune, "training")

    @property
    def widened_by(self) -> WidenSection:
        """From scratch: the section [widen]."""
        return _of_setting(self.widen, "widen")

    @property
    def shared_by(self) -> SupernetSection:
        """From scratch: the section [supernet], how shared weights are trained."""
        return _of_setting(self.supernet, "supernet")

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

    def rows(self, label: str) -> tuple[Row, ...]:
        """The rows of a method."""
        return tuple(Row(label, criterion) for criterion in self.criteria_of(label))

    @property
    def reference(self) -> Row:
        """The row that differences are taken to."""
        rows = [row for label in self.methods for row in self.rows(label)]
        if self.design.reference:
            return next(row for row in rows if str(row) == self.design.reference)
        first = next(m for m in self.methods if isinstance(self.method(m), RandomSearchMethod))
        return self.rows(first)[0]


def _given(section: S | None, name: str, example: str) -> S:
    if section is None:
        raise InvalidInputError(
            f'The recipe has no [{name}] section. Add one, e.g. [{name}] with spec = "{example}".'
        )
    return section


def _of_setting(section: S | None, name: str) -> S:
    if section is None:
        raise InvalidInputError(f'[{name}] means something with setting = "scratch" alone.')
    return section
