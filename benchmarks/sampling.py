"""How many configurations per second: drawn and costed, and accepted under each law.

    python benchmarks/sampling.py [--model torchvision:resnet50] [--rounds 7] [--json FILE]

Every round runs each case once, in turn, so that a machine that slows down slows all of them;
medians over the rounds are reported with their range, after one uncounted round. Costs are exact:
the table starts with a check against Python's unlimited integers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import randprune as rp
from randprune.cost import QuadraticCost
from randprune.strategies import LagrangianSearch, ProxySearch, RandomSearch, UniformSearch
from randprune.strategies.feasible import WidthGrid
from randprune.strategies.random import draw_uniform
from randprune.zoo.models import build_model

DRAWS = 1_000_000
BLOCK = 1_771
BUDGETS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Case:
    """Something to time: `run` returns how many configurations it delivered."""

    name: str
    run: Callable[[], int]


def check_exact(space: rp.Space, metric: str, rows: int = 200) -> None:
    """Compare the cost with unlimited integers on random widths; raises where they differ."""
    cost = space.cost(metric)
    assert isinstance(cost, QuadraticCost)
    widths = np.random.default_rng(0).integers(1, space.widths + 1, (rows, len(space)))
    doubled = (2.0 * cost.quadratic).astype(object)
    linear, constant = (2.0 * cost.linear).astype(object), 2.0 * cost.constant
    for row, value in zip(widths.astype(object), cost(widths), strict=True):
        exact = sum(
            int(doubled[i, j]) * row[i] * row[j] for i, j in zip(*np.nonzero(doubled), strict=True)
        ) + sum(int(a) * w for a, w in zip(linear, row, strict=True))
        if exact + int(constant) != int(2.0 * value):
            raise AssertionError(f"cost {value} is not exact at {row}")


def draw_and_cost(space: rp.Space, metric: str) -> int:
    """Draw a million configurations of the uniform law and cost each one; none is kept."""
    grid = WidthGrid.of(space, 0.1, 1)
    cost = space.cost(metric)
    stream = np.random.default_rng(0)
    done = 0
    while done < DRAWS:
        done += len(cost(draw_uniform(grid, stream, min(BLOCK, DRAWS - done))))
    return done


def accepted(space: rp.Space, budget: rp.Budget, law: str, n: int) -> int:
    """Ask for `n` configurations under a law; all are checked to lie within the tolerance."""
    strategy = RandomSearch(law=law)
    widths = strategy.ask(space, budget, n, np.random.default_rng(0))
    if not budget.fits(space.cost(budget.metric), widths).all():
        raise AssertionError("a configuration outside the tolerance was returned")
    return len(widths)


def cases(space: rp.Space, metric: str) -> list[Case]:
    """Everything that is timed."""
    rng = np.random.default_rng(0)
    stored = rng.integers(1, space.widths + 1, (DRAWS, len(space)))
    tables = [np.linspace(1.0, 0.0, w + 1) ** 2 * rng.lognormal() for w in space.widths]
    found = [
        Case("draw + cost", lambda: draw_and_cost(space, metric)),
        Case("cost of a stored int64 array", lambda: len(space.cost(metric)(stored))),
    ]
    for ratio in BUDGETS:
        budget = rp.Budget(metric, ratio)
        try:
            # As many as rejection finds in about a million draws.
            trial = RandomSearch(law="rejection", max_draws=100_000)
            n = max(20, int(DRAWS * trial.sample(space, budget, 20, rng).acceptance))
        except rp.InfeasibleBudgetError:
            n = 0
        if n:
            found.append(
                Case(
                    f"accepted, rejection, {ratio:.0%}",
                    lambda budget=budget, n=n: accepted(space, budget, "rejection", n),
                )
            )
        found.append(
            Case(
                f"accepted, shifted, {ratio:.0%}",
                lambda budget=budget: accepted(space, budget, "shifted", 200_000),
            )
        )
    half = rp.Budget(metric, 0.5)
    seed = np.random.default_rng
    found += [
        Case("uniform width", lambda: len(UniformSearch().ask(space, half, 1, seed(0)))),
        Case(
            "ranked by proxy (drawn)",
            lambda: (
                200_000 * bool(len(ProxySearch(tables, 200_000).ask(space, half, 100, seed(0))))
            ),
        ),
        Case(
            "Lagrangian optima",
            lambda: len(LagrangianSearch(tables).ask(space, half, 100, seed(0))),
        ),
    ]
    return found


def measure(timed: list[Case], rounds: int) -> list[dict[str, object]]:
    """Configurations per second of each case: median and range over interleaved rounds."""
    rates: dict[str, list[float]] = {case.name: [] for case in timed}
    for round_ in range(rounds + 1):
        for case in timed:
            start = time.perf_counter()
            delivered = case.run()
            seconds = time.perf_counter() - start
            if round_ > 0:
                rates[case.name].append(delivered / seconds)
    return [
        {
            "case": name,
            "per_second": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
        }
        for name, values in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--metric", default="macs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()

    size = arguments.image_size
    space = rp.trace(build_model(arguments.model), torch.zeros(1, 3, size, size))
    check_exact(space, arguments.metric)
    dense = space.cost(arguments.metric).dense
    print(f"{arguments.model}: {len(space)} groups, {arguments.metric} {dense:,.0f}, exact")
    rows = measure(cases(space, arguments.metric), arguments.rounds)
    print(f"{'case':<32}{'per second':>14}{'lowest':>14}{'highest':>14}")
    for row in rows:
        print(
            f"{row['case']:<32}{row['per_second']:>14,.0f}"
            f"{row['lowest']:>14,.0f}{row['highest']:>14,.0f}"
        )
    if arguments.json:
        document = {
            "model": arguments.model,
            "groups": len(space),
            "metric": arguments.metric,
            "dense": dense,
            "rounds": arguments.rounds,
            "rates": rows,
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": torch.__version__,
            },
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
