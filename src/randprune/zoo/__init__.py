"""Models, weights and images: where they come from."""

from randprune.zoo.data import (
    Data as Data,
    Split as Split,
    as_data as as_data,
    in_memory as in_memory,
    load_data as load_data,
)
from randprune.zoo.models import (
    build_model as build_model,
    list_models as list_models,
)
from randprune.zoo.weights import (
    load_weights as load_weights,
    weights_hash as weights_hash,
)
