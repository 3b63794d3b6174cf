"""Networks that are no networks, that are wrapped, or that cannot be cut at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attacked import EXAMPLE, QUICK, images, network
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import randprune as rp
from randprune.errors import InvalidInputError, UnsupportedModelError, WeightsError
from randprune.evaluate import inference_copy


class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def lazy() -> nn.Module:
    model = network()
    model[0] = nn.LazyConv2d(8, 3, padding=1)
    return model


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own quantisation is on its way out
        return torch.ao.quantization.quantize_dynamic(network(), {nn.Linear})


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: nn.Conv2d, InvalidInputError, r"Got the class Conv2d; make one first: Conv2d\("),
        (lambda: None, InvalidInputError, r"must be a torch.nn.Module. Got NoneType instead"),
        (lambda: len, InvalidInputError, r"Got builtin_function_or_method instead"),
        (lazy, InvalidInputError, r"layer '0' is lazy: the size of 0.weight is not known"),
        (quantised, UnsupportedModelError, r"layer '7' is quantised \(Linear\)"),
        (NoParameters, UnsupportedModelError, "NoParameters has no parameters"),
        (lambda: network().to("meta"), WeightsError, "0.weight lies on the meta device"),
    ],
)
def test_what_cannot_be_traced_is_refused_in_one_sentence(
    model: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rp.trace(model(), EXAMPLE)


def test_classes_are_refused_wherever_a_network_is_taken() -> None:
    model = network()
    space = rp.trace(model, EXAMPLE)
    calls: dict[str, Callable[[], object]] = {
        "score": lambda: rp.score(nn.Sequential, space, "l1"),  # type: ignore[arg-type]
        "cut": lambda: rp.cut(nn.Sequential, space, space.dense),  # type: ignore[arg-type]
        "verify": lambda: rp.verify(nn.Sequential, model, space, space.dense, EXAMPLE),  # type: ignore[arg-type]
    }
    for function, call in calls.items():
        with pytest.raises(InvalidInputError, match=f"'model' parameter of {function} must be a"):
            call()


def compiled(model: nn.Module) -> nn.Module:
    wrapped: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return wrapped


@pytest.mark.parametrize(
    "wrap", [compiled, nn.DataParallel, lambda model: nn.DataParallel(compiled(model))]
)
def test_wrappers_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    plain = network()
    space = rp.trace(plain, EXAMPLE)
    wrapped = wrap(plain)
    assert rp.trace(wrapped, EXAMPLE).to_json() == space.to_json()
    scores = rp.score(wrapped, space, "l1")
    selection = rp.select(space, scores, [group.width // 2 for group in space.groups])
    small = rp.cut(wrapped, space, selection)
    assert list(small.state_dict()) == list(plain.state_dict())
    assert rp.verify(wrapped, small, space, selection, EXAMPLE) < 1e-12
    assert isinstance(inference_copy(wrapped, EXAMPLE).network, nn.Sequential)


def test_a_parametrised_layer_keeps_its_batch_norm() -> None:
    """Its weight is computed in each pass: there is nowhere to put a folded one."""
    model = network()
    model[0] = parametrizations.weight_norm(model[0])
    copy = inference_copy(model, torch.randn(4, 3, 8, 8))
    assert copy.folded == ()
    with torch.no_grad():
        torch.testing.assert_close(copy.network(EXAMPLE), model.eval()(EXAMPLE))


class BakedBatch(nn.Module):
    """Its forward works with one image only."""

    def __init__(self) -> None:
        super().__init__()
        self.features = network()[:5]
        self.head = nn.Linear(8 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).reshape(1, 8 * 64))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: nn.Conv2d, InvalidInputError, "'model' parameter of prune must be a network"),
        (lazy, InvalidInputError, "layer '0' is lazy"),
        (quantised, UnsupportedModelError, "layer '7' is quantised"),
        (NoParameters, UnsupportedModelError, "no parameters"),
        (lambda: network().to("meta"), WeightsError, "0.weight lies on the meta device"),
        (BakedBatch, InvalidInputError, "BakedBatch runs on one image and not on two"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_one_sentence(
    model: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rp.prune(model(), images(), candidates=1, settings=QUICK)


def parametrised(layer: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = network()
    model[0] = layer(model[0])
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda: compiled(network()),
        lambda: nn.DataParallel(network()),
        lambda: parametrised(parametrizations.weight_norm),
        lambda: parametrised(parametrizations.spectral_norm),
    ],
)
def test_unusual_networks_are_pruned(model: Callable[[], nn.Module]) -> None:
    found = rp.prune(model(), images(), candidates=2, recovery="bn", settings=QUICK)
    assert found.model(EXAMPLE).shape == (1, 4)
