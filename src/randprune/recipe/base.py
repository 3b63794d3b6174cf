"""What recipes share: strict sections, exact TOML round trips, one clear message per mistake."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from randprune.atomic import checked_path, write_file
from randprune.errors import InvalidInputError, quoted
from randprune.recipe.toml import dump_toml
from randprune.store.codec import content_hash

# Python's words for TOML's kinds of values.
_KINDS = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
}


class Section(BaseModel):
    """One table of a recipe. Unknown keys and values of another type are refused, not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RecipeBase(Section):
    """A whole recipe: keys and sections that decide a job's result, plus where it goes.

    `NOT_HASHED` names the top-level keys that do not decide the result.
    """

    NOT_HASHED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def parse(
        cls,
        document: Mapping[str, Any],
        where: str = "the recipe",
        *,
        context: Mapping[str, Any] | None = None,
    ) -> Self:
        """The recipe in a document of plain data, such as `tomllib` reads; imports nothing.

        Args:
            document: its keys.
            where: names it in messages.
            context: what validators of names have to know.

        Raises:
            InvalidInputError: an unknown key or a value that does not fit; names the key, the
                value, and what is allowed.
        """
        try:
            return cls.model_validate(dict(document), context=dict(context or {}))
        except ValidationError as error:
            raise InvalidInputError(_explain(cls, error.errors()[0], where)) from None

    @classmethod
    def from_toml(cls, text: str, where: str = "the recipe") -> Self:
        """The recipe in a TOML text; `where` names it in messages."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidInputError(f"{where} is not valid TOML: {error}.") from None
        return cls.parse(document, where)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The recipe in a TOML file.

        Raises:
            InvalidInputError: the file is missing or not valid.
        """
        try:
            text = checked_path(path, "path").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidInputError(f"The recipe {path} cannot be read: {reason}.") from None
        return cls.from_toml(text, str(path))

    def document(self) -> dict[str, Any]:
        """All keys with their values as plain data, defaults included, None left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_toml(self) -> str:
        """TOML text that `from_toml` reads back to an equal recipe."""
        return dump_toml(self.document())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the recipe to a TOML file, whole or not at all."""
        return write_file(path, self.to_toml().encode())

    def hash(self) -> str:
        """Hash of what decides the result: equal for equal recipes, in any process."""
        decides = {k: v for k, v in self.document().items() if k not in self.NOT_HASHED}
        return content_hash(decides)


def _explain(recipe: type[BaseModel], error: ErrorDetails, where: str) -> str:
    """One mistake in words: the key, the value, what is allowed."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        owner = _section(recipe, path[:-1])
        known = list(owner.model_fields) if owner else []
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f" Did you mean {'.'.join([*path[:-1], close[0]])!r}?" if close else ""
        place = f"[{'.'.join(path[:-1])}]" if path[:-1] else "The top level"
        return f"Unknown key {key!r} in {where}.{hint} {place} takes: {', '.join(known)}."
    if error["type"] == "missing":
        return f"The key {key!r} is missing in {where}. {_describe(recipe, path)}".rstrip()
    if error["type"] == "value_error":
        subject = f"The key {key!r} in {where}" if key else where[:1].upper() + where[1:]
        return f"{subject}: {error['ctx']['error']}"
    # "Input should be greater than 0" -> "must be greater than 0"
    wanted = error["msg"].replace("Input should be", "must be").rstrip(".")
    wanted = _KINDS.get(error["type"], wanted)
    description = _describe(recipe, path)
    got = f"Got {quoted(error['input'])} instead. {description}"
    return f"The key {key!r} in {where} {wanted}. {got}".rstrip()


def _describe(recipe: type[BaseModel], path: list[str]) -> str:
    owner = _section(recipe, path[:-1])
    info = owner.model_fields.get(path[-1]) if owner else None
    if info is None or not info.description:
        return ""
    return f"It means: {info.description.rstrip('.')}."


def _section(recipe: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The model of the table at `path`; None inside free-form options and lists."""
    for name in path:
        info = recipe.model_fields.get(name)
        annotation = info.annotation if info else None
        candidates = [annotation, *get_args(annotation)]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return None
        recipe = models[0]
    return recipe
