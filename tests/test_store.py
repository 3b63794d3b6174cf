"""Records survive everything a job may meet: kill -9, a full disk, a second job, a damaged file."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from light_process import command
from randprune.cost import QuadraticCost
from randprune.errors import InvalidInputError, StorageError
from randprune.report.status import shared_openings
from randprune.space import ChannelGroup, FrozenChannels, Space
from randprune.store import (
    Accuracy,
    ArtifactInfo,
    BudgetInfo,
    Candidate,
    CostEntry,
    FrozenInfo,
    GroupInfo,
    Latency,
    Milestone,
    ModelInfo,
    NetworkRow,
    Notes,
    Reproduce,
    Run,
    RunKey,
    SearchInfo,
    SpaceInfo,
    Store,
    UseOfTestSet,
    Verification,
    Winner,
    content_hash,
    openings_of,
)
from randprune.store.codec import decode, encode, pack_widths, unpack_widths

KEY = RunKey("prune", {"budget": 0.5, "candidates": 100}, seed=3, fingerprint="abc")
MADE_WITH = {"versions": {"randprune": "0"}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "out") as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> Run:
    return store.run(KEY, MADE_WITH)


def candidate(index: int, **changes: object) -> Candidate:
    values: dict[str, object] = {
        "widths": (16, 3 * index + 1, 300),
        "seed": (1 << 64) - 1 - index,
        "costs": {"macs": 62_914_560.0, "params": 1e17},
        "scores": {"proxy": -0.1 - index / 3, "search_top1": 0.1 + 0.2},
        "seconds": {"recover": 0.061},
        "selection": "0123abcd",
    }
    return Candidate(index, **{**values, **changes})  # type: ignore[arg-type]


# -- what is written is what is read ---------------------------------------------------------------


def test_rows_come_back_as_they_were_also_in_another_process(store: Store, run: Run) -> None:
    candidates = (
        candidate(0),
        candidate(1, seed=None, status="failed", error="NaN weights"),
        candidate(0, method="uniform"),
    )
    network = NetworkRow(
        label="best random",
        role="searched",
        stage="finetuned",
        test=Accuracy(9210, 10_000),
        search=Accuracy(4700, 5000),
        macs=62.9e6,
        params=430_000,
        size_bytes=1_732_000,
        latency=(Latency((0.1, 0.1 + 1e-17, 1 / 3), batch_size=64, threads=2, interleaved=True),),
        widths=(16, 3, 300),
        candidate=17,
        recovery="least_squares+bn",
        epochs=3,
        seed=1,
    )
    entry = CostEntry("search", "random/0", 1, 5000, 0, 3.1e11, 0.37, "cpu")
    for row in candidates:
        run.record_candidate(row)
    run.put_network(network)
    run.record_epoch("best random", 1, {"train_loss": 1 / 3})
    run.add_cost(entry)
    run.put("anything", {"a": [1, None, True, "é\n\u2028"], "b": {"c": -0.0}})

    with Store.open(store.folder, read_only=True) as reader:
        found = reader.latest()
        assert found.candidates() == (candidates[0], candidates[1], candidates[2])
        assert found.candidates("uniform") == (candidates[2],)
        assert found.candidate(1) == candidates[1]
        assert found.candidate(2) is None
        assert found.networks() == (network,)
        assert found.epochs()[0].metrics == {"train_loss": 1 / 3}
        assert found.ledger() == (entry,)
        assert found.get("anything") == {"a": [1, None, True, "é\n\u2028"], "b": {"c": -0.0}}
        assert found.get("nothing", 5) == 5
        assert found.info.recipe == KEY.recipe
        assert found.info.seed == 3
        assert found.info.status == "running"


@pytest.mark.parametrize(
    "milestone",
    [
        ModelInfo(
            "ResNet-56", "randprune:resnet56", "a1b2", "npz:cifar10", 10, (3, 32, 32), {"t": 1}
        ),
        SpaceInfo(
            "f", (GroupInfo("conv1", 16),), (FrozenInfo("fc", 10, 10, "outputs"),), {"m": 1.0}
        ),
        SpaceInfo("f", (), reachable=(0.01, 1.0)),
        BudgetInfo("macs", 0.5, 0.005),
        SearchInfo(100, "searched", "l1", "least_squares+bn", 5000, 12_345, 0.31),
        Winner(17, "searched", (17, 3)),
        Verification(True, 1e-7, 1e-4),
        ArtifactInfo("small.safetensors", 1_732_000, "00ff"),
        Reproduce("randprune prune recipe.toml", "seed = 0\n"),
        UseOfTestSet(0, 7),
        Notes(("channel-wise repair in 2 layers",)),
    ],
    ids=lambda milestone: type(milestone).__name__,
)
def test_milestones_come_back_as_they_were(run: Run, milestone: Milestone) -> None:
    assert run.read(type(milestone)) is None
    run.write(milestone)
    run.write(milestone)
    assert run.read(type(milestone)) == milestone
    assert list(run.milestones()) == [milestone.KEY]


def test_milestone_of_a_later_version_keeps_what_is_known(run: Run) -> None:
    run.put("winner", {"index": 4, "method": "searched", "finalists": [4], "new": 1})
    assert run.read(Winner) == Winner(4, "searched", (4,))
    run.put("winner", {"position": 4})
    with pytest.raises(StorageError, match=r"stored Winner does not fit .* first is 'index'"):
        run.read(Winner)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_to_the_last_bit(value: float) -> None:
    found = decode(encode({"x": value}))["x"]
    assert np.float64(found).tobytes() == np.float64(value).tobytes()


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 63) - 1), max_size=40))
def test_widths_come_back(widths: list[int]) -> None:
    blob = pack_widths(widths)
    assert unpack_widths(blob) == tuple(widths)
    if widths and max(widths) < 256:
        assert len(blob) == len(widths) + 1


def test_numbers_of_numpy_are_stored_as_the_equal_python_numbers(run: Run) -> None:
    widths = np.array([3, 70_000], dtype=np.int64)
    row = Candidate(np.int64(2), widths, scores={"a": np.float32(0.1), "n": np.int32(4)})  # type: ignore[arg-type, dict-item]
    run.record_candidate(row)
    found = run.candidate(np.int64(2))  # type: ignore[arg-type]
    assert found is not None
    assert found == run.candidate(2)
    assert found.widths == (3, 70_000)
    assert found.scores == {"a": float(np.float32(0.1)), "n": 4}


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), -math.inf])
def test_what_is_not_finite_is_refused_with_its_place(run: Run, bad: float) -> None:
    with pytest.raises(InvalidInputError, match=r"Cannot store .* at scores\.search_top1"):
        run.record_candidate(candidate(0, scores={"search_top1": bad}))
    with pytest.raises(InvalidInputError, match=r"at network\.macs"):
        run.put_network(NetworkRow("a", "searched", "cut", macs=bad))
    with pytest.raises(InvalidInputError, match=r"at seconds"):
        run.add_cost(CostEntry("search", seconds=bad))
    with pytest.raises(InvalidInputError, match=r"at curve\.x\[1\]"):
        run.put("curve", {"x": [0.0, bad]})
    assert run.candidates() == ()
    assert run.networks() == ()
    assert run.ledger() == ()


def test_what_json_would_change_is_refused(run: Run) -> None:
    with pytest.raises(InvalidInputError, match="the key 3 at table: JSON keys are strings"):
        run.put("table", {3: "three"})
    with pytest.raises(InvalidInputError, match="Cannot store a set at table"):
        run.put("table", {1, 2})
    with pytest.raises(InvalidInputError, match="'images_forward' parameter of CostEntry"):
        run.add_cost(CostEntry("search", images_forward=-1))
    with pytest.raises(InvalidInputError, match=r"'correct' parameter of Accuracy .* 11 of 10"):
        Accuracy(11, 10)


def test_text_that_is_not_unicode_is_stored_readably(run: Run) -> None:
    run.record_candidate(candidate(0, status="failed", error="cannot read 'a\udcff.jpg'"))
    found = run.candidate(0)
    assert found is not None
    assert found.error == "cannot read 'a?.jpg'"


def test_space_summary_of_a_traced_space() -> None:
    cost = QuadraticCost(
        "macs", "MACs", np.eye(1), np.zeros(1), 0.0, np.array([16], dtype=np.int64)
    )
    frozen = FrozenChannels("fc", "fc.weight", 0, 10, 10, "network output")
    space = Space((ChannelGroup("conv1", 16, ()),), (frozen,), {"macs": cost})
    assert SpaceInfo.from_space(space, (0.1, 1.0)) == SpaceInfo(
        space.fingerprint,
        (GroupInfo("conv1", 16),),
        (FrozenInfo("fc", 10, 10, "network output"),),
        {"macs": 256.0},
        (0.1, 1.0),
    )


# -- the same job again ----------------------------------------------------------------------------


def test_same_key_continues_and_another_key_begins_anew(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        run = store.run(KEY, MADE_WITH)
        assert not run.resumed
        run.record_candidate(candidate(0))
    with Store.open(tmp_path) as store:
        again = store.run(RunKey("prune", {"candidates": 100, "budget": 0.5}, 3, "abc"), MADE_WITH)
        assert again.resumed
        assert again.id == run.id
        assert again.candidate(0) == candidate(0)
        assert len(again.sessions()) == 2
        for other in (
            RunKey("prune", KEY.recipe, seed=4, fingerprint="abc"),
            RunKey("prune", {**KEY.recipe, "budget": 0.3}, seed=3, fingerprint="abc"),
            RunKey("prune", KEY.recipe, seed=3, fingerprint="abc", weights_hash="w"),
            RunKey("prune", KEY.recipe, seed=3, fingerprint="abc", data_fingerprint="d"),
            RunKey("scratch", KEY.recipe, seed=3, fingerprint="abc"),
        ):
            new = store.run(other, MADE_WITH)
            assert not new.resumed
            assert new.candidates() == ()
        assert len(store.runs()) == 6
        assert store.latest().info.kind == "scratch"


def test_recipe_hash_is_that_of_its_content_in_any_process(start: Start) -> None:
    assert KEY.recipe_hash == content_hash({"candidates": 100, "budget": 0.5})
    process = start(
        "from randprune.store import RunKey; print(RunKey('prune', {'b': 1.5}, 3).digest)"
    )
    printed, _ = process.communicate()
    assert printed.strip() == RunKey("prune", {"b": 1.5}, 3).digest


def test_how_a_run_ends_is_recorded(store: Store) -> None:
    with pytest.raises(RuntimeError, match="boom"), store.run(KEY, MADE_WITH):
        raise RuntimeError("boom at '/home/somebody/x.npz'")
    assert store.latest().info.status == "failed"
    assert store.latest().info.error == "RuntimeError: boom at '.../x.npz'"

    run = store.run(KEY, MADE_WITH)
    assert run.info.status == "running"
    assert run.info.error == ""
    with pytest.raises(KeyboardInterrupt), run:
        raise KeyboardInterrupt
    assert store.latest().info.status == "interrupted"

    with store.run(KEY, MADE_WITH):
        pass
    finished = store.latest().info
    assert finished.status == "finished"
    assert finished.finished >= finished.started

    run = store.run(KEY, MADE_WITH)
    assert run.finished
    with pytest.raises(RuntimeError), run:
        raise RuntimeError("while reporting")
    assert store.latest().info == finished


def test_costs_of_a_step_done_again_count_once(run: Run) -> None:
    for seconds in (3.0, 2.5):
        run.add_cost(CostEntry("search", "random/0", 1, 5000, 0, 1e9, seconds))
        run.add_cost(CostEntry("trace", seconds=1.0))
        run.record_candidate(candidate(0), [CostEntry("search", "random/1", 1, 5000)])
        run.record_epoch("best", 1, {}, [CostEntry("finetune", "best/1", images_backward=50_000)])
    assert [(e.key, e.seconds) for e in run.ledger()] == [
        ("random/0", 2.5),
        ("trace", 1.0),
        ("random/1", 0.0),
        ("best/1", 0.0),
    ]


def test_a_row_recorded_again_is_replaced_in_its_place(run: Run) -> None:
    run.put_network(NetworkRow("dense", "dense", "dense"))
    run.put_network(NetworkRow("best", "searched", "cut"))
    run.put_network(NetworkRow("dense", "dense", "dense", macs=5.0))
    run.put_network(NetworkRow("best", "searched", "finetuned", seed=0))
    run.put_network(NetworkRow("best", "searched", "finetuned", seed=1))
    assert [(n.label, n.stage, n.seed, n.macs) for n in run.networks()] == [
        ("dense", "dense", None, 5.0),
        ("best", "cut", None, None),
        ("best", "finetuned", 0, None),
        ("best", "finetuned", 1, None),
    ]


# -- transactions ----------------------------------------------------------------------------------


def test_transaction_keeps_all_or_nothing(run: Run) -> None:
    def record_and_fail() -> None:
        with run.transaction():
            run.record_candidate(candidate(0))
            run.write(Winner(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        record_and_fail()
    assert run.candidates() == ()
    assert run.read(Winner) is None

    with pytest.raises(InvalidInputError):
        run.record_candidate(candidate(0), [CostEntry("search", seconds=math.nan)])
    assert run.candidates() == ()

    with pytest.raises(InvalidInputError):
        run.record_candidates([candidate(0), candidate(1, scores={"a": math.nan})])
    assert run.candidates() == ()
    run.record_candidates(candidate(i) for i in range(20))
    assert len(run.candidates()) == 20


def test_caller_who_survives_an_inner_error_keeps_the_rest_whole(run: Run) -> None:
    with run.transaction():
        run.record_candidate(candidate(0))
        with pytest.raises(InvalidInputError):
            run.record_candidate(candidate(1), [CostEntry("search", seconds=math.nan)])
        run.record_candidate(candidate(2))
    assert [c.index for c in run.candidates()] == [0, 2]


def test_threads_may_record_at_the_same_time(run: Run) -> None:
    def record(method: str) -> None:
        for i in range(10):
            run.record_candidate(candidate(i, method=method))

    threads = [threading.Thread(target=record, args=(f"m{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.candidates()) == 40


# -- other processes -------------------------------------------------------------------------------

WRITER = """
    import sys
    from randprune.store import Candidate, CostEntry, RunKey, Store
    store = Store.open(sys.argv[1])
    run = store.run(RunKey("prune", {}, 0), {})
    first = len(run.candidates())
    for i in range(first, 100_000):
        step = CostEntry("search", f"random/{i}", 1, 500)
        run.record_candidate(Candidate(i, (i,) * 300, scores={"x": i / 7}), [step])
        print(i, flush=True)
