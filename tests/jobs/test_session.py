"""The one context of jobs and benchmarks: what it keeps, and that there is no second one."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from pruning_jobs import digits, trained

import randprune
from randprune.criteria import criteria
from randprune.jobs import session as session_module
from randprune.jobs.candidates import Evaluations, Repaired
from randprune.jobs.ledger import Gathered
from randprune.jobs.opening import open_trained
from randprune.jobs.progress import Silent
from randprune.jobs.seeds import Seeds
from randprune.jobs.session import Session
from randprune.recipe import PruneRecipe
from randprune.store import SEARCHED, Candidate
from randprune.strategies import RandomSearch
from randprune.surgery import cut
from randprune.tensor_file import read_with_head

PACKAGE = Path(randprune.__file__).parent

# What jobs and benchmarks call in one place alone -> where. A dry run tries speeds out for itself.
ONE_PLACE = {
    "Evaluator": {"jobs/session.py", "bench/plan.py"},
    "collect_moments": {"jobs/session.py"},
    "DenseStatistics": {"jobs/session.py", "bench/settings/scoring.py"},
    "measured_tables": {"jobs/session.py"},
    "recover": {"jobs/session.py", "jobs/steps.py"},
    "train": {"jobs/train.py", "bench/plan.py"},
    "Checkpoint": {"jobs/train.py"},
    "tell": {"jobs/search_loop.py"},
    "RunKey": {"jobs/identity.py", "jobs/pretrained_route.py"},
    "ModelInfo": {"jobs/identity.py"},
    "open_test": {"jobs/session.py"},
    "build_model": {"jobs/opening.py"},
    "load_data": {"jobs/opening.py"},
    "trace": {"jobs/opening.py"},
    "widen": {"jobs/opening.py"},
}


def callers(function: str) -> set[str]:
    """The modules of jobs and benchmarks that call a function or method of this name."""
    found = set()
    for path in [*PACKAGE.glob("jobs/**/*.py"), *PACKAGE.glob("bench/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                owner = ast.unparse(node.func).rpartition(".")[0]
                if name == function and owner not in ("self", "network", "running"):
                    found.add(path.relative_to(PACKAGE).as_posix())
    return found


@pytest.mark.parametrize(("function", "where"), ONE_PLACE.items())
def test_each_of_these_is_done_in_one_place(function: str, where: set[str]) -> None:
    assert callers(function) == where


def test_seeds_are_what_they_always_were() -> None:
    assert Seeds("0").seed("search") == 222164491
    assert Seeds("bench/0").seed("draw", 1) == 179697783
    assert Seeds("0").seed("training", 1) != Seeds("1").seed("training", 1)
    assert Seeds("0").rng("uniform").integers(1 << 62) == np.random.default_rng(
        Seeds("0").seed("uniform")
    ).integers(1 << 62)


def opened(work: Path, **search: Any) -> Session:
    recipe = PruneRecipe.parse(
        {
            "budget": {"tolerance": 0.03},
            "search": {"precision": "float32", "batch_size": 100, **search},
        }
    )
    return open_trained(
        recipe,
        trained(),
        digits(),
        rules=recipe.search,
        seeds=Seeds("0"),
        work=work,
    )


def test_another_process_reads_what_the_first_one_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path)
    moments, tables, scores = first.moments(), first.tables(), first.scores(criteria.create("l1"))
    logits, spent = first.quick_judge.dense, first.ledger
    assert isinstance(spent, Gathered)
    assert [entry.key for entry in spent.costs] == [
        "moments", "tables", "scores/l1", "dense/search",
    ]  # fmt: skip

    def never(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    for name in ("collect_moments", "measured_tables", "score"):
        monkeypatch.setattr(session_module, name, never)
    second = opened(tmp_path)
    assert second.moments().images == moments.images
    assert all(map(np.array_equal, second.tables(), tables))
    assert all(map(torch.equal, second.scores(criteria.create("l1")), scores))
    assert logits is not None
    assert second.quick_judge.dense is not None
    assert all(map(torch.equal, second.quick_judge.dense, logits))
    assert len(second.quick_judge.dense) == len(logits)
    assert isinstance(second.ledger, Gathered)
    assert second.ledger.costs == ()


def evaluations(session: Session) -> Evaluations:
    maker = Repaired(session, session.scores(criteria.create("l1")), "none")
    return Evaluations(session, maker, session.quick_judge, Candidate(0, (), SEARCHED), "search")


def test_equal_widths_are_made_once_and_what_is_recorded_is_not_made_again(tmp_path: Path) -> None:
    session, ledger = opened(tmp_path), Gathered()
    with session.writing(ledger, Silent()):
        rng = np.random.default_rng(0)
        rows = RandomSearch().ask(session.space, session.budget, 2, rng)
        made = evaluations(session)
        values = made.values(np.concatenate([rows, rows]))
        assert values[:2] == values[2:]
        assert [c.index for c in made.found] == [0, 1, 2, 3]
        assert [entry.candidates for entry in ledger.costs if entry.phase == "search"] == [1, 1]
        again = evaluations(session)
        assert again.values(np.concatenate([rows, rows])) == values
        assert again.found == made.found
        with pytest.raises(randprune.StorageError, match="Candidate 0 of 'searched' in the rec"):
            evaluations(session).values(rows[::-1])


def test_moments_of_an_earlier_version_are_collected_again(tmp_path: Path) -> None:
    """Their layers had another layout, and their files no checksum."""
    moments = opened(tmp_path).moments()
    file = next(tmp_path.glob("moments.safetensors"))
    head, tensors = sound = read_with_head(file)
    head = copy.deepcopy(head)
    for layer in head["layers"]:
        layer.update(layer.pop("geometry"))
    file.write_bytes(safetensors.torch.save(tensors, {"moments": json.dumps(head)}))
    session = opened(tmp_path)
    again = session.moments()
    assert isinstance(session.ledger, Gathered)
    assert [entry.key for entry in session.ledger.costs] == ["moments"]
    found = read_with_head(file)
    assert found[0] == sound[0]
    assert found[1].keys() == sound[1].keys()
    for name, site in moments.sites.items():
        assert torch.equal(again.sites[name].covariance, site.covariance)


@pytest.mark.parametrize(("asked", "most"), [(8, 8), (None, 128), (500, 128)])
def test_calibration_takes_no_larger_batches_than_candidates(
    asked: int | None, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, seen = opened(tmp_path, batch_size=asked), list[int]()
    plain = type(session.calibration).batches

    def noticed(split: Any, size: int, **options: Any) -> Any:
        for batch in plain(split, size, **options):
            seen.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(type(session.calibration), "batches", noticed)
    made = [
        lambda: session.moments(),
        lambda: session.scores(criteria.create("taylor")),
        lambda: session.repaired(
            cut(session.network, session.space, session.space.dense), session.space.dense, "bn"
        ),
    ]
    for make in made:
        seen.clear()
        make()
        assert max(seen) == min(most, len(session.calibration))
