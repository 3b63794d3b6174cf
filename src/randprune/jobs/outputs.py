"""Whether a trained network's outputs mean what the labels of the images mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from randprune.errors import InvalidInputError
from randprune.evaluate.inference import logits_of
from randprune.graph.program import evaluation_mode
from randprune.zoo.data import Data
from randprune.zoo.sources import FOLDER_ORDER


def check_outputs(model: nn.Module, data: Data, example: Tensor) -> None:
    """Refuse image folders that were numbered 0, 1, ... for a network that knows more classes.

    A network of 1,000 classes on folders of ten of them would be taken for a very bad one.

    Args:
        model: the trained network; left untouched.
        data: the images.
        example: one batch.

    Raises:
        InvalidInputError: the network has more outputs than there are folders, and no list says
            which output is which folder; or it returns no logits.
    """
    if data.provenance.get("labels") != FOLDER_ORDER:
        return
    with torch.no_grad(), evaluation_mode(model):
        outputs = logits_of(model(example), "The network").shape[1]
    if outputs > data.num_classes:
        raise InvalidInputError(
            f"The network tells {outputs} classes apart, {data.name} has {data.num_classes} class "
            "folders. If they are some of its classes, say which: a JSON file with the names of "
            f"all {outputs} folders in the order of the network's outputs, as data.options.classes "
            "(--set data.options.classes=FILE). Otherwise use a network with "
            f"{data.num_classes} outputs."
        )
