"""What all units of a benchmark share within a process: network, images, scores, statistics.

Whatever takes time is made once, by the unit "prepare", and kept in the run's work folder; other
processes, and a resumed run, read it there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from randprune.atomic import write_file
from randprune.bench.recipe import RANDOM_CRITERION, BenchRecipe
from randprune.bench.records import Spent
from randprune.criteria import Random, criteria, score
from randprune.errors import InvalidInputError
from randprune.evaluate import Engine, Evaluator
from randprune.graph.program import in_mode
from randprune.graph.trace import trace
from randprune.pipeline.judge import Judge
from randprune.pipeline.kept import Kept
from randprune.pipeline.outputs import check_outputs
from randprune.pipeline.recoveries import Recoveries
from randprune.search.proxy import check_tables, proxy_errors
from randprune.space import IntArray, Space
from randprune.store import CostEntry, content_hash
from randprune.zoo.data import Data, in_memory, load_data
from randprune.zoo.models import build_model
from randprune.zoo.splits import Split
from randprune.zoo.weights import load_weights


class Lab:
    """The shared things of one benchmark in one process, made or read when first used."""

    def __init__(self, recipe: BenchRecipe, work: Path, device: str | None = None) -> None:
        self.recipe = recipe
        self.kept = Kept(work)
        self.work = work
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.ledger: list[CostEntry] = []
        """What was spent since it was last emptied, besides what units count themselves."""

    def work_in(self, work: Path) -> None:
        """Keep what lasts in this folder from now on."""
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.kept = work, Kept(work)

    def seed(self, *purpose: str | int) -> int:
        """A seed in [0, 2**31) for one purpose: independent between purposes and recipe seeds."""
        words = "/".join(map(str, ("bench", self.recipe.seed, *purpose)))
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "little") >> 1

    def file(self, kind: str, key: str) -> str:
        """The name under which the thing of this kind and key is kept."""
        return f"{kind}-{content_hash(key)}"

    # -- images and network --------------------------------------------------------------------

    @cached_property
    def data(self) -> Data:
        """The images; the test set is opened by `test_evaluator` alone."""
        asked = self.recipe.data
        assert asked is not None
        return load_data(
            asked.spec,
            calibration=asked.calibration,
            search=asked.search,
            seed=asked.seed,
            **asked.options,
        )

    @cached_property
    def search(self) -> Split:
        """The search images, decoded where they fit into memory."""
        return in_memory(self.data.search)

    @cached_property
    def untrained(self) -> nn.Module:
        """The dense network as it is given: with the recipe's weights, or to be trained first."""
        asked = self.recipe.model
        assert asked is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed("initial weights"))
            model = build_model(asked.spec, asked.num_classes, asked.in_channels, **asked.options)
        if asked.weights:
            load_weights(model, asked.weights)
        return in_mode(model)

    @cached_property
    def model(self) -> nn.Module:
        """The trained dense network, in evaluation mode."""
        if self.recipe.pretrain is None:
            check_outputs(self.untrained, self.data, self.example)
            return self.untrained
        model = self.untrained
        model.load_state_dict(safetensors.torch.load_file(self.kept.file("dense")))
        return model

    @cached_property
    def example(self) -> Tensor:
        """One normalised batch of one image."""
        return next(self.data.calibration.batches(1))[0].cpu()

    @cached_property
    def space(self) -> Space:
        """The channel groups."""
        return self.trace(self.untrained)

    def trace(self, model: nn.Module) -> Space:
        """The channel groups of the dense network, or of one cut from it."""
        asked = self.recipe.model
        assert asked is not None
        return trace(model, self.example, asked.freeze, as_graph=asked.as_graph, allow=asked.allow)

    @property
    def macs(self) -> float:
        """MACs of one image through the dense network."""
        return self.space.cost("macs").dense

    # -- statistics and scores -----------------------------------------------------------------

    @cached_property
    def recoveries(self) -> Recoveries:
        """Builds repairs from statistics of the dense network."""
        return Recoveries(
            model=self.model,
            space=self.space,
            calibration=in_memory(self.data.calibration),
            kept=self.kept,
            seed=self.seed("moments"),
            spend=self.ledger.append,
            device=self.device,
        )

    @cached_property
    def all_scores(self) -> Mapping[str, Tensor]:
        """The scores that the preparation made, as "criterion/group number"."""
        return safetensors.torch.load_file(self.kept.file("scores"))

    def scores(self, criterion: str, draw: int) -> list[Tensor]:
        """A criterion's scores, one (width,) tensor a group; random ones differ between draws."""
        if criterion == RANDOM_CRITERION:
            return score(self.model, self.space, Random(), seed=self.seed("channels", draw))
        if (failure := self.document("failed").get(criterion)) is not None:
            raise InvalidInputError(f"The criterion {criterion!r} failed. {failure}")
        return [self.all_scores[f"{criterion}/{g:05d}"] for g in range(len(self.space))]

    def scores_of(self, criterion: str, model: nn.Module, space: Space, draw: int) -> list[Tensor]:
        """The scores of another network, such as one that was cut from the dense one."""
        seed = self.seed("channels", draw, *space.widths.tolist())
        chosen = criteria.create(criterion)
        return score(model, space, chosen, self.recoveries.calibration, seed=seed)

    def criterion_cost(self, criterion: str) -> Spent:
        """What the criterion's scores cost, as if no other criterion shared its passes."""
        return Spent(**self.document("costs")[criterion])

    @cached_property
    def tables(self) -> Sequence[Any]:
        """What each width of each group costs at the outputs, (width + 1,) a group."""
        return check_tables(self.space, self.recoveries.tables())

    def proxy(self, widths: IntArray) -> Any:
        """Predicted quality of configurations (N, G), higher = better, (N,)."""
        return -proxy_errors(self.tables, np.asarray(widths))

    # -- evaluation ----------------------------------------------------------------------------

    @cached_property
    def quick_judge(self) -> Judge:
        """Compares candidates on the search images with the fastest engine."""
        return self._judge(self.recipe.proposals.precision)

    @cached_property
    def exact_judge(self) -> Judge:
        """Measures networks on the search images in float32."""
        return self._judge("float32")

    def _judge(self, precision: str) -> Judge:
        evaluator = self._evaluator(self.search, precision)
        kept = self.kept.tensors(
            f"logits-{precision}",
            lambda: {"logits": evaluator.logits(self.model, name="the dense network")},
        )
        return Judge(evaluator, kept["logits"])

    @cached_property
    def test_evaluator(self) -> Evaluator:
        """Measures networks on the test set, which is opened here: for the final numbers alone."""
        test = in_memory(self.data.open_test(f"final numbers of {self.recipe.title}"))
        return self._evaluator(test, "float32")

    def _evaluator(self, split: Split, precision: str) -> Evaluator:
        """An evaluator whose engine all processes of the run share, chosen by the first one."""
        name = f"engine-{precision}"
        if not (self.work / f"{name}.json").exists():
            found = Evaluator(split, precision=precision, device=self.device)  # type: ignore[arg-type]
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as the processes will run it
            engine = found.engine_for(self.model)
            torch.set_num_threads(threads)
            self.keep_document(
                name,
                {
                    "device": engine.device,
                    "dtype": engine.dtype,
                    "channels_last": engine.channels_last,
                    "batch_size": engine.batch_size,
                },
            )
        return Evaluator(split, device=self.device, engine=Engine(**self.document(name)))

    # -- documents -----------------------------------------------------------------------------

    def document(self, name: str) -> dict[str, Any]:
        """The JSON document kept under `name`."""
        found: dict[str, Any] = json.loads((self.work / f"{name}.json").read_text())
        return found

    def keep_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a JSON document under `name`."""
        write_file(self.work / f"{name}.json", json.dumps(document).encode())