"""


class Start(Protocol):
    """Runs a Python script in a process of its own, which ends with the test at the latest."""

    def __call__(self, script: str, *arguments: object) -> subprocess.Popen[str]: ...


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def begin(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(script, *arguments),
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        with process:  # closes its pipe and waits for it
            process.kill()


def finish(process: subprocess.Popen[str]) -> str:
    """Kill it as an out-of-memory killer would, and return what it had still printed."""
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    return rest


def test_kill_9_in_a_loop_of_commits_loses_nothing_that_returned(
    tmp_path: Path, start: Start
) -> None:
    recorded = -1
    for round_, lines in enumerate((1, 40, 7, 111)):
        process = start(WRITER, tmp_path)
        assert process.stdout is not None
        for _ in range(lines):
            recorded = int(process.stdout.readline())
        for line in finish(process).splitlines(keepends=True):
            recorded = int(line) if line.endswith("\n") else recorded

        with Store.open(tmp_path, read_only=True) as reader:
            rows = reader.latest().candidates()
            # At most one more than was printed: committed, but killed before its print.
            assert len(rows) in (recorded + 1, recorded + 2)
            assert rows == tuple(
                Candidate(i, (i,) * 300, scores={"x": i / 7}) for i in range(len(rows))
            )
            assert len(reader.latest().ledger()) == len(rows)
            assert reader.is_live() is False
            assert len(reader.latest().sessions()) == round_ + 1
            assert reader.rows("PRAGMA integrity_check") == [("ok",)]
    with Store.open(tmp_path) as store:
        assert store.rows("PRAGMA integrity_check") == [("ok",)]
        assert {session.ended for session in store.latest().sessions()} == {"killed"}


def test_second_process_is_refused_until_the_first_is_dead(tmp_path: Path, start: Start) -> None:
    process = start(WRITER, tmp_path)
    assert process.stdout is not None
    process.stdout.readline()

    with pytest.raises(
        StorageError, match=rf"in use by process {process.pid}, at work since .*Z\."
    ):
        Store.open(tmp_path)
    with Store.open(tmp_path, read_only=True) as reader:
        assert reader.is_live() is True
        for _ in range(3):
            printed = int(process.stdout.readline())
            assert len(reader.latest().candidates()) > printed
        with reader.snapshot():
            seen = len(reader.latest().candidates())
            while int(process.stdout.readline()) < seen + 30:
                pass
            assert len(reader.latest().candidates()) == seen
        assert len(reader.latest().candidates()) > seen + 30

    finish(process)
    with Store.open(tmp_path) as store:
        assert store.run(RunKey("prune", {}, 0), {}).resumed


def test_lock_ends_with_its_process_though_its_forked_workers_live(
    tmp_path: Path, start: Start
) -> None:
    process = start(
        """
        import os, sys, time
        from randprune.store import RunKey, Store
        store = Store.open(sys.argv[1])
        store.run(RunKey("prune", {}, 0), {})
        worker = os.fork()
        if worker == 0:
            time.sleep(3600)
            os._exit(0)
        print(worker, flush=True)
        time.sleep(3600)
        """,
        tmp_path,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(StorageError, match=f"in use by process {process.pid}"):
            Store.open(tmp_path)
        process.kill()
        process.wait()
        os.kill(worker, 0)  # still alive, or the next line shows nothing
        Store.open(tmp_path).close()
    finally:
        os.kill(worker, signal.SIGKILL)
        process.communicate()


def test_folder_is_locked_within_one_process_too_and_freed_by_close(tmp_path: Path) -> None:
    with Store.open(tmp_path), pytest.raises(StorageError, match="in use by another process"):
        Store.open(tmp_path)
    Store.open(tmp_path).close()


def test_use_in_a_fork_is_refused(tmp_path: Path, start: Start) -> None:
    process = start(
        """
        import os, sys
        from randprune.errors import StorageError
        from randprune.store import RunKey, Store
        store = Store.open(sys.argv[1])
        run = store.run(RunKey("prune", {}, 0), {})
        if os.fork() == 0:
            try:
                run.put("a", 1)
            except StorageError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
        run.put("b", 2)
        """,
        tmp_path,
    )
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert "used in its fork" in printed
    with Store.open(tmp_path, read_only=True) as reader:
        assert reader.latest().milestones() == {"b": 2}


# -- disks and files that do not play along --------------------------------------------------------


def test_full_disk_is_told_and_leaves_what_was_recorded(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        run = store.run(KEY, MADE_WITH)
        run.record_candidate(candidate(0))
        (pages,) = store.rows("PRAGMA page_count")[0]
        store.rows(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StorageError, match=r"disk is full: free some space .* nothing"):
            run.put("big", "x" * 100_000)
        run.put("small", "y")
        assert run.get("big") is None
    with Store.open(tmp_path) as store:
        assert store.latest().candidate(0) == candidate(0)


def test_file_size_limit_is_told_and_the_job_can_go_on_later(tmp_path: Path, start: Start) -> None:
    process = start(
        """
        import resource, sys
        from randprune.errors import StorageError
        from randprune.store import Candidate, RunKey, Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        try:
            with Store.open(sys.argv[1]) as store, store.run(RunKey("prune", {}, 0), {}) as run:
                for i in range(10_000):
                    run.record_candidate(Candidate(i, (300,) * 500))
                    recorded = i
        except StorageError as error:
            print(recorded, error, flush=True)
        """,
        tmp_path,
    )
    printed, _ = process.communicate()
    assert process.returncode == 0
    recorded, message = printed.split(maxsplit=1)
    assert "free some space" in message
    with Store.open(tmp_path) as store:
        run = store.run(RunKey("prune", {}, 0), {})
        assert run.resumed
        assert [c.index for c in run.candidates()] == list(range(int(recorded) + 1))
        run.record_candidate(Candidate(int(recorded) + 1, (1,)))


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot create records.sqlite .* Choose an output"):
        Store.open(tmp_path / "file" / "out")
    with pytest.raises(StorageError, match="Cannot create"):
        Store.open(tmp_path / "file")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def unprivileged(start: Start, folder: Path, script: str) -> str:
    """Run a script as a user who may not write to `folder`."""
    folder.chmod(0o555)
    prologue = """
        import os, sys
        from randprune.errors import StorageError
        from randprune.store import Store
        if os.geteuid() == 0:
            os.setgid(65534); os.setuid(65534)
    """
    process = start(textwrap.dedent(prologue) + textwrap.dedent(script), folder)
    printed, _ = process.communicate()
    folder.chmod(0o755)
    assert process.returncode == 0
    return printed


def test_folder_that_cannot_be_written(public_folder: Path, start: Start) -> None:
    printed = unprivileged(
        start,
        public_folder,
        """
        try:
            Store.open(sys.argv[1])
        except StorageError as error:
            print(error)
        """,
    )
    assert "Cannot lock records.lock" in printed
    assert "choose another output folder" in printed


def test_records_can_be_read_in_a_folder_that_cannot_be_written(
    public_folder: Path, start: Start
) -> None:
    with Store.open(public_folder) as store:
        store.run(KEY, MADE_WITH).record_candidate(candidate(0))
    printed = unprivileged(
        start,
        public_folder,
        """
        with Store.open(sys.argv[1], read_only=True) as store:
            print(len(store.latest().candidates()), store.is_live())
        """,
    )
    assert printed.split() == ["1", "None"]


def test_reading_needs_records_and_never_writes(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"No records in .*Give the output folder"):
        Store.open(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "records.sqlite").touch()
    with pytest.raises(StorageError, match="yet: the run has only just begun"):
        Store.open(tmp_path, read_only=True)
    with Store.open(tmp_path) as store:
        with pytest.raises(StorageError, match=r"No run in .* yet"):
            store.latest()
        store.run(KEY, MADE_WITH)
    with Store.open(tmp_path, read_only=True) as reader:
        with pytest.raises(StorageError, match="opened for reading only"):
            reader.latest().put("a", 1)
        with pytest.raises(StorageError, match="opened for reading only"):
            reader.run(KEY, MADE_WITH)


@pytest.mark.parametrize("read_only", [False, True])
def test_file_that_is_not_ours(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "records.sqlite"
    path.write_bytes(b"not a database, only text " * 100)
    with pytest.raises(StorageError, match=r"not an SQLite database: move the file away"):
        Store.open(tmp_path, read_only=read_only)

    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE music (title TEXT)")
    other.close()
    with pytest.raises(StorageError, match=r"not written by randprune\. Choose another output"):
        Store.open(tmp_path, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_records_of_a_newer_version(tmp_path: Path, read_only: bool) -> None:
    Store.open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "records.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match=r"format 99, .* reads up to 2\. Upgrade randprune"):
        Store.open(tmp_path, read_only=read_only)


def test_damaged_records(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        run = store.run(KEY, MADE_WITH)
        run.record_candidates(candidate(i) for i in range(500))
    path = tmp_path / "records.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="database is damaged: move the file away"):
        Store.open(tmp_path)


def test_records_altered_by_hand(store: Store, run: Run) -> None:
    run.record_candidate(candidate(0))
    store.execute("UPDATE candidates SET scores = '{'")
    with pytest.raises(StorageError, match="altered outside randprune"):
        run.candidates()
    store.execute("UPDATE candidates SET scores = '{}', widths = x'0311'")
    with pytest.raises(StorageError, match="configuration is damaged"):
        run.candidates()


# -- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    # Newcombe 1998, table I, method 3 (Wilson without continuity correction).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 1 - 0.1170, 1.0),
    ],
)
def test_wilson_interval_against_published_values(
    correct: int, images: int, low: float, high: float
) -> None:
    found = Accuracy(correct, images).interval()
    assert found == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [
        low <= 0.9 <= high
        for low, high in (
            Accuracy(int(correct), 500).interval() for correct in rng.binomial(500, 0.9, 2000)
        )
    ]
    assert 0.93 < np.mean(hits) < 0.97


def test_openings_of_a_test_set_count_over_the_runs_of_a_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        used = [("a", 0, 1), ("a", 1, 2), ("b", 0, 5), ("a", 0, 0), ("", 0, 7), ("", 0, 1)]
        runs = []
        for number, (fingerprint, before, final) in enumerate(used):
            with store.run(RunKey("prune", {"number": number}, 0)) as run:
                run.write(ModelInfo("net", test_fingerprint=fingerprint))
                run.write(UseOfTestSet(before, final))
            runs.append(run)
        found = [openings_of(run) for run in runs]
    assert [(o.times, o.runs) for o in found] == [(4, 2), (4, 2), (5, 1), (4, 2), (7, 1), (1, 1)]
    assert shared_openings(found[0]).endswith("opened 4 times by 2 runs of this folder.")
    assert shared_openings(found[5]).endswith("opened once by 1 run of this folder.")
