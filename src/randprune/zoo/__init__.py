"""Models, weights and images: where they come from."""

from randprune.zoo.data import Data, Split, as_data, in_memory, load_data
from randprune.zoo.models import build_model, list_models
from randprune.zoo.weights import load_weights, weights_hash

__all__ = [
    "Data",
    "Split",
    "as_data",
    "build_model",
    "in_memory",
    "list_models",
    "load_data",
    "load_weights",
    "weights_hash",
]
