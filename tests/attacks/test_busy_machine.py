"""A machine that is busy: the same seed gives the same engine, the same scores, the same bits."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from attacked import QUICK, images, network

import randprune as rp
from randprune.bench import BenchRecipe, run_bench
from randprune.errors import InvalidInputError
from randprune.evaluate import Evaluator, choose, choose_engine, rules, threads
from randprune.evaluate.rules import batch_of, fast_bfloat16
from randprune.executors import Processes
from randprune.zoo.splits import TensorSplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "executors"))

from halving import WORK, Half, Threads


def split(size: int = 8) -> TensorSplit:
    drawn = torch.randn(64, 3, size, size, generator=torch.Generator().manual_seed(1))
    return TensorSplit(drawn, torch.arange(64) % 4, (0.0,) * 3, (1.0,) * 3, num_classes=4)


@pytest.fixture
def fresh_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is remembered from other tests."""
    monkeypatch.setattr(choose, "_CHOSEN", {})


def erratic_clock(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Makes time jump: every way of running a network looks fast and slow in turn."""
    drawn = torch.rand(100_000, generator=torch.Generator().manual_seed(seed)).double()
    steps: Iterator[float] = itertools.accumulate((drawn.pow(8) + 1e-6).tolist())
    monkeypatch.setattr(time, "perf_counter", lambda: next(steps))


@pytest.mark.usefixtures("fresh_choice")
@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_the_clock_has_no_say_in_the_engine(
    monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    found = []
    for seed in range(3):
        choose._CHOSEN.clear()
        erratic_clock(monkeypatch, seed)
        found.append(choose_engine(network(), split(), precision=precision, device="cpu").document)
    assert found[0] == found[1] == found[2]
    measured = set()
    for seed in range(6):
        choose._CHOSEN.clear()
        erratic_clock(monkeypatch, seed)
        engine = choose_engine(network(), split(), device="cpu", choice="measured")
        measured.add(str(engine.document))
    assert len(measured) > 1, "the clock of this test must be able to change a measured choice"


def winner(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> bytes:
    choose._CHOSEN.clear()
    with monkeypatch.context() as patched:
        erratic_clock(patched, seed)
        rp.prune(network(), images(), candidates=4, out=folder, settings=QUICK)
    tensors = rp.load(folder / "pruned.safetensors", model=network()).state_dict()
    return b"".join(t.numpy().tobytes() for t in tensors.values())


@pytest.mark.usefixtures("fresh_choice")
def test_two_runs_give_the_same_bits_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (winner(tmp_path / str(n), monkeypatch, n) for n in (1, 2))
    assert first == second


@pytest.mark.parametrize(
    ("pixels", "dtype", "device", "expected"),
    [
        (8 * 8, "bfloat16", "cpu", 256),
        (32 * 32, "bfloat16", "cpu", 128),
        (32 * 32, "float32", "cpu", 64),
        (64 * 64, "bfloat16", "cpu", 32),
        (224 * 224, "bfloat16", "cpu", 8),
        (224 * 224, "float32", "cpu", 8),
        (1, "float32", "cpu", 256),
        (32 * 32, "bfloat16", "cuda", 1024),
        (224 * 224, "bfloat16", "cuda", 128),
        (4096 * 4096, "float32", "cuda", 32),
    ],
)
def test_batches_follow_the_size_of_an_image(
    pixels: int, dtype: Any, device: str, expected: int
) -> None:
    assert batch_of(pixels, dtype, device) == expected


@pytest.mark.usefixtures("fresh_choice")
@pytest.mark.parametrize(
    ("features", "limit", "dtype"),
    [
        ({"amx_bf16", "avx512_bf16"}, "", "bfloat16"),
        ({"amx_bf16"}, "AVX512_CORE_AMX", "bfloat16"),
        ({"amx_bf16"}, "AVX512_CORE_BF16", "float32"),
        ({"avx512_bf16"}, "", "float32"),
        (set(), "", "float32"),
    ],
)
def test_bfloat16_is_for_processors_with_matrix_units(
    monkeypatch: pytest.MonkeyPatch, features: set[str], limit: str, dtype: str
) -> None:
    monkeypatch.setattr(rules, "cpu_features", lambda: frozenset(features))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert fast_bfloat16("cpu") is (dtype == "bfloat16")
    assert Evaluator(split(), device="cpu").engine_for(network()).dtype == dtype
    exact = Evaluator(split(), precision="float32", device="cpu")
    assert exact.engine_for(network()).dtype == "float32"


@pytest.mark.usefixtures("fresh_choice")
@pytest.mark.parametrize("choice", ["rules", "measured"])
def test_the_recipe_says_what_chooses_the_engine(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noticed(kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: asked.append(kind) or make(*arguments)

    for kind in ("ruled", "measured"):
        name = f"{kind}_engine"
        monkeypatch.setattr(choose, name, noticed(kind, getattr(choose, name)))
    settings = {**QUICK, "search": {} if choice == "rules" else {"engine": choice}}
    rp.prune(network(), images(), candidates=1, settings=settings)
    assert set(asked) == {"ruled" if choice == "rules" else "measured"}


def test_benchmarks_choose_by_rules_unless_asked() -> None:
    assert BenchRecipe().proposals.engine == rp.PruneRecipe().search.engine == "rules"
    measured = BenchRecipe.parse({"proposals": {"engine": "measured"}})
    assert measured.proposals.engine == "measured"
    with pytest.raises(InvalidInputError, match=r"proposals\.engine"):
        BenchRecipe.parse({"proposals": {"engine": "fast"}})


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(InvalidInputError, match="'choice' parameter of choose_engine must be"):
        choose_engine(network(), split(), choice="fast")  # type: ignore[arg-type]


# -- threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "asked", "passive", "cores", "load", "expected", "why"),
    [
        (None, "", False, 8, 0.2, 8, "all usable cores"),
        (None, "", False, 8, 5.6, 2, "other processes use 6 of 8 cores"),
        (None, "", False, 2, 40.0, 1, "other processes use 40 of 2 cores"),
        (None, "", True, 8, 5.6, 8, "all usable cores"),
        (None, "3", False, 8, 5.6, 3, "OMP_NUM_THREADS"),
        (None, "nonsense", False, 8, 0.0, 8, "all usable cores"),
        (4, "3", False, 8, 5.6, 4, "the run began with it"),
    ],
)
def test_threads_are_decided_in_one_place(
    recorded: int | None,
    asked: str,
    passive: bool,
    cores: int,
    load: float,
    expected: int,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive" if passive else "")
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert threads.decide(recorded) == threads.Threads(expected, why)


def test_a_number_that_the_caller_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert threads.decide() == threads.Threads(3, "torch.set_num_threads")


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads.using(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


class Noticed:
    """Progress that notes the number of threads, and ends the job in a phase."""

    def __init__(self, stop: str = "") -> None:
        self.stop = stop
        self.threads: set[int] = set()

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        if phase != "trace":
            self.threads.add(torch.get_num_threads())

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        if phase == self.stop:
            raise KeyboardInterrupt

    def finish(self, phase: str) -> None:
        return


def prune_job(folder: Path, progress: Noticed) -> None:
    rp.prune(network(), images(), candidates=2, out=folder, settings=QUICK, progress=progress)


def scratch_job(folder: Path, progress: Noticed) -> None:
    rp.prune_from_scratch(
        network(), images(), candidates=2, supernet=1, training=1, out=folder, progress=progress,
        settings={**{k: v for k, v in QUICK.items() if k != "finalists"},
                  "controls": {"pretrained": False}},
    )  # fmt: skip


def bench_job(folder: Path, progress: Noticed) -> None:
    recipe = BenchRecipe.parse(
        {
            "plugins": ["attacked"],
            "model": {"spec": "attacked:Digits"},
            "data": {"spec": "digits", "calibration": 32, "search": 64},
            "pretrain": {"epochs": 1},
            "budget": {"tolerance": 0.2},
            "methods": {
                "random_search": {"options": {"candidates": 1}},
                "uniform": {},
                "random_channels": {},
            },
            "design": {"draws": 1, "epochs": [0]},
            "output": {"workers": 0},
        }
    )
    run_bench(recipe, out=folder, progress=progress)


@pytest.mark.parametrize(
    ("job", "phase"), [(prune_job, "search"), (scratch_job, "search"), (bench_job, "propose")]
)
def test_a_resumed_job_keeps_its_number_of_threads(
    job: Callable[[Path, Noticed], None],
    phase: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another number would change the last bits of what is left to do."""
    before = torch.get_num_threads()
    for asked, stop in (("2", phase), ("1", "")):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        progress = Noticed(stop)
        with pytest.raises(KeyboardInterrupt) if stop else contextlib.nullcontext():
            job(tmp_path, progress)
        assert progress.threads == {2}
    assert torch.get_num_threads() == before


def test_a_lone_unit_gets_the_threads_that_it_had_before_an_interruption(tmp_path: Path) -> None:
    """The last training of many runs on one thread, also where it is all that is left to do."""
    executor = Processes(WORK, {"factor": 1}, 2, tmp_path)
    try:
        with threads.using(2):
            for total, expected in ((1, 2.0), (7, 1.0), (None, 2.0)):
                ((_, found),) = executor.run([Threads()], lambda unit, share: None, total=total)
                assert found == Half(expected)
    finally:
        executor.close()


def test_commands_let_waiting_threads_sleep() -> None:
    """Threads that spin while they wait make two of them six times slower on a busy machine."""
    code = "import os, randprune.cli.waiting; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    for asked in ("", "active"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, **({"OMP_WAIT_POLICY": asked} if asked else {})},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [asked or "passive"]
