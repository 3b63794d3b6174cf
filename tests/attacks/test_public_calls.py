"""Bad input to the functions of each step: one sentence, and never a wrong network."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attacked import EXAMPLE, network
from torch import nn

import randprune as rp
from randprune.atomic import write_file
from randprune.errors import DataError, InvalidInputError, RandpruneError, VerificationError

NETWORK = network()
SPACE = rp.trace(NETWORK, EXAMPLE)
SCORES = rp.score(NETWORK, SPACE, "l1")
SELECTION = rp.select(SPACE, SCORES, [4, 4])
SMALL = rp.cut(NETWORK, SPACE, SELECTION)
WIDER = network(12)
IMAGES, LABELS = torch.zeros(4, 3, 8, 8), torch.arange(4)
ANY: Any = None
Call = Callable[[], object]


def taylor(data: Any = (IMAGES, LABELS), **options: Any) -> object:
    return rp.score(NETWORK, SPACE, "taylor", data, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rp.score(NETWORK, ANY, "l1"), InvalidInputError, "'space' parameter of score"),
        (lambda: rp.score(WIDER, SPACE, "l1"), InvalidInputError, "not the one that was traced"),
        (
            lambda: rp.score(nn.Identity(), SPACE, "l1"),
            InvalidInputError,
            "no tensor called '0.weight'",
        ),
        (lambda: taylor((IMAGES, None)), DataError, "labels are NoneType"),
        (lambda: taylor((IMAGES[:, :1], LABELS)), DataError, "traced with inputs of shape 1x3x8x8"),
        (lambda: taylor(seed="x"), InvalidInputError, "'seed' parameter of score must be a whole"),
        (lambda: taylor(seed=None), InvalidInputError, "'seed' parameter of score"),
        (lambda: taylor(seed=2**80), InvalidInputError, "'seed' parameter .* of 64 bits"),
        (lambda: taylor(batch_size=0), InvalidInputError, "'batch_size' parameter .* at least 1"),
        (lambda: taylor(batch_size="x"), InvalidInputError, "'batch_size' parameter of score"),
    ],
)
def test_score(call: Call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (None, "one entry for each of the 2 groups. Got NoneType"),
        (3, "one entry for each of the 2 groups. Got int"),
        ("ab", "one entry for each of the 2 groups. Got str"),
        ({0: SCORES[0], 1: SCORES[1]}, "one entry for each of the 2 groups. Got dict"),
        ((s for s in SCORES), "one entry for each of the 2 groups. Got generator"),
        (SCORES[:1], "one entry for each of the 2 groups. Got 1"),
        (["ab", "cd"], "must be numbers, a .width,. array. Got str"),
        ([s.to("meta") for s in SCORES], "must be numbers"),
        ([s.to(torch.complex64) for s in SCORES], "complex numbers have no order"),
        ([s * float("nan") for s in SCORES], "8 not finite"),
    ],
)
def test_scores_of_select(scores: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rp.select(SPACE, scores, [4, 4])


@pytest.mark.parametrize(
    "widths", [[[1], [2, 3]], None, "44", [4.0, 4.0], [True, True], [2**70, 4]]
)
def test_widths_of_select(widths: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"must be 2 integers|must keep between"):
        rp.select(SPACE, SCORES, widths)
    with pytest.raises(InvalidInputError, match="'space' parameter of select must be a Space"):
        rp.select(ANY, SCORES, [4, 4])


KEPT: list[Any] = [
    None,
    (None, None),
    ("ab", "c"),
    ([0, 1], [1]),
    (torch.tensor([0, 1]), torch.tensor([1])),
    (np.array([0.5, 1]), np.array([1.0])),
    (np.array([[0, 1]]), np.array([[1]])),
    (np.ones(8, bool), np.array([1])),
    (np.array([0, 1], object), np.array([1])),
]


@pytest.mark.parametrize("kept", KEPT)
def test_kept_channels_are_arrays_of_integers(kept: Any) -> None:
    selection = rp.Selection(kept, SPACE.fingerprint)
    with pytest.raises(InvalidInputError, match="must be one array of integers"):
        rp.cut(NETWORK, SPACE, selection)
    with pytest.raises(InvalidInputError, match="must be one array of integers"):
        rp.verify(NETWORK, SMALL, SPACE, selection, EXAMPLE)


def test_unsigned_channels_in_no_order_are_noticed() -> None:
    """Their differences are never negative."""
    kept = (np.array([3, 1], np.uint64), np.array([1], np.uint64))
    with pytest.raises(InvalidInputError, match="must be sorted, distinct"):
        rp.cut(NETWORK, SPACE, rp.Selection(kept, SPACE.fingerprint))


def one_layer_more() -> nn.Sequential:
    return nn.Sequential(*network(), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WIDER, "not the one that was traced: it has 1,720 parameters, the traced one 860"),
        (network(6), "traced from a wider network"),
        (nn.Identity(), "no tensor called '0.weight'"),
        (one_layer_more(), "parameters, the traced one 860"),
    ],
)
def test_another_network_than_the_traced_one_is_not_cut(model: nn.Module, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rp.cut(model, SPACE, SELECTION)
    with pytest.raises(InvalidInputError, match=message):
        rp.verify(model, SMALL, SPACE, SELECTION, EXAMPLE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"space": None}, InvalidInputError, "'space' parameter of verify must be a Space"),
        ({"small": None}, InvalidInputError, "'small' parameter of verify must be a torch.nn"),
        ({"model": SMALL, "small": NETWORK}, InvalidInputError, "traced from a wider network"),
        ({"small": network(4).to("meta")}, VerificationError, "has no values"),
        ({"example_inputs": (EXAMPLE, EXAMPLE)}, VerificationError, "does not run"),
        ({"tolerance": "x"}, InvalidInputError, "'tolerance' parameter of verify"),
        ({"tolerance": None}, InvalidInputError, "'tolerance' parameter of verify"),
        ({"tolerance": float("nan")}, InvalidInputError, "'tolerance' parameter of verify"),
        ({"tolerance": -1}, InvalidInputError, "'tolerance' parameter of verify"),
    ],
)
def test_verify(change: dict[str, Any], error: type[Exception], message: str) -> None:
    sound = {"model": NETWORK, "small": SMALL, "space": SPACE, "selection": SELECTION,
             "example_inputs": EXAMPLE}  # fmt: skip
    with pytest.raises(error, match=message):
        rp.verify(**{**sound, **change})


@pytest.mark.parametrize("given", [None, "x", nn.Conv2d, SMALL.state_dict()])
def test_save_takes_networks(given: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'network' parameter of save must be"):
        rp.save(given, tmp_path / "a.safetensors")


@pytest.mark.parametrize("path", [None, 3, b"s", ["a"]])
def test_paths_are_texts(path: Any) -> None:
    for call in (lambda: rp.save(SMALL, path), lambda: rp.load(path, model=NETWORK)):
        with pytest.raises(InvalidInputError, match="'path' parameter"):
            call()
    with pytest.raises(InvalidInputError, match="'path' parameter holds a NUL"):
        rp.save(SMALL, "a\0b")


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_path_names_a_file(path: str) -> None:
    with pytest.raises(RandpruneError):
        rp.save(SMALL, path)


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    """As root, a file would take the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(rp.StorageError, match="it is there and no regular file"):
        write_file(pipe, b"x")
    (tmp_path / "link").symlink_to(pipe)
    with pytest.raises(rp.StorageError, match="no regular file"):
        write_file(tmp_path / "link", b"x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", "link"}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_no_example() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(3, 8, 8)])
    with pytest.raises(RandpruneError, match="nested"):
        rp.trace(network(), nested)
