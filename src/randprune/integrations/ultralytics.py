"""YOLO models of the package ultralytics: pruned here, trained and used with its own tools.

    from ultralytics import YOLO
    from randprune.integrations import ultralytics as rp_yolo

    small = rp_yolo.prune(YOLO("best.pt"), "data.yaml", budget=0.5, finetune={"epochs": 50})
    small.val(data="data.yaml"); small.export(format="onnx"); small.save("small.pt")

What comes back is a `YOLO`, whose network is an ordinary one of ultralytics with fewer channels:
files that its trainer writes load where randprune is not installed. Its `train` keeps the pruned
network; a plain `YOLO("small.pt").train(...)` would build the dense one anew, so that such a file
is better opened with `load` here.

The detection head's inputs are cut too: the feature maps that a network returns beside its
predictions are read by nobody. The last layers of the head, and whatever training's loss reads,
stay as they are.

ultralytics is licensed under the AGPL-3.0, and no dependency of randprune: install it yourself.

Known shortcomings: training runs on one device; fused models cannot be pruned.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from randprune.artifact import load as load_network, read_header, save as save_network
from randprune.cost import Budget
from randprune.errors import (
    ArtifactError,
    DataError,
    InvalidInputError,
    UnsupportedModelError,
    quoted,
)
from randprune.graph.program import in_mode, private_copy
from randprune.graph.trace import trace
from randprune.jobs.steps import FoundNetwork, SearchResult, search as search_widths
from randprune.lineage import plan_of
from randprune.space import Selection, Space
from randprune.surgery import cut, verify
from randprune.zoo.vision import torchvision

try:
    torchvision()  # before ultralytics, which fails where torchvision does not import by itself
    from ultralytics import YOLO
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.data.utils import check_cls_dataset, check_det_dataset
    from ultralytics.utils import DEFAULT_CFG, YAML
except ImportError as error:
    raise InvalidInputError(
        f"randprune.integrations.ultralytics needs the package ultralytics: {error}. It is "
        "licensed under the AGPL-3.0; install it with: pip install ultralytics"
    ) from error

_METADATA = "ultralytics"
_MAPS = "feats"  # where a head returns the maps that it was given
_FIXED = ".dfl."
IMAGES = 200
"""Training images that calibrate and rank, where no number is given."""


@dataclass(frozen=True, slots=True, eq=False)
class Pruning:
    """How a YOLO was pruned.

    Attributes:
        space: the channel groups of its dense network.
        selection: what was kept.
        macs: share of the dense network's MACs that remains.
        distance: of its outputs to the dense network's after a quick repair, 0 = none; None where
            it was loaded.
    """

    space: Space = field(repr=False)
    selection: Selection = field(repr=False)
    macs: float
    distance: float | None


class PrunedYOLO(YOLO):  # type: ignore[misc]
    """A `YOLO` whose `train` keeps its pruned network; all else is ultralytics' own."""

    pruning: Pruning

    def train(self, trainer: Any = None, **kwargs: Any) -> Any:
        """Train with ultralytics' trainer for the task, or a subclass of it, as `YOLO.train` does.

        Raises:
            InvalidInputError: several devices, or data with other classes than the network's.
        """
        device = kwargs.get("device")
        several = device.split(",") if isinstance(device, str) else device
        if isinstance(several, list | tuple) and len(several) > 1:
            raise InvalidInputError(
                f"A pruned YOLO trains on one device. Got device={device!r}; name one of them."
            )
        base = trainer or self._smart_load("trainer")
        return super().train(trainer=_keeping(base, self.model), **kwargs)


def _keeping(base: Any, network: nn.Module) -> Any:
    """The trainer class, with the given network instead of one built from its description."""

    class KeepingTrainer(base):  # type: ignore[misc]
        """Trains the network that it was made for."""

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            resumed = weights if isinstance(weights, nn.Module) and plan_of(weights) else network
            kept = in_mode(private_copy(resumed).float(), training=True)
            known, asked = len(_names(kept)), int(self.data["nc"])
            if known != asked:
                raise InvalidInputError(
                    f"The pruned network has {known} classes, the data {asked}. Train the dense "
                    "network on this data first, then prune it."
                )
            return _trainable(kept)

    return KeepingTrainer


