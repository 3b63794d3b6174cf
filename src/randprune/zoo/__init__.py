"""Models, weights and images: where they come from."""

from randprune.zoo.data import (
    Data as Data,
)
from randprune.zoo.data import (
    Split as Split,
)
from randprune.zoo.data import (
    as_data as as_data,
)
from randprune.zoo.data import (
    in_memory as in_memory,
)
from randprune.zoo.data import (
    load_data as load_data,
)
from randprune.zoo.models import (
    build_model as build_model,
)
from randprune.zoo.models import (
    list_models as list_models,
)
from randprune.zoo.weights import (
    load_weights as load_weights,
)
from randprune.zoo.weights import (
    weights_hash as weights_hash,
)
