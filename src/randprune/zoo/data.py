"""Labelled images for pruning: what users have, or a named source, as a `Data`.

data = load_data("npz:DIR")            # or "digits", "imagefolder:DIR", "cifar10:DIR", ...
data = as_data({"train": (images, labels), "test": (images, labels)})
"""

from __future__ import annotations

from randprune.zoo.dataset import Data, make_data
from randprune.zoo.splits import Batch, ImageShape, Split, TensorSplit

__all__ = ["Batch", "Data", "ImageShape", "Split", "TensorSplit", "make_data"]
