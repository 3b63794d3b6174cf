"""What configurations cost where a budget is one of latency: measured once, and kept with the job.

The cost decides which configurations are proposed. So the job's folder holds it, and a resumed job,
or another process of it, goes on with the same numbers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from randprune.atomic import write_file
from randprune.cost import LATENCY, Budget
from randprune.latency import LatencyCost, Setting, latency_cost
from randprune.recipe import BudgetSection
from randprune.space import Space
from randprune.store import content_hash


def priced(
    section: BudgetSection, network: nn.Module, space: Space, step: int, folder: Path | None
) -> tuple[Space, Budget]:
    """The space with what the budget is about among its costs, and the budget.

    Args:
        section: what is asked.
        network: the dense one, on the CPU.
        space: its channel groups.
        step: what widths are multiples of.
        folder: where a measured cost is kept; None: nowhere.

    Raises:
        InvalidInputError: an unknown runtime, or one that is not installed.
        UnsupportedModelError: no runtime can run the network.
        InfeasibleBudgetError: the dense network is as fast as is asked.
    """
    if section.metric != LATENCY:
        return space, section.budget()
    asked = section.budget()
    setting = Setting(asked.runs_in, asked.threads, asked.batch)
    cost = _kept_cost(network, space, setting, step, folder)
    space = replace(space, costs={**space.costs, LATENCY: cost})
    budget = section.budget(cost.dense)
    return space, replace(budget, runtime=cost.setting.runtime)


def _kept_cost(
    network: nn.Module, space: Space, setting: Setting, step: int, folder: Path | None
) -> LatencyCost:
    if folder is None:
        return latency_cost(network, space, setting, step=step)
    asked = [space.fingerprint, setting.runtime, setting.threads, setting.batch, step]
    file = folder / f"latency-{content_hash(asked)[:12]}.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document.get("format") == LatencyCost.FORMAT:
            return LatencyCost.from_json(document)
    except (OSError, ValueError, KeyError):
        pass
    cost = latency_cost(network, space, setting, step=step)
    write_file(file, json.dumps(cost.to_json()).encode())
    return cost
