"""The recipe of `bench`: methods, criteria, seeds and lengths, in one TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from pydantic import ValidationInfo, model_validator

from randprune.bench.controls import check_controls
from randprune.bench.keys import RANDOM_CRITERION, Row
from randprune.bench.methods import RandomSearchMethod
from randprune.bench.methods.base import Method, methods
from randprune.bench.records import SCRATCH
from randprune.bench.scratch_recipe import check_scratch, scratch_document
from randprune.bench.sections import BenchKeys, FinetuneSection
from randprune.errors import InvalidInputError
from randprune.recipe import (
    SupernetSection,
    WidenSection,
)
from randprune.recipe.names import plugins_to_come
from randprune.strategies.feasible import check_grid

S = TypeVar("S")


class BenchRecipe(BenchKeys):
    """A whole benchmark."""

    def resolved(self, where: str = "the recipe") -> Self:
        """See `JobRecipe.resolved`; methods are sound and fit together, too."""
        methods.names()  # those of installed packages, too
        return super().resolved(where)

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
            raise ValueError("criteria must name at least one criterion, which ranks channels.")
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


def _of_setting(section: S | None, name: str) -> S:
    if section is None:
        raise InvalidInputError(f'[{name}] has a meaning only with setting = "scratch".')
    return section
