"""The steps of `prune` for pipelines of one's own: `search` and `repair`, without labels.

found = rp.search(model, inputs, budget=0.5)
small = found.best.network()                    # cut and repaired
again = rp.repair(model, small, inputs)         # the same for any network that rp.cut made
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from randprune.cost import Budget
from randprune.criteria import Criterion, criteria
from randprune.errors import InvalidInputError
from randprune.evaluate.threads import decide, using
from randprune.graph.entrance import check_network, check_values, plain_module
from randprune.graph.program import Inputs, in_mode, private_copy
from randprune.jobs.arguments import (
    as_budget,
    as_network,
    check_example,
    check_settings,
    search_document,
)
from randprune.jobs.candidates import Repaired
from randprune.jobs.controls import uniform_controls
from randprune.jobs.job import Given, as_decided, begun
from randprune.jobs.notebook import html_table
from randprune.jobs.opening import network_of
from randprune.jobs.progress import Progress, checked
from randprune.jobs.pruning import prepared_scores, racing, repairing
from randprune.jobs.ranking import best_first, value_of
from randprune.jobs.search_loop import create_strategy, search_candidates
from randprune.jobs.session import Session
from randprune.jobs.traced import traced_session
from randprune.lineage import CutPlan, CutStep, plan_of, tensor_shapes
from randprune.memory import memory_errors
from randprune.recipe import FinalistsSection, PruneRecipe
from randprune.recipe.presets import DEFAULT
from randprune.recovery import quick_form, recover
from randprune.space import IntArray, Selection, Space
from randprune.store import RANDOM_CHANNELS, SEARCHED, UNIFORM, Candidate, SearchInfo, Store
from randprune.strategies import Strategy, strategies
from randprune.surgery import cut
from randprune.tasks import Outputs, Task, tasks
from randprune.zoo.dataset import CALIBRATION_LIMIT, Data
from randprune.zoo.given import as_any_data, as_samples

BATCH = 128
"""Samples a batch."""

_SHOWN = 10


def repair(model: nn.Module, small: nn.Module, data: Any, recovery: str | None = None) -> nn.Module:
    """The network that `small` is, repaired without training and without labels; a new module.

    Its channels are those of `small`, whatever chose them; its weights are the dense network's,
    refitted such that each layer gives on the data what the dense one gives. What was trained into
    `small` is not used.

    Args:
        model: the network that `small` was cut from; left untouched.
        small: made by `rp.cut`, or by anything here that cuts; left untouched.
        data: inputs, whatever `rp.search` takes; at most 2,000 samples are used, and a few hundred
            do.
        recovery: a chain of repairs such as "least_squares+bn"; default: that of finalists,
            "least_squares+sequential".

    Returns:
        A new module in the mode and on the device of `small`.

    Raises:
        InvalidInputError: `small` was not cut by us, or from another network.
        DataError: the data is empty, or not finite.
        UnsupportedModelError: its graph cannot be followed.
    """
    dense, smaller = plain_module(model, "repair"), plain_module(small, "repair")
    check_network(dense)
    check_values(dense)
    plan, step = _last_cut(smaller)
    place = next((p.device for p in smaller.parameters()), torch.device("cpu"))
    if any(p.device.type != "cpu" for p in dense.parameters()):
        dense = private_copy(dense).cpu()
    bare = _cut_again(dense, plan, step)
    samples = data.calibration if isinstance(data, Data) else as_samples(data)
    if len(samples) > CALIBRATION_LIMIT:
        samples = samples.subset(torch.arange(CALIBRATION_LIMIT))
    chain = FinalistsSection().recovery if recovery is None else recovery
    with using(decide().count), memory_errors("recovery"):
        bare = recover(bare, dense, step.space, step.selection, chain, samples, batch_size=BATCH)
    return in_mode(bare, smaller.training).to(place)


def _last_cut(small: nn.Module) -> tuple[CutPlan, CutStep]:
    plan = plan_of(small)
    if plan is not None and isinstance(last := plan.steps[-1], CutStep):
        return plan, last
    raise InvalidInputError(
        f"The 'small' parameter of repair must be a network that rp.cut made. This "
        f"{type(small).__name__} does not remember a cut: give the module itself, not one built "
        "anew from its weights, or load it with rp.load."
    )


def _cut_again(dense: nn.Module, plan: CutPlan, step: CutStep) -> nn.Module:
    """The dense network cut in the same way.

    Raises:
        InvalidInputError: that plan belongs to another network.
    """
    try:
        bare = cut(dense, step.space, step.selection, as_graph=step.as_graph)
        same = tensor_shapes(bare) == plan.cut
    except (InvalidInputError, KeyError, IndexError, RuntimeError):
        same = False
    if not same:
        raise InvalidInputError(
            f"The 'small' parameter of repair was cut from a {step.space.model} of other shapes "
            f"than the {type(dense).__name__} given as 'model'. Give what it was cut from."
        )
    return bare


@dataclass(frozen=True, slots=True, eq=False)
class FoundNetwork:
    """One configuration of a search.

    Attributes:
        method: "searched", or the control "uniform" or "random_channels".
        index: the order in which it was proposed.
        widths: channels kept per group, int64 (G,).
        distance: to the dense network's outputs after a quick repair, 0 = none; see
            `randprune.tasks`.
        loss: of the task, where targets are known.
        value: of the task's metric.
        costs: by name, such as {"macs": 62.9e6}.
    """

    method: str
    index: int
    widths: IntArray = field(repr=False)
    distance: float
    loss: float | None
    value: float
    costs: Mapping[str, float] = field(repr=False)
    _maker: Repaired = field(repr=False)

    @property
    def selection(self) -> Selection:
        """The channels that it keeps."""
        return self._maker.choose(self.widths)

    def network(self, recovery: str | None = None) -> nn.Module:
        """A new module, cut and repaired, in evaluation mode.

        Args:
            recovery: a chain of repairs, "none" for the cut alone; default: that of finalists,
                "least_squares+sequential".
        """
        chain = FinalistsSection().recovery if recovery is None else recovery
        maker = Repaired(self._maker.session, self._maker.scores, chain)
        with using(decide().count):
            return in_mode(maker.make(self.widths).network)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SearchResult:
    """What a search found: candidates, best first, and its controls.

    Attributes:
        ranked: the candidates that could be made, best first; configurations once each.
        controls: "uniform" widths and "random_channels" at these widths, where uniform widths meet
            the budget.
        space: the channel groups.
        budget: what was asked.
        rank_by: what ranked them.
    """

    ranked: tuple[FoundNetwork, ...] = field(repr=False)
    controls: Mapping[str, FoundNetwork]
    space: Space = field(repr=False)
    budget: Budget
    rank_by: str
    _session: Session = field(repr=False)

    @property
    def best(self) -> FoundNetwork:
        """The first of the ranking."""
        return self.ranked[0]

    def __len__(self) -> int:
        return len(self.ranked)

    def __getitem__(self, place: int) -> FoundNetwork:
        return self.ranked[place]

    def __iter__(self) -> Iterator[FoundNetwork]:
        return iter(self.ranked)

    def __repr__(self) -> str:
        header, *rows = self._table()
        lines = ["  ".join(f"{text:>12}" for text in row) for row in (header, *rows)]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        header, *rows = self._table()
        return html_table(self._title(), header, rows)

    def _title(self) -> str:
        share = f"{self.budget.ratio:.0%} of the {self.budget.metric}"
        return f"{type(self).__name__}: {len(self)} networks at {share}, ranked by {self.rank_by}"

    def _table(self) -> list[tuple[str, ...]]:
        """A header, and a row of text for each of the first networks and of the controls."""
        metric, cost = self._session.task.metric, self.space.cost("macs")
        table: list[tuple[str, ...]] = [("network", "distance", metric.name, "MACs")]
        first = [(f"no. {found.index}", found) for found in self.ranked[:_SHOWN]]
        for name, found in (*first, *self.controls.items()):
            share = f"{float(cost(found.widths)) / cost.dense:.1%}"
            table.append((name, f"{found.distance:.4g}", metric.shown(found.value), share))
        return table

    def distance(self, network: nn.Module) -> float:
        """How far any network's outputs are from the dense one's on the samples of the search."""
        return -self._session.exact_judge.quality(network).scores["kl"]


def search(
    model: nn.Module | str,
    data: Any,
    budget: float | Budget = 0.5,
    candidates: int | None = None,
    criterion: str | Criterion | None = None,
    recovery: str | None = None,
    seed: int = 0,
    *,
    task: str | Task | None = None,
    example_inputs: Inputs | None = None,
    preset: str = DEFAULT,
    strategy: str | Strategy | None = None,
    min_keep: float = 0.1,
    round_to: int = 1,
    calibration: int | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Search widths for a trained network of any kind: candidates, ranked, nothing trained.

    Args:
        model: the trained network, left bit-identical, whatever structure its outputs have; or a
            name such as "torchvision:resnet18".
        data: inputs, labels or none: a tensor, a pair (inputs, targets), a torch `Dataset` or
            `DataLoader`, an iterable of batches, a `Data`. Half of them calibrate (at most 2,000),
            the others rank (at most 5,000).
        budget: the share of the MACs that remains, or a `Budget`.
        candidates: how many configurations are made and compared; default: 100.
        criterion, recovery, preset, strategy, min_keep, round_to: as in `rp.prune`.
        seed: decides everything random.
        task: what the network is for; default: "outputs", which needs no labels. It decides how
            distances are measured, and what `rank_by` may be.
        example_inputs: what the network is traced with; default: one sample of the data.
        calibration: how many samples calibrate.
        progress: is told how far the search is; default: bars in a notebook, nothing elsewhere.
        device: where networks are evaluated; default: the GPU if there is one.
        settings: further keys of a recipe, such as ``{"search": {"rank_by": "loss"}}``.

    Raises:
        InvalidInputError: parameters that cannot mean anything, or batches that lack what the
            network's forward needs.
        InfeasibleBudgetError: the budget is out of reach; gives the reachable range.
        DataError: inputs that cannot be used, or no candidate could be made.
        UnsupportedModelError: the network cannot be traced.
    """
    network, section = as_network(model, None, "search")
    asked = as_budget(budget)
    check_settings(settings)
    check_example(example_inputs)
    chosen = Outputs() if task is None else tasks.named_or_given(task, Task, "task")
    if criterion is not None:
        criteria.named_or_given(criterion, Criterion, "criterion")
    if strategy is not None:
        strategies.named_or_given(strategy, Strategy, "strategy")
    document = search_document(
        section, asked, seed=seed, preset=preset, plugins=(), criterion=criterion,
        strategy=strategy, candidates=candidates, recovery=recovery, min_keep=min_keep,
        round_to=round_to, task=task, settings=settings,
    )  # fmt: skip
    recipe = PruneRecipe.parse(document, "the parameters of search")
    network = network or in_mode(network_of(recipe.network))
    samples = as_any_data(data, calibration=calibration, seed=seed, parts=())
    shown = checked(progress)
    with (
        using(decide().count),
        memory_errors("search.batch_size"),
        tempfile.TemporaryDirectory(prefix="randprune-") as folder,
        Store.open(Path(folder)) as store,
    ):
        given = Given(network, samples, Path(folder), shown, example_inputs, device, chosen)
        session = traced_session(recipe, given)
        recipe = as_decided(recipe, session)
        run = begun(recipe, session, store, given)
        with run:
            scores = prepared_scores(
                session, recipe, None if isinstance(criterion, str) else criterion
            )
            quick = repairing(session, scores, quick_form(recipe.recovery))
            used = (
                create_strategy(recipe.search, session.tables)
                if strategy is None or isinstance(strategy, str)
                else strategy
            )
            info = SearchInfo(recipe.search.candidates, "", recipe.criterion, recipe.recovery)
            made = search_candidates(
                session, run, info, used, quick[SEARCHED], racing(session, recipe)
            )
            controls = uniform_controls(session, run, quick)
        # What networks on demand need beyond the folder.
        session.moments()
    rank_by = recipe.search.rank_by
    return SearchResult(
        tuple(_found(session, c, quick[SEARCHED]) for c in best_first(made, rank_by)),
        {
            method: _found(session, controls[method], quick[method])
            for method in (UNIFORM, RANDOM_CHANNELS)
            if controls[method].status == "ok"
        },
        session.space,
        asked,
        rank_by,
        session,
    )


def _found(session: Session, candidate: Candidate, maker: Repaired) -> FoundNetwork:
    """A candidate as it is handed out."""
    loss = -value_of(candidate, "loss")
    return FoundNetwork(
        candidate.method,
        candidate.index,
        session.space.check_widths(candidate.widths),
        -value_of(candidate, "kl"),
        loss if loss < float("inf") else None,
        session.task.metric.score(value_of(candidate, "accuracy")),
        candidate.costs,
        maker,
    )
