"""Small networks whose cut channels are redundant, so that a right repair restores the outputs.

`twins` makes channel 2k+1 of a layer a copy of channel 2k (filters, batch norm, bias). Whatever
reads them can do without the copies: after cutting these, least squares must give the dense
network's outputs back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import randprune as rp
from randprune.space import Selection, Space


def images(count: int = 24, size: int = 8, seed: int = 0) -> Tensor:
    """Random images, (count, 3, size, size)."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Chain(nn.Module):
    """conv - bn - relu - conv (stride 2) - bn - relu - conv (dilated, bias) - pool - linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.a_norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False)
        self.b_norm = nn.BatchNorm2d(6)
        self.c = nn.Conv2d(6, 10, 3, padding=2, dilation=2)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a_norm(self.a(x)))
        x = F.relu(self.b_norm(self.b(x)))
        return self.head(F.relu(self.c(x)).mean((2, 3)))


class Bare(nn.Module):
    """No norms; a convolution without a bias; a linear layer that reads 4 x 4 places flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.b(F.relu(self.a(x)))), 2)
        return self.head(x.flatten(1))


class Concat(nn.Module):
    """One layer reads channels of two groups and of the input image at once."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(3, 6, 1)
        self.both = nn.Conv2d(17, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([F.relu(self.a(x)), x, F.relu(self.b(x))], dim=1)
        return self.head(F.relu(self.both(joined)).mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution between plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.b_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.a(x)))
        return self.head(F.relu(self.b_norm(self.b(x))).mean((2, 3)))


class Inverted(nn.Module):
    """Two inverted residual blocks with depthwise convolutions and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 16, 1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU6(),
                nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU6(),
                nn.Conv2d(16, 8, 1, bias=False),
                nn.BatchNorm2d(8),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


class Residual(nn.Module):
    """Three basic residual blocks; the second has a convolution in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(8, 12, 3, padding=1, bias=False) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(3))
        self.second = nn.ModuleList(nn.Conv2d(12, 8, 3, padding=1, bias=False) for _ in range(3))
        self.ends = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for i in range(3):
            y = F.relu(self.norms[i](self.first[i](x)))
            y = self.ends[i](self.second[i](y))
            x = F.relu(y + (self.shortcut(x) if i == 1 else x))
        return self.head(x.mean((2, 3)))


class Excited(nn.Module):
    """Squeeze-and-excitation: a layer's inputs are multiplied by what two others make of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.a_norm = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 8, 1)
        self.up = nn.Conv2d(8, 16, 1)
        self.b = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.b_norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.a_norm(self.a(x)))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(F.relu(self.b_norm(self.b(x * gate))).mean((2, 3)))


class Upsampling(nn.Module):
    """Transposed convolutions, and a map as output."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.same = nn.ConvTranspose2d(12, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.b(F.relu(self.a(x))))))
        return self.last(F.relu(self.same(x)))


class NormedByGroups(nn.Module):
    """Norms that look at the image itself: over groups of channels, and over each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.a_norm = nn.GroupNorm(4, 16)
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.b_norm = nn.InstanceNorm2d(16, affine=True)
        self.c = nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b_norm(self.b(F.relu(self.a_norm(self.a(x))))))
        return self.head(F.relu(self.c(x)).mean((2, 3)))


class Written(nn.Module):
    """A value that two layers read is written over between them, in place or not.

    With `in_place` the forward pass means the same, but its graph has operators with side effects.
    """

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.in_place = in_place
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        out = self.b(x)
        x = F.relu(x, inplace=self.in_place)
        y = self.c(F.relu(out + x))
        return self.head(F.relu(y).mean((2, 3)))


NETWORKS: tuple[Callable[[], nn.Module], ...] = (
    Chain, Bare, Concat, Grouped, Inverted, Residual,
)  # fmt: skip


def build(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network with reproducible weights and batch-norm statistics, in evaluation mode."""
    torch.manual_seed(seed)
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            module.running_mean.normal_(0.0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def twins(network: nn.Module, space: Space, step: int = 2) -> Selection:
    """Make every odd channel of every group a copy of the even one before; keep the even ones."""
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    with torch.no_grad():
        for group in space.groups:
            for slot in group.slots:
                if slot.role == "in":
                    continue
                index = torch.from_numpy(slot.index)
                tensor = tensors[slot.tensor].movedim(slot.dim, 0)
                tensor[index[1::step].reshape(-1)] = tensor[index[0:-1:step].reshape(-1)]
    kept = tuple(group.slots[0].index[:, 0].argsort()[::step] for group in space.groups)
    return Selection(kept, space.fingerprint)


def random_selection(space: Space, keep: float = 0.6, seed: int = 0) -> Selection:
    """Random channels of every group."""
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(group.width, generator=generator) for group in space.groups]
    return rp.select(space, scores, [max(1, round(keep * g.width)) for g in space.groups])


def traced(network: nn.Module, **options: object) -> Space:
    """The space of a network of this file."""
    return rp.trace(network, images(1), **options)  # type: ignore[arg-type]
