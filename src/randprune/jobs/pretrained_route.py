"""The pre-trained route as a control: train the original, prune it, fine-tune, at equal compute."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from randprune.criteria import criteria
from randprune.graph.program import private_copy
from randprune.jobs.controls import uniform_controls
from randprune.jobs.finalists import Finalist, choose_winner, verify_cut
from randprune.jobs.fine_tune import fine_tune
from randprune.jobs.measure import Entrant, entrant
from randprune.jobs.progress import Renamed
from randprune.jobs.pruning import labels_of, prepared_scores, repairing
from randprune.jobs.search import create_strategy, search_candidates
from randprune.jobs.session import Session, Subject
from randprune.jobs.train import NamedTraining, trained
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import FinetuneSection, PruneRecipe, ScratchRecipe
from randprune.recovery import quick_form
from randprune.store import (
    PRETRAINED,
    SEARCHED,
    NetworkRow,
    Run,
    RunKey,
    SearchInfo,
    Store,
    content_hash,
)
from randprune.supernet import initialise

_BACKWARD_AND_FORWARD = 3


def pretrained_route(session: Session, run: Run, recipe: ScratchRecipe) -> list[Entrant]:
    """The network that the pre-trained setting finds at the compute of this job's winner.

    The compute is that of the shared weights, the search, and one final training. What the
    pre-trained route's own search costs comes off first; `pretrained.share` of the rest fine-tunes,
    and what is left trains the original network; both in whole epochs.
    """
    original, section = session.original, recipe.training
    dense, images = original.space.cost("macs").dense, len(session.data.full_train)
    small = original.budget.ratio * dense if original.budget.metric == "macs" else dense
    spent = sum(
        entry.macs_spent
        for entry in run.ledger()
        if entry.phase in ("supernet", "search") or entry.key == f"training/{SEARCHED}/0"
    )
    searching = recipe.search.candidates * len(session.data.search) * small
    epoch = _BACKWARD_AND_FORWARD * images
    tuning = max(1, round(recipe.pretrained.share * max(0.0, spent - searching) / (epoch * small)))
    rest = spent - searching - tuning * epoch * small
    epochs = max(1, round(rest / (epoch * dense)))

    seed = session.seeds.seed("training", 0)
    training = NamedTraining(
        name="trained-original",
        label="original for the pre-trained route",
        text=f"Training the original network for {epochs} epochs",
        phase="pretrained",
        key="pretrained/training",
        recipe=section.train_recipe(seed).replace(
            epochs=epochs, warmup_epochs=min(section.warmup_epochs, epochs)
        ),
        macs=dense,
    )
    start = initialise(private_copy(original.network), seed)
    network = trained(session, training, start, session.data.full_train)
    tuned, winner = _pruned(session, recipe, network, tuning)
    row = NetworkRow("pre-trained, pruned", PRETRAINED, "finetuned", seed=0)
    widths = tuple(original.space.widths.tolist())
    found = replace(
        row,
        widths=winner.candidate.widths,
        candidate=winner.candidate.index,
        epochs=float(tuning),
    )
    given = replace(row, stage="dense", widths=widths, epochs=float(epochs))
    return [entrant(session, tuned, found), entrant(session, network, given)]


def _pruned(
    session: Session, scratch: ScratchRecipe, network: nn.Module, epochs: int
) -> tuple[nn.Module, Finalist]:
    """The trained network pruned and fine-tuned, with records of its own in the work folder."""
    tuning = _tuning(session, scratch, epochs)
    recipe = _recipe(scratch, tuning)
    subject = Subject(network, session.original.space, session.original.budget)
    folder = session.work.folder / "pretrained"
    with Store.open(folder) as store:
        key = RunKey(
            kind="prune",
            recipe=recipe.document(),
            seed=recipe.seed,
            fingerprint=subject.space.fingerprint,
            weights_hash="",
            data_fingerprint=content_hash(session.data.describe()),
        )
        run = store.run(key)
        inner = Session(
            subject,
            subject,
            session.example,
            session.data,
            rules=recipe.search,
            seeds=session.seeds,
            work=WorkFolder(folder / "work"),
            ledger=run,
            progress=Renamed(session.progress, PRETRAINED, "Pre-trained route"),
            device=session.device,
        )
        # The same steps as in `randprune.jobs.pruning`, up to the fine-tuning.
        scores = prepared_scores(inner, recipe, criteria.create(recipe.criterion))
        quick = repairing(inner, scores, quick_form(recipe.recovery))
        strategy = create_strategy(recipe.search, inner.tables)
        info = SearchInfo(recipe.search.candidates, "", recipe.criterion, recipe.recovery)
        candidates = search_candidates(inner, run, info, strategy, quick[SEARCHED])
        controls = uniform_controls(inner, run, quick)
        thorough = repairing(inner, scores, recipe.finalists.recovery or recipe.recovery)
        count = recipe.finalists.count
        found = choose_winner(inner, run, candidates, controls, thorough, count, [])
        verify_cut(inner, run, found[SEARCHED].selection)
        tuned = fine_tune(inner, tuning, found, labels_of(recipe.search.strategy))
        for entry in run.ledger():
            key_of_entry = f"{PRETRAINED}/{entry.phase}/{entry.key}"
            session.ledger.add_cost(replace(entry, phase=PRETRAINED, key=key_of_entry))
    return tuned[SEARCHED], found[SEARCHED]


def _tuning(session: Session, asked: ScratchRecipe, epochs: int) -> FinetuneSection:
    """How the pruned network is fine-tuned: as networks are trained here, from a lower peak."""
    fields = asked.training.model_dump(include=set(FinetuneSection.model_fields))
    fields |= {"epochs": epochs, "lr": asked.pretrained.lr, "warmup_epochs": 0.0}
    return FinetuneSection(**{**fields, "seed": session.seeds.seed("finetune")})


def _recipe(asked: ScratchRecipe, tuning: FinetuneSection) -> PruneRecipe:
    """What is asked of the pre-trained route."""
    return PruneRecipe.parse(
        {
            "seed": asked.seed,
            "criterion": asked.pretrained.criterion,
            "recovery": asked.pretrained.recovery,
            "budget": asked.budget.model_dump(),
            "search": asked.search.model_dump(exclude={"rank_by"}),
            "finetune": tuning.model_dump(exclude_none=True),
        },
        "the pre-trained route",
    )
