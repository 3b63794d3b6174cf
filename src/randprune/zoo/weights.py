"""Weights from files into networks, checked, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from randprune.errors import WeightsError

__all__ = ["load_weights", "weights_hash"]

_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")
_SHOWN = 5
# A checkpoint may wrap its weights a few times; one that holds itself never ends.
_DEEPEST = 8


def load_weights(model: nn.Module, path: str | Path, strict: bool = True) -> nn.Module:
    """`model` itself, its parameters and buffers replaced by those in the file.

    This is the one function of the package that changes the module it is given: loading is its
    purpose. Nothing is changed where it raises.

    Args:
        model: the network; its tensors keep their dtype and device (float16 weights are upcast).
        path: .safetensors, or .pt / .pth / .bin, read with `weights_only`, so that no code in the
            file can run. A checkpoint that wraps its weights ({"state_dict": ...}) and the prefix
            "module." of data-parallel training are unwrapped.
        strict: raise for missing and unexpected keys (batch norm's counter `num_batches_tracked`
            may be missing); otherwise load what fits by name. Shapes must agree in both cases.

    Raises:
        WeightsError: unreadable, unsafe, not finite, or not fitting weights; names the keys.
    """
    path = Path(path).expanduser()
    given = _unwrap(read_weights(path), path)
    own = model.state_dict()

    problems = []
    wrong = [
        f"{key} (file {tuple(given[key].shape)}, model {tuple(own[key].shape)})"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if wrong:
        problems.append(_listing("misshaped", wrong))
    # Absent where old checkpoints predate it; it plays no part in inference.
    missing = [k for k in own if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    if strict:
        problems += [_listing("missing", missing)] if missing else []
        problems += [_listing("unexpected", unexpected)] if unexpected else []
    elif len(unexpected) == len(given):
        problems.append(f"none of its {len(given)} keys is one of the model's")
    if problems:
        raise WeightsError(
            f"The weights in {path} do not fit {type(model).__name__}: {'; '.join(problems)}. "
            "Check the model's name, its number of classes and its input channels."
        )
    # What is not the model's may be of any size and kind: it is never looked at.
    wanted = {key: value for key, value in given.items() if key in own}
    _check_kinds(wanted, own, path)
    _check_finite(wanted, own, path)
    model.load_state_dict(wanted, strict=False)
    return model


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a weights file, on the CPU, as stored.

    Raises:
        WeightsError: the file is missing, corrupt, of unknown kind, or holds pickled code.
    """
    if "\0" in str(path) or not path.exists():
        raise WeightsError(f"The weights file {str(path).replace(chr(0), '?')} does not exist.")
    if not path.is_file():  # a device or a pipe might never end
        raise WeightsError(f"The weights file {path} is not a regular file.")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except Exception as error:  # safetensors and torch raise many kinds for damaged files
            raise WeightsError(
                f"The weights file {path} is corrupt or truncated: {error}. Fetch it again."
            ) from error
    if path.suffix not in (".pt", ".pth", ".bin"):
        raise WeightsError(
            f"Weights are read from .safetensors, .pt, .pth or .bin. Got {path.name!r} instead."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"The weights file {path} holds pickled objects other than tensors, or is corrupt; it "
            f"is not read because such objects can run code ({_first_line(error)}). Save "
            "model.state_dict() instead of the model, best as .safetensors."
        ) from error
    except Exception as error:
        # PyTorch reports damaged archives as RuntimeError, EOFError, KeyError, OSError, ...
        raise WeightsError(
            f"The weights file {path} is corrupt or truncated: {_first_line(error)}. "
            "Fetch it again."
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"The weights file {path} must hold a state dict. Got {type(content).__name__} instead."
        )
    return dict(content)


def weights_hash(model: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of the state dict, as 64 hex digits."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _unwrap(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors by name, without wrappers and without the prefix "module."."""
    for _ in range(_DEEPEST):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    else:
        raise WeightsError(
            f"The weights file {path} wraps its weights more than {_DEEPEST} times, or holds "
            "itself. Save model.state_dict()."
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(
            f"The weights file {path} holds no tensors; its keys are "
            f"{sorted(map(str, content))[:_SHOWN]}."
        )
    if all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _check_kinds(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Raise where a tensor has no plain values, or other numbers than the model's."""
    bad = [
        f"{key} ({problem})"
        for key, value in tensors.items()
        if (problem := _problem(value, own[key]))
    ]
    if bad:
        raise WeightsError(
            f"The weights in {path} cannot be taken as they are: {_listing('affected', bad)}. "
            "Save model.state_dict() with plain dense tensors, on the CPU."
        )


def _problem(given: Tensor, own: Tensor) -> str:
    if given.is_meta:
        return "on the meta device, without values"
    if given.layout is not torch.strided:
        return str(given.layout).removeprefix("torch.")
    if given.is_quantized:
        return "quantized"
    # Complex numbers would lose a part, integers are quantised weights without their scale.
    loses = given.is_complex() and not own.is_complex()
    if loses or (own.is_floating_point() and not given.is_floating_point()):
        return f"{given.dtype}, the model has {own.dtype}".replace("torch.", "")
    return ""


def _check_finite(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Raise where a value is not finite, also after the cast to the model's dtype."""
    bad = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value.to(own[key].dtype)).all())
    ]
    if bad:
        raise WeightsError(
            f"The weights in {path} hold NaN or infinite values: {_listing('affected', bad)}. "
            "The file was saved from a diverged training or is damaged."
        )


def _listing(what: str, keys: list[str]) -> str:
    more = ", ..." if len(keys) > _SHOWN else ""
    return f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{more}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
