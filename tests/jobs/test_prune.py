"""The main job end to end on a tiny network: results, records, resume after a kill, errors."""

from __future__ import annotations

import copy
import dataclasses
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from pruning_jobs import CANDIDATES, SETTINGS, TRAINING, Tiny, Watch, digits, job, trained
from torch import nn

import randprune
from randprune import atomic
from randprune.cost import Budget
from randprune.criteria import L2
from randprune.errors import (
    DataError,
    InfeasibleBudgetError,
    InvalidInputError,
    StorageError,
    WeightsError,
)
from randprune.evaluate import Engine, Evaluator
from randprune.jobs import PruneResult, prune, run_recipe
from randprune.lineage import named_tensors
from randprune.recipe import PruneRecipe
from randprune.recovery import recoveries
from randprune.space import IntArray, Space
from randprune.store import (
    DENSE,
    FINALIST_TOP1,
    PROXY,
    RANDOM_CHANNELS,
    SEARCH_TOP1,
    SEARCHED,
    UNIFORM,
    ArtifactInfo,
    Store,
    UseOfTestSet,
)
from randprune.strategies import EvolutionSearch, RandomSearch, UniformSearch
from randprune.surgery import verify
from randprune.zoo.models import build_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture(scope="module")
def whole(folder: Path) -> PruneResult:
    """The job, done without interruption."""
    return job(folder)


def equal_networks(a: nn.Module, b: nn.Module) -> bool:
    left, right = named_tensors(a), named_tensors(b)
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


# -- what comes out -------------------------------------------------------------------------------


def test_the_result_meets_the_budget_and_is_verified(whole: PruneResult) -> None:
    macs = whole.space.cost("macs")
    assert abs(float(macs(whole.widths)) / macs.dense - 0.5) <= 0.03
    assert whole.verification.passed
    assert whole.configurations.shape == (CANDIDATES, len(whole.space))
    assert np.array_equal(whole.configurations[whole.winner.index], whole.widths)
    assert not whole.model.training
    with torch.no_grad():
        assert whole.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_winner_is_the_best_finalist_and_finalists_the_best_candidates(
    whole: PruneResult,
) -> None:
    minus_kl = whole.scores("minus_kl")
    _, first = np.unique(whole.configurations, axis=0, return_index=True)
    best = sorted(first.tolist(), key=lambda i: (-minus_kl[i], i))[:2]
    # Uniform widths are repaired as a control in any case.
    assert set(whole.winner.finalists) == {0, *best}
    final = whole.scores("finalist_minus_kl")
    assert whole.winner.index == int(np.nanargmax(final))
    assert np.isfinite(final).sum() == len({0, *best})


def test_uniform_widths_are_the_first_candidate_and_their_own_control(whole: PruneResult) -> None:
    widths = UniformSearch().ask(whole.space, whole.budget, 1, np.random.default_rng(0))[0]
    assert len(whole.configurations) == CANDIDATES
    assert np.array_equal(whole.configurations[0], widths)
    (control,) = [c for c in whole.candidates if c.method == UNIFORM]
    first = next(c for c in whole.candidates if (c.method, c.index) == (SEARCHED, 0))
    assert control == replace(first, method=UNIFORM, seconds={})
    keys = {entry.key for entry in whole.ledger}
    assert "searched/0" in keys
    assert "uniform/0" not in keys  # evaluated once
    assert "finalist/uniform/0" not in keys
    ours, theirs = whole.network(SEARCHED, "repaired"), whole.network(UNIFORM, "repaired")
    final = whole.scores("finalist_minus_kl")
    assert final[whole.winner.index] >= control.scores["finalist_minus_kl"] == final[0]
    assert (ours.widths == theirs.widths) == (whole.winner.index == 0)


class Narrow:
    """Proposes one bad configuration for ever: hardly anything of the second layer."""

    def ask(self, space: Space, budget: Budget, n: int, rng: np.random.Generator) -> IntArray:
        drawn = RandomSearch().ask(space, budget, 200, rng)
        return np.repeat(drawn[np.argmin(drawn[:, 1])][None], n, axis=0)


def test_a_search_that_finds_nothing_better_ends_with_uniform_widths() -> None:
    result = job(None, strategy=Narrow(), candidates=3, finetune=None)
    assert result.winner.index == 0
    assert result.network(SEARCHED).widths == result.network(UNIFORM).widths
    assert result.accuracy(SEARCHED, "repaired") == result.accuracy(UNIFORM, "repaired")


