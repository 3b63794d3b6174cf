"""The setting of trained networks: criteria rank the channels, and what is cut is repaired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from randprune.bench.keys import RANDOM_CRITERION, ProposalKey
from randprune.bench.meter import Meter
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import DenseRecord
from randprune.bench.results import SCORES
from randprune.bench.sections import PretrainSection
from randprune.bench.settings.base import BenchJob, Finished, dense_network, seeds_of
from randprune.bench.settings.scoring import keep_all_scores, kept_scores, scores_cost
from randprune.bench.units import Prepared
from randprune.cost import FloatArray
from randprune.criteria import criteria, passes_of, score
from randprune.errors import UnsupportedModelError
from randprune.jobs.candidates import Repaired
from randprune.jobs.opening import check_outputs, images_of_recipe, open_trained, traced
from randprune.jobs.quality import accuracy_of
from randprune.jobs.session import Session
from randprune.jobs.train import NamedTraining, trained
from randprune.recovery import needs_moments, passes, quick_form
from randprune.space import IntArray, Selection
from randprune.surgery import cut
from randprune.training import Teacher, TrainRecipe
from randprune.zoo.weights import weights_hash

_PRETRAIN = "pretrain"
"""The kept dense network, its phase and key in the ledger, and the purpose of its seed."""


class PretrainedJob(BenchJob):
    """The trained dense network, its statistics, and all criteria's scores."""

    tests_untrained: ClassVar[bool] = True
    trainings: ClassVar[str] = "fine-tunings"
    preparing = "Scoring with all criteria"

    def open(self, recipe: BenchRecipe, work: Path) -> Session:
        """Of the dense network as it is given; `read_prepared` brings the trained one."""
        seeds = seeds_of(recipe)
        return open_trained(
            recipe,
            dense_network(recipe, seeds),
            images_of_recipe(recipe).sealed(),
            rules=recipe.proposals,
            seeds=seeds,
            work=work,
        )

    # -- units ---------------------------------------------------------------------------------

    def prepare(self) -> Prepared:
        """The dense network, trained where it has no weights; its statistics, and all scores."""
        session, recipe = self.session, self.recipe
        if recipe.pretrain is None:
            check_outputs(session.network, session.data, session.example)
        else:
            self._pretrain(recipe.pretrain)
        used = sorted({c for label in recipe.methods for c in recipe.criteria_of(label)})
        chosen = {name: criteria.create(name) for name in used if name != RANDOM_CRITERION}
        needed = needs_moments(recipe.recovery)
        if needed or any("moments" in criterion.needs for criterion in chosen.values()):
            session.moments()
        keep_all_scores(session, chosen)
        session.tables()
        _ = session.quick_judge, session.exact_judge
        dense = DenseRecord(
            macs=session.macs(),
            params=int(session.space.cost("params").dense),
            search=accuracy_of(session.dense_result()),
        )
        return Prepared(dense=dense, weights_hash=weights_hash(session.network), ledger=())

    def _pretrain(self, section: PretrainSection) -> None:
        session = self.session
        training = NamedTraining(
            name=_PRETRAIN,
            label=_PRETRAIN,
            text="Training the dense network",
            phase=_PRETRAIN,
            key=_PRETRAIN,
            recipe=section.recipe(section.epochs, session.seeds.seed(_PRETRAIN)),
            macs=session.macs(),
        )
        session.use(trained(session, training, session.network, session.data.full_train))

    def read_prepared(self) -> None:
        """Take the trained dense network, where it was trained here."""
        if self.recipe.pretrain is not None:
            dense = self.session.original.network
            self.session.use(self.session.work.made_network(_PRETRAIN, dense))

    # -- proposals -----------------------------------------------------------------------------

    @property
    def predict(self) -> Callable[[IntArray], FloatArray] | None:
        """From the tables of all groups."""
        return self.session.predicted

    def scores(self, criterion: str, draw: int) -> Sequence[Tensor]:
        """Of the criterion; random ones differ between draws."""
        if criterion == RANDOM_CRITERION:
            return self.session.random_scores("channels", draw)
        return kept_scores(self.session, criterion)

    def maker(self, scores: Sequence[Tensor]) -> Repaired:
        """Cuts by these scores, and repairs quickly."""
        return Repaired(self.session, scores, quick_form(self.recipe.recovery))

    def chosen(self, selection: Selection) -> Selection:
        """The channels that the method chose."""
        return selection

    def charge(self, meter: Meter, *, predicted: bool) -> None:
        """The moments where repair works from them; with predictions, moments and tables."""
        session = self.session
        if predicted or needs_moments(self.recipe.recovery):
            meter.charge("moments", session.macs(), len(session.calibration))
        if predicted:
            meter.charge("tables", session.macs(), session.table_passes)

    def rescored(self, key: ProposalKey, selection: Selection, meter: Meter) -> list[Tensor]:
        """The row's criterion on the network that is cut accordingly and repaired."""
        session, criterion = self.session, criteria.create(key.row.criterion)
        small = cut(session.network, session.space, selection)
        small = session.repaired(small, selection, quick_form(self.recipe.recovery))
        space = traced(self.recipe.model, small, session.example)
        widths = selection.widths
        wanted = [(g.name, w) for g, w in zip(session.space.groups, widths, strict=True)]
        if [(g.name, g.width) for g in space.groups] != wanted:
            raise UnsupportedModelError(
                f"The network cut to {widths.tolist()} has other channel groups than the "
                "dense one, so its scores cannot be compared. Use a method that scores once."
            )
        if criterion.needs - {"weights"}:
            seen = passes_of(criterion, len(session.calibration))
            meter.look(session.macs(widths), seen.forward, seen.backward)
        seed = session.seeds.seed("channels", key.draw, *space.widths.tolist())
        return score(small, space, criterion, session.calibration, seed=seed)

    def finished(
        self, key: ProposalKey, small: nn.Module, selection: Selection, meter: Meter
    ) -> Finished:
        """The network after the thorough repair; its row is charged with the criterion's scores."""
        session, recovery = self.session, self.recipe.recovery
        network = session.repaired(small, selection, recovery)
        seen = passes(recovery, len(session.calibration))
        meter.look(session.macs(selection.widths), seen.forward, seen.backward)
        quality = session.exact_judge.quality(network, str(key))
        return Finished(network, quality, {SCORES: scores_cost(session, key.row.criterion)})

    # -- trainings -----------------------------------------------------------------------------

    def teacher(self, recipe: TrainRecipe) -> Teacher | None:
        """The dense network, where the recipe distils from it."""
        if not recipe.distill_weight:
            return None
        return Teacher(self.session.network, precision=recipe.precision)