def prune(
    yolo: Any,
    data: Any,
    budget: float | Budget = 0.5,
    *,
    finetune: int | Mapping[str, Any] | None = None,
    imgsz: int | None = None,
    images: int = IMAGES,
    **options: Any,
) -> PrunedYOLO:
    """A smaller `YOLO`: searched, cut, verified, repaired without labels, and fine-tuned if asked.

    Args:
        yolo: a trained `YOLO`, not fused; left as it is.
        data: the data's description as `yolo.train` takes it, or a tensor (N, C, H, W) in [0, 1].
        budget: the share of the MACs that remains, or a `Budget`.
        finetune: epochs, or a mapping of what `yolo.train` takes; None: no training.
        imgsz: side of the images in pixels; default: what the model was trained with.
        images: how many training images calibrate and rank.
        options: of `randprune.search`, such as `candidates`, `min_keep`, `round_to` and `seed`.

    Returns:
        A `PrunedYOLO`; `.pruning` says how it was made.

    Raises:
        InvalidInputError: no YOLO with a network of its own, a fused one, or wrong parameters.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        DataError: the data cannot be found, or has no images.
        VerificationError: the cut is not exact.
    """
    training = _training(finetune, data)
    found = search(yolo, data, budget, imgsz=imgsz, images=images, **options)
    small = found.yolo(found.result.best)
    if training is not None:
        small.train(**{"imgsz": found.imgsz, **training})
    return small


def search(
    yolo: Any,
    data: Any,
    budget: float | Budget = 0.5,
    *,
    imgsz: int | None = None,
    images: int = IMAGES,
    **options: Any,
) -> YoloSearch:
    """Ranked candidates and controls for a `YOLO`, nothing trained; arguments as in `prune`."""
    network = _network(yolo)
    size = imgsz or int(yolo.overrides.get("imgsz") or _args(network).get("imgsz") or 640)
    if isinstance(data, Tensor):
        pictures = data.float()
    else:
        pictures = calibration_images(yolo, data, size, images)
    example = torch.zeros_like(pictures[:1])
    dense = _trainable(in_mode(private_copy(network).float().cpu()))
    space = trace(_splitting(dense), example, outputs=_read)
    result = search_widths(_Raw(dense), pictures, budget, example_inputs=example, **options)
    _check_alike(space, result.space)
    return YoloSearch(yolo, dense, space, result, example, size)


@dataclass(frozen=True, slots=True, eq=False)
class YoloSearch:
    """What a search for a `YOLO` found.

    Attributes:
        dense: a copy of its network, in evaluation mode.
        space: the channel groups of `dense`.
        result: the candidates, whose networks wrap one like `dense`.
        example: an image of the size that costs are counted for.
        imgsz: its side in pixels.
    """

    source: Any = field(repr=False)
    dense: nn.Module = field(repr=False)
    space: Space = field(repr=False)
    result: SearchResult
    example: Tensor = field(repr=False)
    imgsz: int

    def yolo(self, found: FoundNetwork, recovery: str | None = None) -> PrunedYOLO:
        """The `YOLO` of a candidate or a control, verified, then repaired.

        Args:
            found: one of `result`.
            recovery: as in `FoundNetwork.network`: "none" for the cut alone.

        Raises:
            VerificationError: the cut is not exact.
        """
        selection = Selection(found.selection.kept, self.space.fingerprint)
        small = cut(self.dense, self.space, selection)
        verify(self.dense, small, self.space, selection, self.example)
        repaired = found.network(recovery).get_submodule("network").state_dict()
        if odd := sorted(repaired.keys() ^ small.state_dict().keys()):
            raise UnsupportedModelError(
                f"The repair added {len(odd)} tensors to the network, such as {odd[0]}, which "
                "ultralytics would not know. Use recovery='least_squares'."
            )
        small.load_state_dict(repaired)
        cost = self.space.cost("macs")
        share = float(cost(selection.widths)) / cost.dense
        return _wrapped(self.source, small, Pruning(self.space, selection, share, found.distance))


class _Raw(nn.Module):
    """The network with nothing but its raw predictions as outputs: what its loss reads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Logits by name for detectors, (B, classes) for classifiers."""
        outputs = self.network(images)
        return _read(outputs[-1] if isinstance(outputs, tuple | list) else outputs)


