"""Networks of other packages, by name: built with random weights, and how they are traced.

A name is `package:network`. Everything is built from configurations; nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

_RCNN = ("backbone", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor")
_MASKS = (*_RCNN, "roi_heads.mask_head", "roi_heads.mask_predictor")
_KEYPOINTS = (*_RCNN, "roi_heads.keypoint_head", "roi_heads.keypoint_predictor")
_ONE_STAGE = ("backbone", "head")


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with what it is traced on.

    `within`, `outputs`: as in `randprune.trace`; None and () trace it as a whole.
    """

    model: Any
    inputs: tuple[Any, ...]
    within: tuple[str, ...] = ()
    outputs: Callable[[Any], Any] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What `randprune.trace` gets."""
        return {"within": self.within} if self.within else {"outputs": self.outputs}


@dataclass(frozen=True)
class Entry:
    """One line of the matrix: which kind of network, and what builds it."""

    kind: str
    build: Callable[[], Subject] = field(repr=False)


def _image(size: int, channels: int = 3, depth: int | None = None) -> Any:
    import torch

    shape = (1, channels, size, size) if depth is None else (1, channels, depth, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def without_maps(outputs: Any) -> Any:
    """The outputs without the feature maps that a YOLO's head was given."""
    if isinstance(outputs, dict):
        return {key: without_maps(value) for key, value in outputs.items() if key != "feats"}
    if isinstance(outputs, tuple | list):
        return [without_maps(value) for value in outputs]
    return outputs


def _yolo(name: str) -> Subject:
    from randprune.zoo.vision import torchvision

    torchvision()  # ultralytics needs it, and cannot import it everywhere
    from ultralytics import YOLO

    network = YOLO(f"{name}.yaml", verbose=False).model.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return Subject(network, (_image(128),), outputs=without_maps)


def _detector(name: str, parts: tuple[str, ...], size: int) -> Subject:
    from randprune.zoo.vision import torchvision

    make = getattr(torchvision().models.detection, name)
    options = {"min_size": size, "max_size": size} if size != 300 else {}
    if "rcnn" in name:
        # So few proposals that a pass of the heads fits; how many does not change what is cut.
        options |= {"rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 20}
    network = make(weights=None, weights_backbone=None, num_classes=5, **options).eval()
    return Subject(network, ([_image(size)[0].abs()],), within=parts)


def _tv(name: str, inputs: Any, **options: Any) -> Subject:
    from randprune.zoo.vision import torchvision

    network = torchvision().models.get_model(name, weights=None, **options)
    return Subject(network.eval(), (inputs,))


def _smp(name: str, encoder: str) -> Subject:
    from randprune.zoo.vision import timm

    timm()
    import segmentation_models_pytorch as smp

    network = getattr(smp, name)(encoder_name=encoder, encoder_weights=None, classes=4)
    return Subject(network.eval(), (_image(128),))


def _monai(name: str, dimensions: int, **options: Any) -> Subject:
    import monai.networks.nets as nets

    network = getattr(nets, name)(spatial_dims=dimensions, in_channels=1, **options)
    inputs = _image(64, channels=1) if dimensions == 2 else _image(32, channels=1, depth=32)
    return Subject(network.eval(), (inputs,))


def _transformers(name: str, config: str, inputs: Any, **options: Any) -> Subject:
    from randprune.zoo.vision import timm

    timm()
    import transformers

    network = getattr(transformers, name)(getattr(transformers, config)(**options))
    return Subject(network.eval(), (inputs,))


def _waveform(samples: int, axes: int) -> Any:
    import torch

    shape = (1, samples) if axes == 2 else (1, 1, samples)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _m5() -> Subject:
    """The 1-D network M5 of Dai et al. (2017) for raw audio at 8 kHz."""
    from torch import nn

    def block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
        layer = nn.Conv1d(inputs, outputs, kernel, stride=stride)
        return [layer, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]

    blocks = [*block(1, 32, 80, 16), *block(32, 32, 3, 1), *block(32, 64, 3, 1)]
    head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10)]
    return Subject(nn.Sequential(*blocks, *head).eval(), (_waveform(8000, 3),))


