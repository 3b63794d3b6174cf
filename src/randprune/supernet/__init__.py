"""Weight sharing for pruning from scratch: one set of weights, every configuration a slice of it.

shared = Supernet(wide, widening_of(wide).wide)
step = SharedStep(pool, widest=..., options=SharedOptions(...))
trained = train(shared, data.full_train, recipe, step=step).model
small = trained.subnetwork(widths)
"""

from randprune.supernet.initialise import (
    initialise as initialise,
)
from randprune.supernet.network import (
    Supernet as Supernet,
    first_channels as first_channels,
)
from randprune.supernet.step import (
    SharedStep as SharedStep,
)
