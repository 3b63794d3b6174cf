"""Untrained networks by name: the package's own, torchvision's, timm's, or any importable callable.

    build_model("randprune:resnet56")            build_model("torchvision:resnet50")
    build_model("timm:mobilenetv3_large_100")    build_model("my.package:make_network", depth=3)

Nothing is downloaded: weights come from files (`randprune.zoo.weights`).
"""

from __future__ import annotations

import ast
import contextlib
import difflib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from randprune.errors import InvalidInputError, quoted
from randprune.imports import import_named
from randprune.zoo.cifar import CifarMobileNetV2, CifarResNet, CifarVGG, digits_cnn
from randprune.zoo.vision import timm, torchvision

__all__ = ["build_model", "list_models"]

# ResNet-N has 6 * blocks + 2 layers.
OWN_MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": partial(CifarResNet, 3),
    "resnet32": partial(CifarResNet, 5),
    "resnet44": partial(CifarResNet, 7),
    "resnet56": partial(CifarResNet, 9),
    "resnet110": partial(CifarResNet, 18),
    "vgg16_bn": CifarVGG,
    "mobilenet_v2": CifarMobileNetV2,
    "digits_cnn": digits_cnn,
}


def build_model(
    spec: str, num_classes: int | None = None, in_channels: int | None = None, **options: Any
) -> nn.Module:
    """A new network with random weights, in training mode; deterministic in `torch.manual_seed`.

    Args:
        spec: "randprune:NAME", "torchvision:NAME", "timm:NAME", or "package.module:callable",
            which is called with the other arguments and returns an `nn.Module`. Modules are also
            looked for in the current directory.
        num_classes: outputs; default: the network's own.
        in_channels: input channels; default: the network's own. torchvision's networks take three;
            for another number their first convolution is replaced by one like it.
        options: passed on to the constructor.

    Raises:
        InvalidInputError: an unknown or malformed name (with close matches), arguments that the
            constructor does not take, or a callable that returns no module.
    """
    source, separator, name = spec.partition(":")
    if not separator or not source or not name:
        matches = difflib.get_close_matches(spec, OWN_MODELS, n=1)
        hint = f" Did you mean 'randprune:{matches[0]}'?" if matches else _in_file(spec)
        raise InvalidInputError(
            f"A model is named randprune:NAME, torchvision:NAME, timm:NAME or "
            f"package.module:callable. Got {quoted(spec)} instead.{hint}"
        )
    for asked in ("pretrained", "weights"):
        if options.get(asked):
            raise InvalidInputError(
                f"build_model never downloads. Got {asked}={options[asked]!r}; leave it out and "
                "load a file with load_weights."
            )
    if num_classes is not None:
        options["num_classes"] = num_classes
    if source == "randprune":
        if name not in OWN_MODELS:
            raise _unknown(spec, OWN_MODELS)
        make = OWN_MODELS[name]
    elif source == "torchvision":
        return _build_torchvision(spec, name, in_channels, options)
    elif source == "timm":
        make = _timm_constructor(spec, name)
        return _call(
            spec, make, options if in_channels is None else {**options, "in_chans": in_channels}
        )
    else:
        make = _import_callable(spec, source, name)
    if in_channels is not None:
        options["in_channels"] = in_channels
    return _call(spec, make, options)


def list_models(source: str) -> list[str]:
    """The names that `build_model` knows of one source: "randprune", "torchvision" or "timm"."""
    if source == "randprune":
        return list(OWN_MODELS)
    if source == "torchvision":
        models = torchvision().models
        return sorted(models.list_models(module=models))
    if source == "timm":
        return sorted(timm().list_models())
    raise InvalidInputError(
        "The 'source' parameter of list_models must be randprune, torchvision or timm. "
        f"Got {quoted(source)} instead."
    )


def _build_torchvision(
    spec: str, name: str, in_channels: int | None, options: dict[str, Any]
) -> nn.Module:
    models = torchvision().models
    if name not in list_models("torchvision"):
        raise _unknown(spec, list_models("torchvision"))
    if name in ("googlenet", "inception_v3"):
        # Their default draws truncated normals for minutes, with a warning that it will change.
        options.setdefault("init_weights", False)
    make = partial(models.get_model, name, weights=None)
    model = _call(spec, make, options)
    if in_channels is not None:
        _replace_input(model, spec, in_channels)
    return model


def _timm_constructor(spec: str, name: str) -> Callable[..., nn.Module]:
    package = timm()
    architecture = name.partition(".")[0]
    if not package.is_model(architecture):
        raise _unknown(spec, package.list_models())
    return partial(package.create_model, name, pretrained=False)


def _in_file(name: str) -> str:
    """A hint at what makes networks in the file that a user named in place of a callable."""
    try:
        parts = [name] if name.endswith(".py") else name.split(".")
        path = Path(*parts).with_suffix(".py")
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return ""
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [node.name for node in body if isinstance(node, kinds) and node.name[0] != "_"]
    if not found:
        return ""
    module = ".".join(path.with_suffix("").parts)
    names = ", ".join(f"{module}:{each}" for each in found[:5])
    return f" The file {str(path)!r} is there; what makes the network in it may be: {names}."


def _import_callable(spec: str, module_name: str, name: str) -> Callable[..., nn.Module]:
    if module_name.endswith(".py"):
        dotted = ".".join(Path(module_name).with_suffix("").parts)
        raise InvalidInputError(
            f"The model {spec!r} names a file; name the module instead: {dotted}:{name}"
        )
    # A user's module may import torchvision itself: beside a CPU-only torch that needs help.
    with contextlib.suppress(InvalidInputError):
        torchvision()
    try:
        found: Any = import_named(module_name)
    except ImportError as error:
        raise InvalidInputError(
            f"The module of model {spec!r} cannot be imported: {error}. Install it, or run where "
            "it lies."
        ) from error
    for attribute in name.split("."):
        if not hasattr(found, attribute):
            raise _unknown(spec, [key for key in vars(found) if not key.startswith("_")])
        found = getattr(found, attribute)
    if not callable(found):
        raise InvalidInputError(f"The model {spec!r} is a {type(found).__name__}, not a callable.")
    return found  # type: ignore[no-any-return]


def _call(spec: str, make: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    try:
        model = make(**options)
    except TypeError as error:
        raise InvalidInputError(
            f"The model {spec!r} cannot be made with the options {sorted(options)}: {error}."
        ) from error
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            f"The model {spec!r} must give an nn.Module. Got {type(model).__name__} instead."
        )
    return model


def _replace_input(model: nn.Module, spec: str, in_channels: int) -> None:
    """Gives a torchvision network's first convolution another number of input channels."""
    convolutions = ((path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d))
    path, module = next(convolutions, (None, None))
    if path is None or module is None:
        raise InvalidInputError(f"The model {spec!r} has no convolution to take in_channels.")
    if module.in_channels == in_channels:
        return
    fresh = nn.Conv2d(
        in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
        module.dilation,  # type: ignore[arg-type]
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
    )
    model.set_submodule(path, fresh)


def _unknown(spec: str, names: Iterable[str]) -> InvalidInputError:
    source, _, name = spec.partition(":")
    matches = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    hint = f" Close: {', '.join(f'{source}:{match}' for match in matches)}." if matches else ""
    return InvalidInputError(f"Unknown model {spec!r}.{hint}")
