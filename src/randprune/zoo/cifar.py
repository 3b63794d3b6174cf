"""Networks for small images, written so that every channel can be cut.

No `forward` holds a number of channels: shapes come from tensors at run time. All weights start
from PyTorch's global generator, so that `torch.manual_seed` before a constructor makes it
deterministic: batch norms 1 and 0; ResNets N(0, 2 / fan-in) for convolutions and linear layers
(He et al. 2015), as in the published checkpoints' code; VGG and MobileNetV2 N(0, 2 / fan-out) for
convolutions and N(0, 0.01^2) without bias for linear layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ZeroPadShortcut(nn.Module):
    """Every second pixel of the input, with zero channels before and after (option A of ResNet).

    The zeros are expanded from two buffers of shape (1, channels, 1, 1), not padded by a constant,
    so that pad channels are channels of tensors and can be cut like any others; either buffer may
    end up with none. They are not in the state dict: published checkpoints have no such keys.
    The result has the dtype of the images, also under autocast.
    """

    before: Tensor
    after: Tensor

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.register_buffer("before", torch.zeros(1, before, 1, 1), persistent=False)
        self.register_buffer("after", torch.zeros(1, after, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, before + C + after, ceil(H / 2), ceil(W / 2))."""
        images = images[:, :, ::2, ::2]
        batch, _, height, width = images.shape
        zeros = (self.before.to(images.dtype), self.after.to(images.dtype))
        before, after = (z.expand(batch, -1, height, width) for z in zeros)
        return torch.cat([before, images, after], dim=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a parameter-free shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            before = (channels - in_channels) // 2
            self.shortcut = ZeroPadShortcut(before, channels - in_channels - before)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(images)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + self.shortcut(images))


class CifarResNet(nn.Module):
    """The CIFAR ResNet of He et al. (CVPR 2016) with 6 * `blocks` + 2 layers and option A.

    Keys of the state dict: `conv1 bn1 layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2} linear`, those of
    akamaster/pytorch_resnet_cifar10.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(blocks, widths[0], widths[0], 1)
        self.layer2 = _stage(blocks, widths[0], widths[1], 2)
        self.layer3 = _stage(blocks, widths[1], widths[2], 2)
        self.linear = nn.Linear(widths[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        out = torch.relu(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


class CifarVGG(nn.Module):
    """VGG-16 with batch norm in its usual CIFAR form: 13 convolutions and one linear layer.

    Images need at least 32 x 32 pixels: there are five halvings.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for widths in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
            for channels in widths:
                layers += _conv_norm(in_channels, channels, 3, 1, 1, nn.ReLU)
                in_channels = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(in_channels, num_classes)
        _initialise_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.classifier(self.pool(self.features(images)).flatten(1))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise (3x3) and projection (1x1); a shortcut where shapes allow."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers = _conv_norm(in_channels, hidden, 1, 1, 1, nn.ReLU6) if expansion != 1 else []
        layers += _conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6)
        layers += _conv_norm(hidden, channels, 1, 1, 1, None)
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        out: Tensor = self.conv(images)
        return images + out if self.residual else out


class CifarMobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. CVPR 2018) with the strides of its CIFAR form.

    The first convolution and the second stage keep the resolution (in the ImageNet form both halve
    it), so that 32 x 32 images leave the last stage as 4 x 4.
    """

    # expansion, channels, blocks, stride of the first block
    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        width = 32
        layers = _conv_norm(in_channels, width, 3, 1, 1, nn.ReLU6)
        for expansion, channels, blocks, first_stride in self._STAGES:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(width, channels, stride, expansion))
                width = channels
        layers += _conv_norm(width, 1280, 1, 1, 1, nn.ReLU6)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, num_classes)
        _initialise_fan_out(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_channels, H, W)."""
        return self.classifier(self.pool(self.features(images)).flatten(1))  # type: ignore[no-any-return]


def digits_cnn(num_classes: int = 10, in_channels: int = 1) -> CifarResNet:
    """The residual network of 14 layers for the 8 x 8 digits: ResNet-14, one input channel."""
    return CifarResNet(2, num_classes, in_channels)


def _conv_norm(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int,
    groups: int,
    activation: type[nn.Module] | None,
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(channels)]
    return [*layers, activation()] if activation else layers


def _initialise_fan_out(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