def _splitting(network: nn.Module) -> nn.Module:
    """A copy whose blocks run in the form that ultralytics exports: split by their own numbers.

    Traced in this form, a cut sets these numbers too; in the other form nobody reads them.
    """
    form = private_copy(network)
    for block in form.modules():
        if hasattr(block, "forward_split"):
            block.forward = block.forward_split  # type: ignore[assignment]
    return form


def _read(outputs: Any) -> Any:
    """The outputs without the feature maps that the head was given."""
    if isinstance(outputs, dict):
        return {key: _read(value) for key, value in outputs.items() if key != _MAPS}
    if isinstance(outputs, tuple | list):
        return [_read(value) for value in outputs]
    return outputs


def _check_alike(space: Space, wrapped: Space) -> None:
    """Both spaces have the same groups, so that a selection of one is one of the other."""
    ours = [(f"network.{group.name}", group.width) for group in space.groups]
    theirs = [(group.name, group.width) for group in wrapped.groups]
    if ours != theirs:
        odd = sorted({*ours} ^ {*theirs})
        raise UnsupportedModelError(
            f"The network's predictions and its raw predictions do not share their channel groups "
            f"({len(odd)} differ, such as {odd[0][0]!r}); this kind of head is not supported."
        )


def _network(yolo: Any) -> nn.Module:
    """The network of a `YOLO`, checked."""
    network = getattr(yolo, "model", None) if isinstance(yolo, YOLO) else None
    if not isinstance(network, nn.Module):
        raise InvalidInputError(
            "The 'yolo' parameter must be a YOLO with a PyTorch network, such as YOLO('best.pt'). "
            f"Got {type(yolo).__name__} instead."
        )
    if network.is_fused():  # type: ignore[operator]
        raise InvalidInputError(
            "The network is fused: its batch norms are gone, and it cannot be trained any more. "
            "Load it again from its file, and prune it before anything fuses it."
        )
    return network


def _trainable(network: nn.Module) -> nn.Module:
    """All weights train, in place, but the fixed projection of a head; files say that none do."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_FIXED not in name)
    return network


def _args(network: nn.Module) -> Mapping[str, Any]:
    args = getattr(network, "args", None) or {}
    return args if isinstance(args, Mapping) else vars(args)


def _names(network: nn.Module) -> Mapping[int, str]:
    """The classes' names by number."""
    names: Any = network.names
    return names if isinstance(names, Mapping) else dict(enumerate(names))


def _training(finetune: int | Mapping[str, Any] | None, data: Any) -> dict[str, Any] | None:
    """What `train` gets; None: nothing is trained."""
    if finetune is None or finetune == 0:
        return None
    if isinstance(finetune, Mapping):
        given = dict(finetune)
    elif isinstance(finetune, int) and not isinstance(finetune, bool) and finetune > 0:
        given = {"epochs": finetune}
    else:
        raise InvalidInputError(
            "The 'finetune' parameter of prune must be epochs or a mapping of what YOLO.train "
            f"takes. Got {quoted(finetune)} instead."
        )
    if isinstance(data, Tensor) and "data" not in given:
        raise InvalidInputError(
            "Fine-tuning needs labelled data: with a tensor as 'data', name it in 'finetune', "
            "such as {'data': 'data.yaml', 'epochs': 50}."
        )
    return given if isinstance(data, Tensor) else {"data": data, **given}


def calibration_images(yolo: Any, data: Any, imgsz: int, count: int) -> Tensor:
    """The first `count` training images in a fixed random order, (N, C, S, S) float32 in [0, 1].

    They are read and resized as ultralytics' validation does.

    Raises:
        DataError: the data cannot be found, or has no training images.
    """
    try:
        dataset = _dataset(yolo, data, imgsz)
    except (FileNotFoundError, SyntaxError, KeyError, AssertionError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"The data {data!r} cannot be used: {first}") from error
    order = np.random.default_rng(0).permutation(len(dataset))[:count]
    pictures = [torch.as_tensor(dataset[int(i)]["img"]) for i in order]
    if not pictures:
        raise DataError(f"The data {data!r} has no training images.")
    stacked = torch.stack(pictures)
    return stacked.float() / 255 if stacked.dtype == torch.uint8 else stacked.float()


