"""The pre-trained route as a control: train the original, prune it, fine-tune, at equal compute."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from randprune.graph.program import private_copy
from randprune.jobs.measure import Entrant, entrant
from randprune.jobs.progress import Renamed, epochs_in_words
from randprune.jobs.pruning import found_network
from randprune.jobs.session import Session, Subject
from randprune.jobs.train import NamedTraining, trained
from randprune.jobs.work_folder import WorkFolder
from randprune.recipe import FinetuneSection, PruneRecipe, ScratchRecipe
from randprune.store import (
    PRETRAINED,
    SEARCHED,
    NetworkRow,
    Run,
    RunKey,
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
        text=f"Training the original network for {epochs_in_words(epochs)}",
        phase="pretrained",
        key="pretrained/training",
        recipe=section.train_recipe(seed).replace(
            epochs=epochs, warmup_epochs=min(section.warmup_epochs, epochs)
        ),
        macs=dense,
    )
    start = initialise(private_copy(original.network), seed)
    network = trained(session, training, start, session.data.full_train)
    pruned = _pruned(session, recipe, network, tuning)
    row = NetworkRow("pre-trained, pruned", PRETRAINED, "finetuned", seed=0)
    widths = tuple(original.space.widths.tolist())
    found = replace(
        row,
        widths=pruned.row.widths,
        candidate=pruned.row.candidate,
        epochs=float(tuning),
    )
    given = replace(row, stage="dense", widths=widths, epochs=float(epochs))
    return [entrant(session, pruned.network, found), entrant(session, network, given)]


def _pruned(session: Session, scratch: ScratchRecipe, network: nn.Module, epochs: int) -> Entrant:
    """The trained network pruned and fine-tuned, with records of its own in the work folder."""
    recipe = _recipe(session, scratch, epochs)
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
        found = found_network(inner, run, recipe)
        for entry in run.ledger():
            key_of_entry = f"{PRETRAINED}/{entry.phase}/{entry.key}"
            session.ledger.add_cost(replace(entry, phase=PRETRAINED, key=key_of_entry))
    return next(e for e in found.entrants if (e.row.role, e.row.stage) == (SEARCHED, "finetuned"))


def _recipe(session: Session, asked: ScratchRecipe, epochs: int) -> PruneRecipe:
    """What is asked of the pre-trained route, with so many epochs of fine-tuning."""
    fields = asked.training.model_dump(include=set(FinetuneSection.model_fields))
    fields |= {"epochs": epochs, "lr": asked.pretrained.lr, "warmup_epochs": 0.0}
    fields["seed"] = session.seeds.seed("finetune")
    return PruneRecipe.parse(
        {
            "seed": asked.seed,
            "criterion": asked.pretrained.criterion,
            "recovery": asked.pretrained.recovery,
            "budget": asked.budget.model_dump(),
            "search": asked.search.model_dump(exclude={"rank_by"}),
            "finetune": {key: value for key, value in fields.items() if value is not None},
        },
        "the pre-trained route",
    )
