"""Configurations that were published, or anybody's own: how many channels each layer keeps.

A file lists them as ``[[configuration]]`` tables; `configurations.toml` holds those of papers.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from randprune.errors import InvalidInputError
from randprune.space import IntArray, Space

Share = Annotated[float, Field(ge=0, lt=1)]


class Configuration(BaseModel):
    """One configuration.

    Attributes:
        name: what people call it.
        cut: patterns of groups, with the share of channels that goes, one for all or one a group in
            their order; of two patterns that match a group, the later one counts.
        keep: by group, how many channels stay; counts over `cut`.
        model, data: what it was made for; "": anything.
        source, chosen, note: where it is from, how it was found, what differs here.
        macs, top1: what its authors report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    cut: tuple[tuple[str, Share | tuple[Share, ...]], ...] = ()
    keep: Mapping[str, Annotated[int, Field(ge=1)]] = {}
    model: str = ""
    data: str = ""
    source: str = ""
    chosen: str = ""
    note: str = ""
    macs: float | None = None
    top1: float | None = None

    def widths(self, space: Space) -> IntArray:
        """Its widths in a network, int64 (G,).

        Raises:
            InvalidInputError: it names groups that the network does not have, gives another number
                of shares than there are groups, or more channels than a group has.
        """
        names = [group.name for group in space.groups]
        full = dict(zip(names, space.widths.tolist(), strict=True))
        found = dict(full)
        for pattern, shares in self.cut:
            groups = [name for name in names if fnmatchcase(name, pattern)]
            each = [shares] * len(groups) if isinstance(shares, float) else list(shares)
            if not groups or len(each) != len(groups):
                raise InvalidInputError(
                    f"The configuration {self.name!r} gives {len(each) or 'a share'} for groups "
                    f"like {pattern!r}, of which the network has {len(groups)}. "
                    "`randprune inspect` lists its groups."
                )
            for name, share in zip(groups, each, strict=True):
                # 0.9 of 10 channels are 9: floating point must not make 8 of it.
                found[name] = max(1, math.floor(full[name] * (1 - share) + 1e-9))
        for name, width in self.keep.items():
            if not 1 <= width <= full.get(name, 0):
                there = f"has {full[name]} channels" if name in full else "is not in the network"
                raise InvalidInputError(
                    f"The configuration {self.name!r} keeps {width} channels of the group "
                    f"{name!r}, which {there}. `randprune inspect` lists its groups."
                )
            found[name] = width
        return np.array([found[name] for name in names], dtype=np.int64)


def published_configurations(model: str = "") -> tuple[Configuration, ...]:
    """Those that the package lists, in the order of the file; of one network, if it is named."""
    text = files("randprune.bench").joinpath("configurations.toml").read_text(encoding="utf-8")
    found = _parsed(text, "configurations.toml")
    return tuple(c for c in found if model in ("", c.model))


def configurations_in(path: Path) -> tuple[Configuration, ...]:
    """Those of a file.

    Raises:
        InvalidInputError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"The file {path} cannot be read: {error}") from error
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> tuple[Configuration, ...]:
    try:
        entries: Sequence[object] = tomllib.loads(text).get("configuration", ())
        found = tuple(Configuration.model_validate(entry) for entry in entries)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        problem = str(error).splitlines()
        raise InvalidInputError(
            f"{where} holds no configurations: {' '.join(problem[:3])[:300]}"
        ) from error
    if not found:
        raise InvalidInputError(
            f"{where} holds no configurations. Write one as [[configuration]] with name and keep, "
            'such as keep = { "layer1.0.conv1" = 12 }.'
        )
    return found
