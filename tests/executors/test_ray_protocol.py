"""What the Ray executor does with answers, losses and other nodes: with a stand-in for Ray.

`test_on_ray.py` has the real one, where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from halving import WORK, Half, Halve, Threads

from randprune.errors import InvalidInputError, StorageError
from randprune.executors import Failure, OnRay, on_ray


class RayError(Exception):
    """A worker is gone."""


class RayTaskError(RayError):
    """What a call raised there."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Ref:
    """An answer that is computed when somebody waits for it."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute

    def get(self) -> Any:
        try:
            return self.compute()
        except RayError:
            raise
        except Exception as error:
            raise RayTaskError(error) from error


class FakeRay:
    """Actors are objects of this process; `dies` says which of the calls of `do` lose theirs."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, dies: Callable[[int], bool] = lambda call: False, idle: int = 0) -> None:
        self.dies = dies
        self.idle = idle
        self.calls = 0
        self.killed = 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, kind: type) -> Any:
        made = SimpleNamespace(remote=lambda *arguments: self.actor(kind, *arguments))
        return SimpleNamespace(options=lambda **options: made)

    def actor(self, kind: type, *arguments: Any) -> Any:
        held: list[Any] = []

        def method(name: str) -> Any:
            def call(*given: Any) -> Ref:
                def compute() -> Any:
                    if not held:
                        held.append(kind(*arguments))
                    if name == "do":
                        self.calls += 1
                        if self.dies(self.calls):
                            raise RayError("The actor died.\nmore")
                    return getattr(held[0], name)(*given)

                return Ref(compute)

            return SimpleNamespace(remote=call)

        return SimpleNamespace(**{name: method(name) for name in ("ready", "do", "share")})

    def wait(self, refs: list[Ref], num_returns: int = 1, timeout: float = 0) -> Any:
        if timeout and self.idle:
            self.idle -= 1
            return [], refs
        return refs[:1], refs[1:]

    def get(self, ref: Ref) -> Any:
        return ref.get()

    def kill(self, actor: Any) -> None:
        self.killed += 1


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., OnRay[Any, Any]]:
    """An executor over a stand-in."""

    def make(ray: FakeRay, document: Any = None, work: Any = WORK) -> OnRay[Any, Any]:
        monkeypatch.setattr(on_ray, "require_ray", lambda: ray)
        document = {"factor": 1} if document is None else document
        return OnRay(work, document, None, "", tmp_path)

    return make


def run(executor: OnRay[Any, Any], units: list[Any]) -> dict[Any, Any]:
    try:
        return dict(executor.run(units, lambda unit, share: None))
    finally:
        executor.close()


def test_outcomes_and_failures(made: Callable[..., OnRay[Any, Any]], tmp_path: Path) -> None:
    units = [Halve(float(n)) for n in range(1, 8)]
    ray = FakeRay()
    found = run(made(ray), [*units, Halve(-1.0)])
    assert found.pop(Halve(-1.0)) == Failure("DataError: no half of -1.0")
    assert found == {unit: Half(unit.number / 2) for unit in units}
    assert ray.killed == 2, "as many workers as CPUs, stopped at the end"
    assert not list(tmp_path.glob("ray-*"))
    assert run(made(FakeRay()), [Threads()])[Threads()].value >= 1


def test_a_full_disk_ends_the_run(made: Callable[..., OnRay[Any, Any]]) -> None:
    with pytest.raises(StorageError, match="no space"):
        run(made(FakeRay()), [Halve(0.0), Halve(1.0)])


def test_lost_workers(made: Callable[..., OnRay[Any, Any]]) -> None:
    units = [Halve(float(n)) for n in range(1, 6)]
    found = run(made(FakeRay(dies=lambda call: call in (1, 4))), units)
    assert found == {unit: Half(unit.number / 2) for unit in units}
    found = run(made(FakeRay(dies=lambda call: True)), units[:1])
    assert found[units[0]] == Failure("Its worker was lost 3 times, at last: The actor died.")


def test_shares_are_told_while_nobody_answers(made: Callable[..., OnRay[Any, Any]]) -> None:
    told: list[float] = []
    executor = made(FakeRay())
    running = executor.run([Halve(2.0)], lambda unit, share: told.append(share))
    executor._ray.idle = 0
    assert dict(running) == {Halve(2.0): Half(1.0)}
    executor = made(ray := FakeRay())
    running = executor.run([Halve(2.0), Halve(4.0)], lambda unit, share: told.append(share))
    next(running)
    ray.idle = 3
    assert len(list(running)) == 1
    executor.close()
    assert set(told) <= {0.5}


def test_nodes_of_other_versions(
    made: Callable[..., OnRay[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(on_ray.Serving):
        def ready(self) -> dict[str, Any]:
            return {**super().ready(), "torch": "1.0", "node": "old"}

    monkeypatch.setattr(on_ray, "Serving", Other)
    with pytest.raises(InvalidInputError, match=r"old has torch 1\.0, this process torch"):
        run(made(FakeRay()), [Halve(1.0)])


def test_nodes_without_the_folder(made: Callable[..., OnRay[Any, Any]]) -> None:
    executor = made(FakeRay())
    executor._token.unlink()
    with pytest.raises(InvalidInputError, match="Give an --out that all nodes share"):
        run(executor, [Halve(1.0)])


def test_work_that_cannot_be_opened(made: Callable[..., OnRay[Any, Any]]) -> None:
    work = type(WORK)("halving", "NOTHING", WORK.open, WORK.units, WORK.outcomes)
    with pytest.raises(InvalidInputError, match="has no attribute 'NOTHING'"):
        run(made(FakeRay(), work=work), [Halve(1.0)])


def test_a_cluster_without_room(
    made: Callable[..., OnRay[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_PATIENCE", 0.0)
    with pytest.raises(InvalidInputError, match="it may have no free CPU"):
        run(made(FakeRay(idle=10)), [Halve(1.0)])
