"""The pre-trained route as a control: train the original, prune it, fine-tune, at equal compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from randprune.cost import Budget
from randprune.graph.program import private_copy
from randprune.jobs.final import Entrant, entrant
from randprune.jobs.job import Job
from randprune.jobs.phases import Searched, search_and_train
from randprune.jobs.progress import Progress
from randprune.jobs.trained import Training
from randprune.recipe import FinetuneSection, PruneRecipe, ScratchRecipe
from randprune.store import PRETRAINED, SEARCHED, Candidate, RunKey, Store, content_hash
from randprune.supernet import initialise
from randprune.widening import widening_of

_BACKWARD_AND_FORWARD = 3


def pretrained_route(job: Job[ScratchRecipe], original: nn.Module, budget: Budget) -> list[Entrant]:
    """The network that the pre-trained setting finds at the compute of this job's winner.

    The compute is that of the shared weights, the search, and one final training. What the
    pre-trained route's own search costs comes off first; `pretrained.share` of the rest fine-tunes,
    and what is left trains the original network; both in whole epochs.
    """
    recipe = job.recipe
    step = widening_of(job.model)
    dense, images = step.space.cost("macs").dense, len(job.data.full_train)
    spent = sum(
        entry.macs_spent
        for entry in job.run.ledger()
        if entry.phase in ("supernet", "search") or entry.key == f"training/{SEARCHED}/0"
    )
    small = budget.ratio * dense if budget.metric == "macs" else dense
    searching = recipe.search.candidates * len(job.data.search_indices) * small
    epoch = _BACKWARD_AND_FORWARD * images
    tuning = max(1, round(recipe.pretrained.share * max(0.0, spent - searching) / (epoch * small)))
    rest = spent - searching - tuning * epoch * small
    epochs = max(1, round(rest / (epoch * dense)))
    section = recipe.training
    seed = job.seed("training", 0)
    plan = section.train_recipe(seed).replace(
        epochs=epochs, warmup_epochs=min(section.warmup_epochs, epochs)
    )
    training = Training(
        name="trained-original",
        label="original for the pre-trained route",
        text=f"Training the original network for {epochs} epochs",
        phase="pretrained",
        key="pretrained/training",
        recipe=plan,
        macs=dense,
    )
    trained = training.run(
        job, lambda: initialise(private_copy(original), seed), job.data.full_train, original
    )
    network, searched = _pruned(job, trained, budget, tuning)
    winner: Candidate = searched.found[SEARCHED].candidate
    label = "pre-trained, pruned"
    return [
        entrant(
            job,
            network,
            role=PRETRAINED,
            label=label,
            stage="finetuned",
            widths=winner.widths,
            candidate=winner.index,
            epochs=float(tuning),
            seed=0,
        ),
        entrant(
            job,
            trained,
            role=PRETRAINED,
            label=label,
            stage="dense",
            widths=tuple(step.space.widths.tolist()),
            epochs=float(epochs),
            seed=0,
        ),
    ]


def _pruned(
    job: Job[ScratchRecipe], trained: nn.Module, budget: Budget, epochs: int
) -> tuple[nn.Module, Searched]:
    """The trained network pruned and fine-tuned, with records of its own in the job's folder."""
    asked = job.recipe
    space = widening_of(job.model).space
    fields = asked.training.model_dump(include=set(FinetuneSection.model_fields))
    fields |= {"epochs": epochs, "lr": asked.pretrained.lr, "seed": job.seed("finetune")}
    fields["warmup_epochs"] = 0.0
    search = asked.search.model_dump(exclude={"rank_by"})
    recipe = PruneRecipe.parse(
        {
            "seed": asked.seed,
            "criterion": asked.pretrained.criterion,
            "recovery": asked.pretrained.recovery,
            "budget": asked.budget.model_dump(),
            "search": search,
            "finetune": {key: value for key, value in fields.items() if value is not None},
        },
        "the pre-trained route",
    )
    folder = job.work / "pretrained"
    with Store.open(folder) as store:
        key = RunKey(
            kind="prune",
            recipe=recipe.document(),
            seed=recipe.seed,
            fingerprint=space.fingerprint,
            weights_hash="",
            data_fingerprint=content_hash(job.data.describe()),
        )
        run = store.run(key)
        inner = Job(
            recipe=recipe,
            model=trained,
            space=space,
            example=job.example,
            data=job.data,
            budget=budget,
            run=run,
            work=folder / "work",
            progress=_Renamed(job.progress),
            device=job.device,
        )
        searched = search_and_train(inner)
        for entry in run.ledger():
            job.run.add_cost(
                replace(entry, phase=PRETRAINED, key=f"{PRETRAINED}/{entry.phase}/{entry.key}")
            )
    return searched.network, searched


class _Renamed:
    """Progress of the inner job, under names of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """A phase begins."""
        self._progress.start(f"{PRETRAINED}/{phase}", total, done, f"Pre-trained route: {text}")

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Steps are complete."""
        self._progress.advance(f"{PRETRAINED}/{phase}", done, metrics)

    def finish(self, phase: str) -> None:
        """The phase is complete."""
        self._progress.finish(f"{PRETRAINED}/{phase}")
