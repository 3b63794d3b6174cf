"""The latency table against truth, and budgets of latency against what they achieve.

    python benchmarks/latency.py OUT.json NETWORK [--runtime onnxruntime] [--step 8] [--count 30]

For one network: how long the cost takes to build, the first and the second time; its predictions
and measurements of random configurations that it was not fitted on; and what configurations of half
of the latency take. Every measurement is a share of the dense network's, which ran beside it, from
the fastest run of each kernel where the runtime profiles, else the fastest run. Rows are written as
they come. `python benchmarks/latency_page.py` makes the page of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import randprune as rp
from randprune.errors import InfeasibleBudgetError
from randprune.latency import Setting, latency_cost, paired_ms, runtimes
from randprune.latency.build import inputs_for, network_of
from randprune.provenance import provenance
from randprune.zoo.models import build_model

BUDGETS = (0.3, 0.5, 0.7)


class UNet(nn.Module):
    """Three levels down and up, 32 to 256 channels, batch norm and ReLU."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(
            self._block(a, b) for a, b in zip([3, *sizes[:-1]], sizes, strict=True)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(sizes))
        self.merge = nn.ModuleList(self._block(2 * a, a) for a in sizes[:-1])
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, skip in zip(
            reversed(self.up), reversed(self.merge), reversed(kept[:-1]), strict=True
        ):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.head(x)


NETWORKS: dict[str, int] = {
    "torchvision:resnet50": 224,
    "torchvision:resnet18": 224,
    "torchvision:mobilenet_v2": 224,
    "randprune:resnet56": 32,
    "unet": 128,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--step", type=int, default=8)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--half", type=int, default=5, help="configurations of half of the latency")
    asked = parser.parse_args()
    torch.manual_seed(0)
    size = NETWORKS[asked.network]
    model = (UNet() if asked.network == "unet" else build_model(asked.network)).eval()
    space = rp.trace(model, torch.zeros(1, 3, size, size))
    runtime, setting = runtimes.create(asked.runtime), Setting(asked.runtime)
    document: dict[str, Any] = {
        "network": asked.network,
        "size": size,
        "runtime": asked.runtime,
        "version": runtime.version(),
        "step": asked.step,
        "provenance": provenance(),
        "rows": [],
    }

    def write() -> None:
        asked.out.write_text(json.dumps(document, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        for name in ("first_seconds", "second_seconds"):
            start = time.perf_counter()
            cost = latency_cost(model, space, setting, step=asked.step, folder=folder)
            document[name] = time.perf_counter() - start
    draws = np.random.default_rng(0).integers(1, space.widths + 1, (1_000_000, len(space)))
    start = time.perf_counter()
    cost(draws)
    document["million_seconds"] = time.perf_counter() - start
    document["dense_ms"] = cost.dense
    document["own_errors"] = cost.errors.tolist()
    document["spread"] = cost.spread
    write()

    rng = np.random.default_rng(1)
    search = rp.RandomSearch(0.1, asked.step)
    rows = [("macs", r, w) for r in BUDGETS
            for w in search.ask(space, rp.Budget("macs", r), asked.count // 3, rng)]  # fmt: skip
    timed = rp.RandomSearch(0.1, asked.step)
    priced = rp.Space(space.groups, space.frozen, {**space.costs, "latency": cost},
                      model=space.model, inputs=space.inputs)  # fmt: skip
    try:
        half = timed.ask(priced, rp.Budget("latency", 0.5, 0.01), asked.half, rng)
    except InfeasibleBudgetError as error:
        document["half_error"] = str(error)
        half = np.empty((0, len(space)), dtype=np.int64)
    rows += [("latency", 0.5, widths) for widths in half]

    inputs = inputs_for(space, 1)
    dense = runtime.prepare(model, inputs, 1)
    for metric, ratio, widths in rows:
        found = paired_ms(dense, runtime.prepare(network_of(model, space, widths), inputs, 1))
        document["rows"].append({
            "metric": metric,
            "asked": ratio,
            "widths": widths.tolist(),
            "predicted": float(cost(widths)) / cost.dense,
            "measured": found.ratio,
            "dense_ms": found.first_ms,
            "spread": found.spread,
        })  # fmt: skip
        write()


if __name__ == "__main__":
    main()
