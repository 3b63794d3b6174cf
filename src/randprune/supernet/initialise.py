"""Fresh weights for a network of any width, by one rule for all networks of a comparison.

A constructor's own initialisation cannot be used: it draws for the original widths only, and its
scale would be wrong at others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


def initialise(network: nn.Module, seed: int) -> nn.Module:
    """Draw all weights anew, in place, and return the network.

    Convolutions: N(0, 2 / fan-in) and bias 0 (He et al. 2015). Every other layer: what its
    `reset_parameters` does (norms: 1 and 0, statistics as new). Parameters of layers without one
    keep the values that they have. The global random state is left as it is.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(module, _ConvNd):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return network
