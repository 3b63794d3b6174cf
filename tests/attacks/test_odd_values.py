"""Every parameter of the public steps is given values that nobody should give."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attacked import EXAMPLE, QUICK, network
from torch import nn

import randprune as rp
from randprune.errors import RandpruneError, quoted

IMAGES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(64) % 4


class Unspeakable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError("no text")


def fails(*_: Any, **__: Any) -> Any:
    return 1 / 0


ODD: dict[str, Any] = {
    "object": object(),
    "unspeakable": Unspeakable(),
    "text": "a\0b",
    "bytes": b"x",
    "negative": -1,
    "not finite": float("nan"),
    "enormous": 2**80,
    "array": np.arange(3),
    "no axes": np.array(np.nan),
    "meta": torch.empty(3, 3, 8, 8, device="meta"),
    "complex": 1j,
    "class": nn.Conv2d,
    "layers": nn.ModuleList([nn.Conv2d(3, 3, 1)]),
    "function": fails,
    "iterator": iter([]),
    "nested": {"a": {"b": [1]}},
    "sparse": (IMAGES.to_sparse(), LABELS),
    "negative labels": (IMAGES, LABELS - 10),
    "nan images": (IMAGES * float("nan"), LABELS),
}
SPACE = rp.trace(network(), EXAMPLE)
SMALL = rp.cut(network(), SPACE, rp.Selection((np.arange(4), np.arange(4))))
CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    rp.prune: {"candidates": 2, "settings": QUICK},
    rp.search: {"candidates": 2},
    rp.repair: {"small": SMALL},
    rp.prune_from_scratch: {"candidates": 2, "supernet": 1, "training": 1, "settings": {}},
}


def of_function(function: Callable[..., Any]) -> Any:
    return pytest.mark.parametrize("parameter", list(inspect.signature(function).parameters))


def given(function: Callable[..., Any]) -> dict[str, Any]:
    return {"model": network(), "data": (IMAGES, LABELS), **CALLS[function]}


def attack(function: Callable[..., Any], parameter: str) -> None:
    """Each value is taken, or refused by one clear error."""
    refused = []
    for value in ODD.values():
        try:
            function(**given(function) | {parameter: value})
        except RandpruneError as error:
            refused.append(str(error))
    assert len(refused) > len(ODD) // 2
    assert max(map(len, refused)) < 900
    assert not [message for message in refused if " at 0x" in message]


@of_function(rp.prune)
@pytest.mark.filterwarnings("ignore")
def test_prune(parameter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    attack(rp.prune, parameter)


@of_function(rp.search)
@pytest.mark.filterwarnings("ignore")
def test_search(parameter: str) -> None:
    attack(rp.search, parameter)


@of_function(rp.repair)
@pytest.mark.filterwarnings("ignore")
def test_repair(parameter: str) -> None:
    attack(rp.repair, parameter)


@of_function(rp.prune_from_scratch)
@pytest.mark.filterwarnings("ignore")
def test_prune_from_scratch(parameter: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    attack(rp.prune_from_scratch, parameter)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Unspeakable(), "an object of type Unspeakable"),
        (object(), "an object of type object"),
        (IMAGES, "Tensor of shape (64, 3, 8, 8)"),
        ("two\nlines", r"'two\nlines'"),
        ([1] * 100, f"[{'1, ' * 38}1 ..."),
    ],
)
def test_a_message_shows_a_value_on_one_short_line(value: object, text: str) -> None:
    assert quoted(value) == text
