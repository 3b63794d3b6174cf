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

import torch

from randprune.errors import InvalidInputError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
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
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        raise _unavailable("torchvision", error) from error


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
    _declarations.append(library)


def _unavailable(package: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"{package} cannot be imported: {error}. Install the release that belongs to "
        f"torch {torch.__version__}."
    )
