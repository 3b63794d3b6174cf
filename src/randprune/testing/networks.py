"""Tiny networks that hold every way in which channels are tied, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

IMAGE_SHAPE = (3, 8, 8)
CLASSES = 5

Network = TypeVar("Network", bound=nn.Module)


class Normed(nn.Module):
    """Batch norms, a residual stage, a grouped convolution, and a linear layer after flattening.

    Groups: the stage of `stem` and `second`, whose channels go in pairs since a grouped convolution
    reads them; the inside of the block; the output of the grouped convolution, in pairs too, each
    channel on several columns of `hidden`; and `hidden`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.first = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 1)
        self.second_norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.hidden = nn.Linear(8 * 4, 6)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 8, 8) to logits (B, 5)."""
        stage = torch.relu(self.stem_norm(self.stem(images)))
        inside = torch.relu(self.first_norm(self.first(stage)))
        stage = torch.relu(stage + self.second_norm(self.second(inside)))
        maps = torch.relu(self.grouped(stage))
        maps = nn.functional.avg_pool2d(maps, 2)
        hidden = torch.relu(self.hidden(maps.flatten(1)))
        logits: Tensor = self.head(hidden)
        return logits


class Plain(nn.Module):
    """Two convolutions without norms or biases, average pooling, and a linear layer.

    Scaling the filters of one layer scales everything behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 7, 3, padding=1, bias=False)
        self.head = nn.Linear(7, CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 8, 8) to logits (B, 5)."""
        maps = torch.relu(self.second(torch.relu(self.first(images))))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


def seeded(make: Callable[[], Network], seed: int = 0) -> Network:
    """A network with random weights, norms and statistics; torch's own generator is untouched."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = make()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif tensor.ndim == 1:
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
            else:
                fan_in = tensor[0].numel()
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn * (2.0 / fan_in) ** 0.5)
    return model


def in_place(model: Network) -> Network:
    """`model` itself, with activations that overwrite their inputs, as most published networks do.

    Modules get `inplace=True`; calls of `torch.relu` and `functional.relu` become `torch.relu_`.
    Computes the same where nothing else reads what an activation overwrites.
    """
    for module in model.modules():
        if isinstance(vars(module).get("inplace"), bool):
            vars(module)["inplace"] = True
    vars(model)["forward"] = MethodType(_forward_in_place, model)
    return model


def _forward_in_place(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    with _InPlaceActivations():
        return type(model).forward(model, *args, **kwargs)


class _InPlaceActivations(TorchFunctionMode):
    """Calls the in-place form of the activations that have one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _IN_PLACE.get(func, func)(*args, **(kwargs or {}))


def _relu_in_place(images: Tensor, inplace: bool = True) -> Tensor:
    return torch.relu_(images)


_IN_PLACE: dict[Any, Callable[..., Any]] = {
    torch.relu: _relu_in_place,
    functional.relu: _relu_in_place,
}


def labelled_images(
    count: int = 12, batch_size: int = 8, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Batches of random images (B, 3, 8, 8) with labels of five classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((count, *IMAGE_SHAPE), generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return list(zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True))