def test_uniform_widths_below_the_least_that_was_asked_for_are_no_candidate() -> None:
    loose = job(None, candidates=2, finetune=None, min_keep=0.6)
    (control,) = [c for c in loose.candidates if c.method == UNIFORM]
    share = np.array(control.widths) / loose.space.widths
    assert (share.min() < 0.6) == (control.widths not in map(tuple, loose.configurations.tolist()))
    assert (loose.configurations >= 0.6 * loose.space.widths).all()


def test_accuracies_are_those_of_the_networks(whole: PruneResult, folder: Path) -> None:
    test = digits().open_test("test")
    exact = Evaluator(test, precision="float32")
    assert whole.accuracy(DENSE) == exact.accuracy(trained()).top1 > 0.85
    assert whole.accuracy() == exact.accuracy(whole.model).top1
    assert whole.accuracy(SEARCHED, "repaired") > whole.accuracy(SEARCHED, "cut")
    roles = {(row.role, row.stage) for row in whole.networks}
    assert roles == {
        (DENSE, "dense"),
        *(
            (role, stage)
            for role in (SEARCHED, UNIFORM, RANDOM_CHANNELS)
            for stage in ("cut", "repaired")
        ),
        (SEARCHED, "finetuned"),
    }
    dense, small = whole.network(DENSE), whole.network(SEARCHED)
    assert dense.params == sum(p.numel() for p in trained().parameters())
    assert small.params == sum(p.numel() for p in whole.model.parameters())
    assert small.size_bytes is not None
    assert abs(small.size_bytes - (folder / "pruned.safetensors").stat().st_size) < 1000
    with pytest.raises(InvalidInputError, match=r"No network 'x'.*dense/dense"):
        whole.network("x")


def test_the_caller_keeps_its_network_and_its_random_state() -> None:
    network = copy.deepcopy(trained()).train()
    network.norm.eval()
    before, modes = copy.deepcopy(network), [m.training for m in network.modules()]
    keys = [set(vars(m)) for m in network.modules()]
    state = torch.random.get_rng_state()
    job(None, model=network, finetune=None, candidates=2)
    assert equal_networks(network, before)
    assert modes == [m.training for m in network.modules()]
    assert keys == [set(vars(m)) for m in network.modules()]
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_cut_is_exact(whole: PruneResult) -> None:
    small = randprune.cut(trained(), whole.space, whole.selection)
    error = verify(trained(), small, whole.space, whole.selection, torch.rand(2, 1, 8, 8))
    assert error < 1e-6
    assert whole.verification.relative_error is not None
    assert whole.verification.relative_error < 1e-6


def test_the_folder_holds_network_recipe_and_records(whole: PruneResult, folder: Path) -> None:
    assert whole.artifact == folder / "pruned.safetensors"
    back = randprune.load(whole.artifact, model=Tiny)
    assert equal_networks(back, whole.model)
    recipe = PruneRecipe.load(folder / "recipe.toml")
    assert recipe == whole.recipe
    assert recipe.finetune is not None
    assert recipe.finetune.epochs == 2
    assert not (folder / "work").exists()
    with Store.open(folder, read_only=True) as store:
        run = store.latest()
        assert run.finished
        artifact = run.read(ArtifactInfo)
        assert artifact is not None
        assert artifact.size_bytes == whole.artifact.stat().st_size
        assert [row.epoch for row in run.epochs("best of lagrangian")] == [1, 2]


def test_the_test_set_is_opened_once(tmp_path: Path) -> None:
    data = digits()

    class Check(Watch):
        def start(self, phase: str, total: int, done: int, text: str) -> None:
            super().start(phase, total, done, text)
            opened.append((phase, data.test_opened))

    opened: list[tuple[str, int]] = []
    job(tmp_path, Check(), data=data, candidates=2)
    assert [count for phase, count in opened if phase != "test"] == [0] * (len(opened) - 1)
    assert data.test_opened == 1
    with Store.open(tmp_path, read_only=True) as store:
        assert store.latest().read(UseOfTestSet) == UseOfTestSet(before_final=0, final=1)


