"""Units on a Ray cluster of three nodes, which tests start and stop; workers and nodes are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from halving import WORK, Half, Halve, Threads
from on_nodes import SLOW, Here, Sleep

from randprune.errors import InvalidInputError, StorageError
from randprune.executors import Failure, OnRay, on_ray
from randprune.store import Store
from randprune.zoo import build_model

ray = pytest.importorskip("ray", reason="Ray is not installed")
# Ray leaves files and processes to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
MEMORY = 80_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU each, on this machine."""
    from ray.cluster_utils import Cluster

    # What workers find must be what this process finds: these tests' own modules.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    found = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY,
        },
    )  # fmt: skip
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield found
    found.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def executor(cluster: Any, tmp_path: Path) -> Iterator[OnRay[Any, Any]]:
    made = OnRay(WORK, {"factor": 1}, None, cluster.address, tmp_path)
    yield made
    made.close()


def test_each_unit_comes_back_as_from_local_processes(executor: OnRay[Any, Any]) -> None:
    units = [Halve(float(number)) for number in range(1, 40)]
    found = dict(executor.run([*units, Halve(-1.0)], lambda unit, share: None))
    assert found.pop(Halve(-1.0)) == Failure("DataError: no half of -1.0")
    assert found == {unit: Half(unit.number / 2) for unit in units}
    one, two = Threads(), Halve(2.0)
    assert dict(executor.run([one, two], lambda unit, share: None))[one] == Half(1.0)
    with pytest.raises(StorageError, match="no space"):
        list(executor.run([Halve(0.0)], lambda unit, share: None))


def test_no_more_units_are_under_way_than_there_are_workers(cluster: Any, tmp_path: Path) -> None:
    """All nodes work at once, and ten thousand units would wait here, not there."""
    executor = OnRay(SLOW, {}, None, cluster.address, tmp_path)
    told: list[float] = []
    try:
        units = [Sleep(n, 0.3, str(tmp_path), together=3 if n < 3 else 1) for n in range(9)]
        found = dict(executor.run(units, lambda unit, share: told.append(share)))
        assert len({here.pid for here in found.values()}) == 3
        assert max(here.others for here in found.values()) == 2
        assert set(told) <= {0.5}
    finally:
        executor.close()
    assert not list(tmp_path.glob("ray-*"))


def test_a_worker_that_is_killed_gives_its_unit_back(cluster: Any, tmp_path: Path) -> None:
    executor = OnRay(SLOW, {}, 2, cluster.address, tmp_path)
    try:
        units = [Sleep(number, 0.5, str(tmp_path), dies=number in (1, 4)) for number in range(6)]
        found = dict(executor.run(units, lambda unit, share: None))
        assert sorted(here.number for here in found.values()) == list(range(6))
        always = Sleep(9, 0.1, str(tmp_path), dies=True, again=True)
        lost = dict(executor.run([always, units[0]], lambda unit, share: None))
        assert lost[always].error.startswith("Its worker was lost 3 times")
        assert isinstance(lost[units[0]], Here)
    finally:
        executor.close()


def test_a_node_that_goes_gives_its_units_to_the_others(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    executor = OnRay(SLOW, {}, None, cluster.address, tmp_path)
    try:
        units = [Sleep(number, 1.0, str(tmp_path)) for number in range(12)]
        running = executor.run(units, lambda unit, share: None)
        found = [next(running)]
        cluster.remove_node(node)
        found += running
        assert sorted(here.number for _, here in found) == list(range(12))
    finally:
        executor.close()


def test_nodes_of_other_versions_are_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = on_ray.versions()
    monkeypatch.setattr(on_ray, "versions", lambda: {**own, "torch": "1.0"})
    executor = OnRay(WORK, {"factor": 1}, 1, cluster.address, tmp_path)
    try:
        with pytest.raises(InvalidInputError, match=r"this process torch 1\.0\. Install the same"):
            list(executor.run([Halve(1.0)], lambda unit, share: None))
    finally:
        executor.close()


def test_a_folder_that_nodes_do_not_see_is_refused(cluster: Any, tmp_path: Path) -> None:
    executor = OnRay(WORK, {"factor": 1}, 1, cluster.address, tmp_path)
    try:
        executor._token.unlink()
        with pytest.raises(InvalidInputError, match="Give an --out that all nodes share"):
            list(executor.run([Halve(1.0)], lambda unit, share: None))
    finally:
        executor.close()


def test_work_that_no_node_can_open_says_why(cluster: Any, tmp_path: Path) -> None:
    executor = OnRay(WORK, ["no", "mapping"], 1, cluster.address, tmp_path)
    try:
        units = [Halve(1.0), Halve(2.0)]
        found = dict(executor.run(units, lambda unit, share: None))
        assert all("TypeError" in outcome.error for outcome in found.values())
    finally:
        executor.close()
    missing = type(WORK)("halving", "NOTHING", WORK.open, WORK.units, WORK.outcomes)
    executor = OnRay(missing, {}, 1, cluster.address, tmp_path)
    try:
        with pytest.raises(InvalidInputError, match="has no attribute 'NOTHING'"):
            list(executor.run(units, lambda unit, share: None))
    finally:
        executor.close()


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No Ray cluster answers"):
        OnRay(WORK, {}, 1, "ray://127.0.0.1:1", tmp_path)


def test_a_benchmark_has_the_same_records(cluster: Any, tmp_path: Path) -> None:
    """The smoke study in short, on the cluster and here; then the driver is killed on the way."""
    short = [
        "bench", "smoke", "--draws", "1", "--quiet", "--set", 'criteria=["l1","kl"]',
        "--set", "pretrain.epochs=1", "--set", "methods.random_search.options.candidates=2",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(folder: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "randprune", *short, *more, "--out", str(folder)]

    on_cluster = ("--executor", "ray", "--address", cluster.address)
    subprocess.run(command(tmp_path / "here", "--workers", "2"), env=environment, check=True)
    subprocess.run(command(tmp_path / "there", *on_cluster), env=environment, check=True)
    expected = results(tmp_path / "here")
    assert results(tmp_path / "there") == expected
    killed = tmp_path / "killed"
    with subprocess.Popen(command(killed, *on_cluster), env=environment) as process:
        while process.poll() is None and not recorded(killed):
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    subprocess.run(command(killed, *on_cluster), env=environment, check=True)
    assert results(killed) == expected


def test_a_search_has_the_same_candidates(cluster: Any, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(build_model("randprune:digits_cnn").state_dict(), weights)
    command = [
        sys.executable, "-m", "randprune", "prune", "randprune:digits_cnn", "--data", "digits",
        "--weights", str(weights), "-n", "10", "--quiet", "--set", "output.latency_seconds=0.0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = []
    for name, options in (
        ("here", ("--workers", "1")),
        ("there", ("--executor", "ray", "--address", cluster.address)),
    ):
        out = str(tmp_path / name)
        subprocess.run([*command, *options, "--out", out], env=environment, check=True)
        with Store.open(out, read_only=True) as store:
            found.append([(c.widths, c.scores) for c in store.latest().candidates()])
    assert found[0] == found[1]


def results(folder: Path) -> list[tuple[Any, ...]]:
    from randprune.bench import BenchRun

    return [
        (str(r.row), r.draw, r.epochs, r.test, r.proposal.selection, r.proposal.widths)
        for r in BenchRun.load(folder).results
    ]


def recorded(folder: Path) -> int:
    """How many proposals there are."""
    from randprune.report.states import states_of

    try:
        return states_of(folder)[0].stages[0].done
    except (StorageError, IndexError):
        return 0