def _dataset(yolo: Any, data: Any, imgsz: int) -> Any:
    config = get_cfg(DEFAULT_CFG, {"task": yolo.task, "imgsz": imgsz, "data": str(data)})
    if yolo.task == "classify":
        known = check_cls_dataset(data)
        return ClassificationDataset(known["train"], config, augment=False, prefix="train")
    known = check_det_dataset(data)
    return build_yolo_dataset(config, known["train"], 1, known, mode="val", rect=False)


def _wrapped(source: Any, network: nn.Module, pruning: Pruning) -> PrunedYOLO:
    """A `YOLO` of its own around the network, with the settings of `source`."""
    wrapped = PrunedYOLO.__new__(PrunedYOLO)
    nn.Module.__init__(wrapped)
    state = {key: value for key, value in vars(source).items() if not key.startswith("_")}
    state.pop("training", None)
    for key in ("model", "predictor", "trainer", "metrics", "ckpt", "ckpt_path", "pruning"):
        state.pop(key, None)
    wrapped.__dict__.update(copy.deepcopy(state))
    del wrapped.training  # YOLO asks its network
    for key in ("predictor", "trainer", "metrics", "ckpt_path"):
        setattr(wrapped, key, None)
    # A checkpoint that is set makes ultralytics train this very network.
    wrapped.ckpt = {"model": network}
    wrapped.model = network
    wrapped.pruning = pruning
    return wrapped


def save(yolo: Any, path: str | os.PathLike[str]) -> Path:
    """Write a pruned or dense `YOLO` to one .safetensors file in float32, without pickle.

    Raises:
        ArtifactError: the network was changed since the cut, such as by `fuse`.
        StorageError: the file cannot be written.
    """
    network = _network(yolo)
    about = {
        "task": yolo.task,
        "yaml": network.yaml,
        "names": {str(number): name for number, name in _names(network).items()},
        "imgsz": _args(network).get("imgsz"),
    }
    return save_network(network, path, metadata={_METADATA: about})


def load(path: str | os.PathLike[str]) -> Any:
    """The `YOLO` of a file: a .safetensors that `save` wrote, or a .pt of ultralytics.

    A pruned one comes back as a `PrunedYOLO`, whose `train` keeps its network. A .pt file holds
    pickled code: open only those that you trust.

    Raises:
        ArtifactError: the file is missing, damaged, or not a YOLO's.
    """
    file = Path(path)
    if file.suffix == ".safetensors":
        return _from_safetensors(file)
    if not file.is_file():
        raise ArtifactError(f"The file {file} does not exist. Check the path.")
    yolo = YOLO(str(file))
    plan = plan_of(yolo.model)
    if plan is None:
        return yolo
    return _wrapped(yolo, yolo.model, _pruning(yolo.model))


def _from_safetensors(file: Path) -> Any:
    about = read_header(file).metadata.get(_METADATA)
    if not isinstance(about, Mapping) or not {"task", "yaml", "names"} <= set(about):
        raise ArtifactError(
            f"The file {file} holds no YOLO. Load it with randprune.load, and write YOLO models "
            "with randprune.integrations.ultralytics.save."
        )
    with tempfile.TemporaryDirectory(prefix="randprune-") as folder:
        named = Path(str(about["yaml"].get("yaml_file", "model.yaml"))).name
        description = Path(folder) / (named if named.endswith((".yaml", ".yml")) else "model.yaml")
        YAML.save(description, dict(about["yaml"]))
        with torch.random.fork_rng(devices=[]):
            yolo = YOLO(str(description), task=str(about["task"]))
    network = load_network(file, model=yolo.model)
    network.names = {int(number): name for number, name in about["names"].items()}  # type: ignore[assignment]
    if about.get("imgsz"):
        yolo.overrides["imgsz"] = about["imgsz"]
    if plan_of(network) is None:
        yolo.model = network
        return yolo
    return _wrapped(yolo, network, _pruning(network))


def _pruning(network: nn.Module) -> Pruning:
    """What a network remembers of its cuts, relative to the first dense one."""
    plan = plan_of(network)
    assert plan is not None
    first, last = plan.steps[0].space, plan.steps[-1].space
    left = float(last.cost("macs")(plan.selection.widths)) / first.cost("macs").dense
    return Pruning(last, replace(plan.selection, fingerprint=last.fingerprint), left, None)
