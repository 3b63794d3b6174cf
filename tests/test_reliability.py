"""The counted attacks run, and their table says what was tried, survived and lost."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import reliability  # noqa: E402


@pytest.mark.parametrize(("name", "count"), [("graphs", 4), ("headers", 20), ("kills-prune", 2)])
def test_an_attack_counts_every_try(name: str, count: int) -> None:
    attack = reliability.load_attacks()[name]
    record = reliability.run(attack, count, seed=3, processes=1)
    assert record["tried"] == count
    assert record["lost"] == 0, record["examples"]
    assert sum(record["survived"].values()) == count


def test_a_partial_run_replaces_its_own_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reliability, "RECORDS", tmp_path / "records.json")
    monkeypatch.setattr(reliability, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(
        f"# Before\n{reliability.BEGIN}\nold\n{reliability.END}\nAfter\n"
    )

    def half(count: int, seed: int) -> reliability.Outcome:
        kept = count // 2
        return reliability.Outcome(
            Counter({"error that says why": kept}), [f"try {n}" for n in range(count - kept)]
        )

    for name, count in (("b", 3_000), ("a", 10), ("b", 4_000)):
        chosen = reliability.Attack(name, f"attack {name}", count, half)
        monkeypatch.setitem(reliability.ATTACKS, name, chosen)
        monkeypatch.setattr(reliability, "load_attacks", lambda: reliability.ATTACKS)
        reliability.keep([reliability.run(chosen, count, 0, 1)])
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Before\n")
    assert page.endswith("After\n")
    assert "old" not in page
    assert "| attack a (5 error that says why) | 10 | 5 | 5 |" in page
    assert "| attack b (2,000 error that says why) | 4,000 | 2,000 | 2,000 |" in page
    assert len(reliability.load_records()) == 2
    assert len(reliability.load_records()[0]["examples"]) == 5


def test_the_page_shows_the_records() -> None:
    page = reliability.PAGE.read_text(encoding="utf-8")
    assert reliability.table(reliability.load_records()) in page
    recorded = {record["attack"] for record in reliability.load_records()}
    assert recorded <= reliability.load_attacks().keys()