def test_the_ledger_counts_what_was_done(whole: PruneResult) -> None:
    ledger = {entry.key: entry for entry in whole.ledger}
    candidates = [e for e in whole.ledger if e.phase == "search"]
    distinct = len(np.unique(whole.configurations, axis=0))
    assert sum(e.candidates for e in candidates) == len(candidates) == distinct
    macs = whole.space.cost("macs")
    for entry in candidates:
        widths = whole.configurations[int(entry.key.rpartition("/")[2])]
        assert entry.images_forward == 300
        assert entry.macs_spent == 300 * float(macs(widths))
    tuned = ledger["finetune/searched"]
    steps = 2 * (len(digits().full_train) // 64)
    assert tuned.images_forward == tuned.images_backward == 64 * steps
    assert tuned.macs_spent == 3 * tuned.images_forward * float(macs(whole.widths))
    assert ledger["moments"].images_forward == 200
    assert all(entry.seconds >= 0 for entry in whole.ledger)
    assert whole.seconds == sum(entry.seconds for entry in whole.ledger)


def test_progress_covers_every_phase() -> None:
    watch = Watch()
    job(None, watch, candidates=3)
    names = [name for name, _, _ in watch.phases]
    assert names == [
        "trace", "dense", "calibrate", "scores", "tables", "search", "controls", "finalists",
        "verify",
        "finetune/searched", "test",
    ]  # fmt: skip
    assert watch.finished == names
    for name, total, _ in watch.phases:
        done = [step for phase, step, _ in watch.steps if phase == name]
        assert done == sorted(done)
        assert all(step <= total for step in done)
    searched = [metrics["best_top1"] for phase, _, metrics in watch.steps if phase == "search"]
    assert len(searched) == 3
    assert searched == sorted(searched)


def test_the_summary_names_every_network(whole: PruneResult) -> None:
    text = whole.summary()
    words = "dense", "best of lagrangian", "uniform", "random channels", "fine-tuned", "verified"
    for word in words:
        assert word in text
    assert f"{100 * whole.accuracy(DENSE):.2f} %" in text
    assert str(whole.artifact) in text


def test_a_notebook_shows_a_table_of_the_same(whole: PruneResult) -> None:
    page = whole._repr_html_()
    assert page.count("<tr>") == 1 + len(whole.networks)
    assert f"{100 * whole.accuracy(DENSE):.2f} %" in page
    odd = replace(whole, notes=("a < b & c",))
    assert "<div>a &lt; b &amp; c</div>" in odd._repr_html_()


# -- determinism and resume -----------------------------------------------------------------------


def test_the_seed_decides_everything(whole: PruneResult, tmp_path: Path) -> None:
    again = job(None)
    assert again.winner == whole.winner
    assert np.array_equal(again.configurations, whole.configurations)
    assert equal_networks(again.model, whole.model)
    assert again.folder is None
    assert again.artifact is None
    # The first two are uniform widths and an optimum, which no seed decides.
    other = job(None, seed=1, finetune=None)
    assert not np.array_equal(other.configurations, whole.configurations)


def test_a_finished_job_is_only_read(whole: PruneResult, folder: Path) -> None:
    watch = Watch()
    again = job(folder, watch)
    assert [name for name, _, _ in watch.phases] == ["trace"]
    assert again.candidates == whole.candidates
    assert again.networks == whole.networks
    assert again.ledger == whole.ledger
    assert equal_networks(again.model, whole.model)


def killed(out: Path, phase: str, done: int) -> None:
    script = Path(__file__).with_name("pruning_jobs.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(out), phase, str(done)], capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def recorded(out: Path) -> tuple[object, ...]:
    with Store.open(out, read_only=True) as store:
        run = store.latest()
        return run.candidates(), run.ledger(), run.networks()


def without_times(result: PruneResult) -> list[object]:
    return [dataclasses.replace(c, seconds={}) for c in result.candidates]


def test_killed_in_the_search_it_goes_on_and_ends_the_same(
    whole: PruneResult, tmp_path: Path
) -> None:
    killed(tmp_path, "search", 3)
    before, ledger, _ = recorded(tmp_path)
    assert len(before) == 3
    watch = Watch()
    result = job(tmp_path, watch)
    search = next(phase for phase in watch.phases if phase[0] == "search")
    assert search == ("search", CANDIDATES, 3)
    assert sum(phase == "search" for phase, _, _ in watch.steps) == CANDIDATES - 3
    # Seconds differ whenever a candidate is made again.
    after = [c for c in result.candidates if c.method == SEARCHED][:3]
    assert [(c.widths, c.seconds) for c in after] == [(c.widths, c.seconds) for c in before]
    assert set(ledger) <= set(result.ledger)
    assert result.winner == whole.winner
    assert without_times(result) == without_times(whole)
    assert equal_networks(result.model, whole.model)


def test_killed_in_fine_tuning_it_goes_on_and_ends_the_same(
    whole: PruneResult, tmp_path: Path
) -> None:
    # 100 steps of progress an epoch: killed in the second of two.
    killed(tmp_path, "finetune/searched", 110)
    before, ledger, networks = recorded(tmp_path)
    assert networks == ()
    watch = Watch()
    result = job(tmp_path, watch)
    assert result.candidates == before
    assert set(ledger) <= set(result.ledger)
    trained_steps = [done for phase, done, _ in watch.steps if phase == "finetune/searched"]
    assert min(trained_steps) > 100
    assert not any(phase in ("search", "controls", "finalists") for phase, _, _ in watch.steps)
    assert result.winner == whole.winner
    assert equal_networks(result.model, whole.model)
    assert (tmp_path / "pruned.safetensors").read_bytes() == whole.artifact.read_bytes()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("phase", "done"),
    [("calibrate", 1), ("tables", 5), ("controls", 1), ("finalists", 1), ("test", 2)],
)
def test_interrupted_by_the_keyboard_it_goes_on(
    whole: PruneResult, tmp_path: Path, phase: str, done: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, Watch(phase, done, KeyboardInterrupt()))
    with Store.open(tmp_path, read_only=True) as store:
        assert store.latest().info.status == "interrupted"
    before = recorded(tmp_path)
    result = job(tmp_path)
    assert set(before[1]) <= set(result.ledger)  # type: ignore[call-overload]
    assert set(before[2]) <= set(result.networks)  # type: ignore[call-overload]
    assert result.winner == whole.winner
    assert equal_networks(result.model, whole.model)


def test_killed_within_the_statistics_it_goes_on_there(whole: PruneResult, tmp_path: Path) -> None:
    program = (
        "import sys; from randprune.recovery import partial; partial.EVERY_SECONDS = 0.0; "
        "from pruning_jobs import *; job(sys.argv[1], Watch('calibrate', 1))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parent, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    watch = Watch()
    result = job(tmp_path, watch)
    # 200 images in batches of 100, as candidates: the first batch is not seen again.
    assert ("calibrate", 200, 100) in watch.phases
    assert [done for phase, done, _ in watch.steps if phase == "calibrate"] == [200]
    assert equal_networks(result.model, whole.model)
    assert [c.scores for c in result.candidates] == [c.scores for c in whole.candidates]


def test_an_engine_that_was_measured_is_kept_for_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def choose(*_: object, precision: str, **__: object) -> Engine:
        measured.append(precision)
        return Engine(batch_size=7 * len(measured))

    monkeypatch.setattr("randprune.evaluate.evaluator.choose_engine", choose)
    settings = {**SETTINGS, "search": {"precision": "float32"}}
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, Watch("search", 2, KeyboardInterrupt()), settings=settings, finetune=None)
    assert measured == ["float32"]
    job(tmp_path, settings=settings, finetune=None)
    assert measured == ["float32"]


def test_another_recipe_in_the_same_folder_is_another_run(tmp_path: Path) -> None:
    first = job(tmp_path, candidates=2, finetune=None)
    second = job(tmp_path, candidates=3, finetune=None)
    assert first.artifact != second.artifact
    assert second.artifact == tmp_path / "pruned-2.safetensors"
    assert job(tmp_path, candidates=2, finetune=None).artifact == first.artifact
    with Store.open(tmp_path, read_only=True) as store:
        assert len(store.runs()) == 2


def test_a_finished_job_whose_file_is_gone_makes_it_again(tmp_path: Path) -> None:
    first = job(tmp_path, candidates=2)
    assert first.artifact is not None
    content = first.artifact.read_bytes()
    first.artifact.write_bytes(content[:-1])
    watch = Watch()
    again = job(tmp_path, watch, candidates=2)
    assert first.artifact.read_bytes() == content
    assert not any(phase == "search" for phase, _, _ in watch.steps)
    assert equal_networks(again.model, first.model)


# -- ways to call it ------------------------------------------------------------------------------


def test_tensors_as_data_objects_as_names_and_a_budget() -> None:
    train, test = digits().full_train, digits().open_test("test")
    pairs = tuple((s.images.float() / 255, s.labels) for s in (train, test))  # type: ignore[attr-defined]
    result = prune(
        trained(),
        pairs,
        Budget("params", 0.6, tolerance=0.02),
        L2(),
        candidates=2,
        recovery="none",
        strategy=RandomSearch(min_keep=0.3),
        settings={
            "search": {"precision": "float32"},
            "finalists": {"count": 1, "recovery": "bn"},
            "output": {"latency_seconds": 0.0},
        },
    )
    params = result.space.cost("params")
    assert abs(float(params(result.widths)) / params.dense - 0.6) <= 0.02
    assert result.recipe.criterion == "custom:L2()"
    assert (result.configurations >= 0.25 * result.space.widths).all()


@pytest.mark.parametrize("strategy", ["uniform", "evolution", "lagrangian", "proxy"])
def test_every_strategy_by_name(strategy: str) -> None:
    options = {"draws": 2000} if strategy == "proxy" else {}
    settings = {**SETTINGS, "search": {"precision": "float32", "options": options}}
    result = job(None, strategy=strategy, candidates=4, finetune=None, settings=settings)
    budget = Budget("macs", 0.5, 0.03)
    assert budget.fits(result.space.cost("macs"), result.configurations).all()
    if strategy == "uniform":  # equal configurations are evaluated once
        assert len({c.scores["minus_kl"] for c in result.candidates if c.method == SEARCHED}) == 1
        assert sum(e.candidates for e in result.ledger if e.phase == "search") == 1


def test_an_adaptive_strategy_object_is_left_as_it_was() -> None:
    strategy = EvolutionSearch(population=3, tournament=2)
    before = copy.deepcopy(strategy)
    job(None, strategy=strategy, candidates=6, finetune=None)
    assert len(strategy._members) == len(before._members) == 0


def test_predictions_are_recorded_where_the_strategy_makes_them() -> None:
    result = job(None, strategy="lagrangian", candidates=3, finetune=None)
    predicted = result.scores(PROXY)
    assert np.isfinite(predicted).all()
    assert predicted[1] == predicted.max()  # the first one has uniform widths


@pytest.mark.parametrize("rank_by", ["loss", "accuracy"])
def test_other_ways_to_rank(rank_by: str) -> None:
    settings = {**SETTINGS, "search": {"precision": "float32", "rank_by": rank_by}}
    result = job(None, finetune=None, candidates=4, settings=settings)
    key = {"loss": "minus_loss", "accuracy": SEARCH_TOP1}[rank_by]
    final = {"loss": "finalist_minus_loss", "accuracy": FINALIST_TOP1}[rank_by]
    best = np.argsort(-result.scores(key), kind="stable")[:2]
    assert set(result.winner.finalists) == {0, *best.tolist()}
    assert result.scores(final)[result.winner.index] == np.nanmax(result.scores(final))


def test_controls_are_fine_tuned_where_asked() -> None:
    training = {**TRAINING, "epochs": 1, "controls": True, "distill_weight": 0.5}
    result = job(None, candidates=2, finetune=training)
    tuned = {row.role for row in result.networks if row.stage == "finetuned"}
    assert tuned == {SEARCHED, UNIFORM, RANDOM_CHANNELS}


def test_latency_is_measured_side_by_side() -> None:
    settings = {**SETTINGS, "output": {"latency_seconds": 0.05}}
    result = job(None, candidates=2, finetune=None, settings=settings)
    dense, small = result.network(DENSE), result.network(SEARCHED)
    assert [entry.batch_size for entry in dense.latency] == [1, 32]
    assert all(entry.interleaved for entry in small.latency)
    assert [len(e.seconds) for e in dense.latency] == [len(e.seconds) for e in small.latency]


def test_a_whole_recipe_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of files in the recipe that is written are relative to it
    weights = tmp_path / "weights.safetensors"
    network = build_model("randprune:digits_cnn")
    safetensors.torch.save_file(network.state_dict(), weights)
    recipe = PruneRecipe.parse(
        {
            "model": {"spec": "randprune:digits_cnn", "weights": str(weights), "freeze": ["conv1"]},
            "data": {"spec": "digits", "calibration": 64, "search": 64},
            "search": {"candidates": 2, "precision": "float32"},
            "recovery": "bn",
            "finalists": {"count": 1, "recovery": ""},
            "output": {"folder": str(tmp_path / "run"), "latency_seconds": 0.0},
        }
    )
    result = run_recipe(recipe)
    assert result.folder == tmp_path / "run"
    assert result.artifact is not None
    assert equal_networks(randprune.load(result.artifact), result.model)
    again = run_recipe(PruneRecipe.load("run/recipe.toml"))
    assert (again.winner, again.artifact) == (result.winner, Path("run/pruned.safetensors"))


# -- what is refused ------------------------------------------------------------------------------


def test_a_budget_out_of_reach_gives_the_reachable_range(tmp_path: Path) -> None:
    with pytest.raises(
        InfeasibleBudgetError, match=r"MACs 0\.01±0\.03 was asked for, but 0\.\d+-1\.00 can"
    ):
        job(tmp_path, budget=0.01, min_keep=0.5)


def test_weights_that_are_not_finite() -> None:
    network = copy.deepcopy(trained())
    with torch.no_grad():
        network.second.weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"second\.weight holds 9 values that are NaN"):
        job(None, model=network)