def _entries() -> dict[str, Entry]:
    found: dict[str, Entry] = {}

    def add(kind: str, name: str, function: Callable[..., Subject], *args: Any, **kw: Any) -> None:
        found[name] = Entry(kind, lambda: function(*args, **kw))

    for name in ("yolov5n", "yolov8n", "yolo11n"):
        add("ultralytics, detection", f"ultralytics:{name}", _yolo, name)
    for task, kind in (("seg", "segmentation"), ("pose", "pose"), ("cls", "classification")):
        for name in ("yolov8n", "yolo11n"):
            whole = f"{name}-{task}"
            add(f"ultralytics, {kind}", f"ultralytics:{whole}", _yolo, whole)
    for name, parts, size in (
        ("fasterrcnn_resnet50_fpn", _RCNN, 128),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", _RCNN, 128),
        ("maskrcnn_resnet50_fpn", _MASKS, 128),
        ("keypointrcnn_resnet50_fpn", _KEYPOINTS, 128),
        ("retinanet_resnet50_fpn", _ONE_STAGE, 128),
        ("fcos_resnet50_fpn", _ONE_STAGE, 128),
        ("ssd300_vgg16", _ONE_STAGE, 300),
        ("ssdlite320_mobilenet_v3_large", _ONE_STAGE, 300),
    ):
        add("torchvision, detection", f"tv:{name}", _detector, name, parts, size)
    for name in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        options = {"weights_backbone": None, "num_classes": 4}
        add("torchvision, segmentation", f"tv:{name}", _tv, name, _image(128), **options)
    for name, encoder in (
        ("Unet", "resnet18"),
        ("UnetPlusPlus", "resnet18"),
        ("MAnet", "resnet18"),
        ("Linknet", "mobilenet_v2"),
        ("FPN", "resnet18"),
        ("PSPNet", "resnet18"),
        ("PAN", "resnet18"),
        ("DeepLabV3Plus", "mobilenet_v2"),
    ):
        add("segmentation-models-pytorch", f"smp:{name}-{encoder}", _smp, name, encoder)
    unet = {"out_channels": 2, "channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 2}
    add("MONAI", "monai:UNet-2d", _monai, "UNet", 2, **unet)
    add("MONAI", "monai:UNet-3d", _monai, "UNet", 3, **unet)
    add("MONAI", "monai:SegResNet-3d", _monai, "SegResNet", 3, out_channels=2)
    add("MONAI", "monai:DenseNet121-3d", _monai, "DenseNet121", 3, out_channels=2)
    for name, config in (
        ("ResNetForImageClassification", "ResNetConfig"),
        ("ConvNextForImageClassification", "ConvNextConfig"),
        ("MobileNetV2ForImageClassification", "MobileNetV2Config"),
        ("RegNetForImageClassification", "RegNetConfig"),
        ("SegformerForSemanticSegmentation", "SegformerConfig"),
    ):
        add("Hugging Face", f"hf:{name}", _transformers, name, config, _image(128))
    add("torchvision, video", "tv:r3d_18", _tv, "r3d_18", _image(32, depth=8))
    add("torchvision, video", "tv:mc3_18", _tv, "mc3_18", _image(32, depth=8))
    add("audio", "audio:M5", _m5)
    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 96, "conv_dim": (32,) * 7, "num_conv_pos_embedding_groups": 4,
             "num_conv_pos_embeddings": 16}  # fmt: skip
    add(
        "audio", "hf:Wav2Vec2ForSequenceClassification", _transformers,
        "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", _waveform(8000, 2), **small,
    )  # fmt: skip
    return found


ENTRIES = _entries()


def build(name: str, seed: int = 0) -> Subject:
    """A network with random weights of this seed."""
    import torch

    torch.manual_seed(seed)
    return ENTRIES[name].build()
