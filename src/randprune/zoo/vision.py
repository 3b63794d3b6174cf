"""The only place that imports torchvision, and timm, which imports it.

PyPI's torchvision beside a CPU-only torch cannot load its compiled operators, and then fails at
import because it attaches shape functions to two operators that nobody declared. Declaring their
schemas is enough: none of the classification networks calls them.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from randprune.errors import InvalidInputError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_BLOCK = 256
FloatArray = npt.NDArray[np.float64]
# A library's declarations disappear with the object, so it lives as long as the process.
_declarations: list[Any] = []


def torchvision() -> ModuleType:
    """The torchvision package, imported; `torchvision().models.resnet50` and so on.

    Raises:
        InvalidInputError: torchvision is missing or cannot be imported.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise _unavailable("torchvision", error) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise _unavailable("torchvision", error) from error
    # The real operators take precedence: this is reached only where they did not load.
    _declare_missing_operators()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    try:
        package = importlib.import_module("torchvision")
    except RuntimeError as error:
        raise _unavailable("torchvision", error) from error
    # It refuses to call an operator of which its own library did not load.
    boxes: Any = importlib.import_module("torchvision.ops.boxes")
    boxes._assert_has_ops = lambda: None
    return package


def timm() -> ModuleType:
    """The timm package, imported after torchvision, which it needs.

    Raises:
        InvalidInputError: timm or torchvision is missing or cannot be imported.
    """
    torchvision()
    if find_spec("timm") is None:
        raise InvalidInputError("timm is not installed: pip install 'randprune[timm]'.")
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise _unavailable("timm", error) from error


def _declare_missing_operators() -> None:
    make_library: Any = torch.library.Library  # untyped upstream
    library = make_library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        library.impl("nms", suppress_overlaps, "CPU")
    _declarations.append(library)


def suppress_overlaps(boxes: torch.Tensor, scores: torch.Tensor, limit: float) -> torch.Tensor:
    """Indices of the boxes that non-maximum suppression keeps, int64, by falling score.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,); of equal scores the first box wins.
        limit: a box that overlaps a kept one by more (intersection over union) is dropped.
    """
    order = np.argsort(-scores.detach().double().numpy(), kind="stable")
    corners = boxes.detach().double().numpy()[order]
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(order), _BLOCK):  # in blocks: no matrix of N times N
        block = np.arange(start, min(start + _BLOCK, len(order)))
        apart = _overlaps(corners[block], corners[kept]) <= limit
        alive: npt.NDArray[np.bool_] = np.logical_and.reduce(apart, axis=1)
        clash = _overlaps(corners[block], corners[block]) > limit
        for row in range(len(block)):
            if alive[row]:
                alive[row + 1 :] &= ~clash[row, row + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return torch.from_numpy(order[kept].astype(np.int64))


def _overlaps(first: FloatArray, second: FloatArray) -> FloatArray:
    """Intersection over union of every box of `first` with every one of `second`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    ratios: FloatArray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratios


def _unavailable(package: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"{package} cannot be imported: {error}. Install the release that belongs to "
        f"torch {torch.__version__}."
    )