def test_data_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="images but"):
        job(None, data=((torch.zeros(4, 1, 8, 8), torch.zeros(3, dtype=torch.int64)),) * 2)
    images, labels = torch.rand(40, 3, 8, 8), torch.arange(40) % 10
    with pytest.raises(InvalidInputError, match="does not run on the example inputs"):
        job(None, data=((images, labels), (images, labels)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"criterion": "l3"}, r"'criterion' in the parameters of prune: No criterion .*'l3'"),
        ({"recovery": "magic"}, r"'recovery' .*No recovery is called 'magic'"),
        ({"candidates": 0}, r"'search\.candidates' .*greater than or equal to 1"),
        ({"strategy": "gues"}, r"'search\.strategy' .*No search strategy is called 'gues'"),
        ({"finetune": {"epoch": 1}}, r"Unknown key 'finetune\.epoch'.*'finetune\.epochs'"),
        ({"finetune": True}, r"'finetune' parameter of prune .* Got True"),
        ({"settings": {"finalist": {}}}, r"Unknown key 'finalist'.*Did you mean 'finalists'"),
        ({"min_keep": 2.0}, r"'search\.min_keep' .*less than or equal to 1"),
    ],
)
def test_parameters_that_cannot_mean_anything(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        job(None, **changes)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    watch = Watch()
    with pytest.raises(StorageError, match="file"):
        job(tmp_path / "file" / "run", watch)
    assert watch.phases == []  # before any work


def test_a_disk_that_fills_up_keeps_what_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: PruneResult
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            job(tmp_path)
    assert job(tmp_path).winner == whole.winner


def test_a_folder_in_use(tmp_path: Path) -> None:
    with Store.open(tmp_path), pytest.raises(StorageError, match="in use"):
        job(tmp_path)


def test_a_recipe_without_a_network_or_with_objects() -> None:
    with pytest.raises(InvalidInputError, match=r"no \[model\] section"):
        run_recipe(PruneRecipe())
    with pytest.raises(InvalidInputError, match=r"no \[data\] section"):
        run_recipe(PruneRecipe.parse({"model": {"spec": "randprune:resnet20"}}))
    document = {
        "model": {"spec": "randprune:resnet20"},
        "data": {"spec": "digits"},
        "criterion": "custom:L1()",
    }
    with pytest.raises(InvalidInputError, match=r"criterion was given as an object"):
        run_recipe(PruneRecipe.parse(document))


def test_candidates_that_fail_are_listed_and_never_win() -> None:
    @dataclasses.dataclass
    class Fragile:
        name = "fragile"
        needs: frozenset[str] = frozenset()
        calls: int = 0

        def apply(self, small: nn.Module, context: object) -> nn.Module:
            Fragile.calls += 1
            if Fragile.calls in (2, 3):
                raise DataError("this one breaks")
            return small

    recoveries.register("fragile")(Fragile)  # type: ignore[arg-type]
    try:
        settings = {**SETTINGS, "finalists": {"count": 2, "recovery": "none"}}
        result = job(None, recovery="fragile", finetune=None, candidates=4, settings=settings)
        failed = [
            c.index for c in result.candidates if c.method == SEARCHED and c.status == "failed"
        ]
        assert failed == [1, 2]
        assert result.winner.index in (0, 3)
        assert "this one breaks" in next(c.error for c in result.candidates if c.index == 1)
        Fragile.calls = -100
        Fragile.apply = lambda *_: (_ for _ in ()).throw(DataError("never"))  # type: ignore[assignment,method-assign]
        with pytest.raises(DataError, match=r"All 2 candidates failed, the first with: .*never"):
            job(None, recovery="fragile", finetune=None, candidates=2, settings=settings)
    finally:
        recoveries.unregister("fragile")
