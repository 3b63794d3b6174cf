"""What several scripts say of a network, and of figures by seed."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import nn

from randprune.zoo import Split


@torch.inference_mode()
def correct(network: nn.Module, split: Split) -> int:
    """Right answers on the images of a split."""
    network.eval()
    return sum(int((network(x).argmax(1) == y).sum()) for x, y in split.batches(100))


def interval(values: np.ndarray, digits: int = 2, signed: bool = True) -> str:
    """The mean with Student's 95 % interval over seeds, where there are several."""
    form = f"{'+' if signed else ''}.{digits}f"
    mean = f"{values.mean():{form}}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean} ({values.mean() - half:{form}} to {values.mean() + half:{form}})"
