"""Reports of whole, partial and broken runs: what they say, and the files they write."""

from __future__ import annotations

import csv
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic_run as synthetic

from light_process import command
from randprune.bench.stats import best_of_n
from randprune.errors import StorageError
from randprune.report import RunRecord, report_of, write_report
from randprune.report.chart import Chart
from randprune.report.html import render
from randprune.report.ledger import Ledger, ledger_table
from randprune.report.run.analysis import RunAnalysis
from randprune.report.run.tables import candidates, first_candidates
from randprune.store import (
    Accuracy,
    Candidate,
    CostEntry,
    Latency,
    NetworkRow,
    Run,
    RunKey,
    Store,
    UseOfTestSet,
    Verification,
)


def said(text: str) -> str:
    return text.replace("\u00a0", " ")


def page_of(record: RunRecord) -> str:
    return render(report_of(record).page)


def charts_of(record: RunRecord) -> tuple[Chart, ...]:
    return report_of(record).page.charts


# -- what it says ----------------------------------------------------------------------------------


def test_headline_of_a_whole_run(finished: RunRecord) -> None:
    assert said(report_of(finished).headline) == (
        "ResNet-56: 49.9 % of the MACs, 2.1× faster, 92.2 % test accuracy (dense 93.4 %)"
    )


def test_headline_says_when_nothing_was_trained(run: Run) -> None:
    synthetic.begin(run)
    synthetic.search(run)
    synthetic.evaluate(run, epochs=0)
    assert "89.7 % test accuracy without any training" in said(report_of(run).headline)


STAGES: dict[str, tuple[Callable[[Run], None], ...]] = {
    "nothing": (),
    "begun": (synthetic.begin,),
    "one candidate": (synthetic.begin, lambda run: synthetic.search(run, 1)),
    "some candidates": (synthetic.begin, lambda run: synthetic.search(run, 30)),
    "searched": (synthetic.begin, synthetic.search),
    "one epoch": (synthetic.begin, synthetic.search, lambda run: synthetic.evaluate(run, 1)),
    "whole": (synthetic.begin, synthetic.search, synthetic.evaluate),
    "candidates alone": (lambda run: synthetic.search(run, 5),),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_moment_of_a_run_has_a_page(run: Run, stage: str) -> None:
    for step in STAGES[stage]:
        step(run)
    record = RunRecord.of(run)
    html = page_of(record)
    assert "still at work" in html
    assert record.status == "running"
    expected = {
        "nothing": "Network: nothing evaluated yet",
        "begun": "ResNet-56: nothing evaluated yet",
        "some candidates": "29 of 100 candidates evaluated, the best so far",
        "one epoch": "89.7 % test accuracy without any training (dense 93.4 %)",
        "candidates alone": "Network: 5 candidates evaluated, the best so far",
    }
    assert expected.get(stage, "ResNet-56: ") in said(html)
    names = {chart.id for chart in charts_of(record)}
    assert ("best-of-n" in names) == (stage not in ("nothing", "begun", "one candidate"))
    assert ("epochs-loss" in names) == (stage in ("one epoch", "whole"))


def test_how_a_run_ended_is_said(store: Store, run: Run) -> None:
    synthetic.begin(run)
    run.fail("OutOfMemoryError: 3 GB asked <now>")
    page = said(page_of(RunRecord.of(run)))
    assert "This run failed: OutOfMemoryError: 3 GB asked &lt;now&gt;" in page

    run.interrupt()
    page = said(page_of(RunRecord.of(run)))
    assert "interrupted before its end" in page
    assert "the same command continues it" in page
    run.finish()
    assert 'class="wide notice' not in page_of(RunRecord.of(run))


def test_killed_run_is_interrupted_not_running(tmp_path: Path) -> None:
    killed = """
        import os, signal, sys
        from randprune.store import RunKey, Store
        store = Store.open(sys.argv[1])
        store.run(RunKey("prune", {}, 0), {})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(command(killed, tmp_path), check=False)
    assert done.returncode == -signal.SIGKILL
    assert RunRecord.load(tmp_path).status == "interrupted"

    # Another run of the same folder being at work does not bring the killed one back.
    with Store.open(tmp_path) as store:
        store.run(RunKey("prune", {}, 1), {})
        assert RunRecord.load(tmp_path).status == "running"
        assert RunRecord.load(tmp_path).runs_in_folder == 2
        assert RunRecord.load(tmp_path, run_id=1).status == "interrupted"
        with pytest.raises(StorageError, match=r"No run 7 in .*Its runs: \[1, 2\]"):
            RunRecord.load(tmp_path, run_id=7)


def test_report_of_a_run_at_work_in_another_process(tmp_path: Path) -> None:
    writer = """
        import sys
        sys.path.insert(0, sys.argv[2])
        import synthetic_run as synthetic
        from randprune.store import RunKey, Store
        store = Store.open(sys.argv[1])
        run = store.run(RunKey("prune", {}, 0), {})
        synthetic.begin(run)
        synthetic.search(run, 20)
        print("ready", flush=True)
        sys.stdin.readline()
    """
    with subprocess.Popen(
        command(writer, tmp_path, Path(__file__).parent),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        record = RunRecord.load(tmp_path)
        assert record.status == "running"
        assert len(record.candidates) == 20
        assert "still at work" in page_of(record)
        process.stdin.write("\n")
    assert RunRecord.load(tmp_path).status == "interrupted"


def test_failed_verification_and_a_used_test_set_are_told_first(run: Run) -> None:
    synthetic.begin(run)
    run.write(Verification(False, 0.3, 1e-4, "outputs differ at layer3"))
    run.write(UseOfTestSet(2, 1))
    notices = said(page_of(RunRecord.of(run))).split("<section")[0]
    assert "does not compute what the masked dense network computes: outputs differ" in notices
    assert "The test set was read 2 times before the final evaluation" in notices


def test_sessions_with_different_versions_are_told(tmp_path: Path) -> None:
    for version in ("2.9.0", "2.10.0"):
        with Store.open(tmp_path) as store:
            store.run(RunKey("prune", {}, 0), {"versions": {"torch": version}})
    page = said(page_of(RunRecord.load(tmp_path)))
    assert "used different versions" in page
    assert "torch 2.9.0" in page
    assert "torch 2.10.0" in page


# -- tables ----------------------------------------------------------------------------------------


def test_results_stand_side_by_side(finished: RunRecord) -> None:
    table = report_of(finished).results
    assert table is not None
    names = [column.name for column in table.columns]
    assert names[:4] == ["network", "test_finetuned", "test_repaired", "test_cut"]
    rows = {row[0].text: dict(zip(names, row, strict=True)) for row in table.rows}
    assert list(rows) == ["dense", "best random", "uniform width", "random channels"]

    best = rows["best random"]
    assert best["test_finetuned"].value == 0.9217
    assert said(best["test_finetuned"].note) == "91.63 – 92.68\n−1.22 points"
    assert said(best["macs"].note) == "49.9 %\n125 M FLOPs"
    assert best["speedup"].value == pytest.approx(2.1, abs=0.05)
    assert rows["dense"]["test_cut"].value == rows["dense"]["test_finetuned"].value == 0.9339
    assert rows["dense"]["speedup"].text == "–"
    assert "10,000 test images" in table.note


def test_several_seeds_are_a_mean_with_a_t_interval(run: Run) -> None:
    for seed, correct in enumerate((90, 92, 97)):
        row = NetworkRow("best", "searched", "finetuned", Accuracy(correct, 100), seed=seed)
        run.put_network(row)
    table = report_of(run).results
    assert table is not None
    assert said(table.rows[0][1].text) == "93.00 %"
    assert table.rows[0][1].note == "3 seeds, 84.04 – 100.00"
    assert "t interval" in table.note


def test_failed_network_is_listed_with_its_error(run: Run) -> None:
    run.put_network(NetworkRow("ours", "our_method", "repaired", error="singular matrix"))
    run.put_network(NetworkRow("best", "searched", "repaired", Accuracy(1, 2)))
    table = report_of(run).results
    assert table is not None
    assert [(row[0].text, row[1].text, row[1].note) for row in table.rows][1] == (
        "ours",
        "failed",
        "singular matrix",
    )


def test_latency_without_a_match_gives_no_speedup(run: Run) -> None:
    run.put_network(NetworkRow("dense", "dense", "dense", latency=(Latency((1.0,), 1),)))
    run.put_network(NetworkRow("best", "searched", "cut", latency=(Latency((0.5,), 64),)))
    table = report_of(run).results
    assert table is not None
    assert [column.name for column in table.columns] == ["network", "latency"]


@pytest.mark.parametrize(
    ("seconds", "headline"),
    [((0.4, 0.5, 0.6), "2.0× faster, 90.0 % test"), ((0.5, 1.0, 2.0), "90.0 % test")],
)
def test_a_speed_that_may_be_chance_is_no_headline(
    run: Run, seconds: tuple[float, ...], headline: str
) -> None:
    dense = Latency((1.0, 1.0, 1.0), 1, interleaved=True)
    run.put_network(NetworkRow("dense", "dense", "dense", latency=(dense,)))
    pruned = Latency(seconds, 1, interleaved=True)
    run.put_network(
        NetworkRow("best", "searched", "repaired", Accuracy(90, 100), latency=(pruned,))
    )
    report = report_of(run)
    assert said(report.headline).partition(": ")[2].startswith(headline)
    tile = next(tile for tile in report.page.tiles if tile.label == "Speed")
    assert (said(tile.value) == "undecided") == ("faster" not in headline)


def test_candidates_come_best_first_and_cut_short_on_the_page(run: Run) -> None:
    run.record_candidates(Candidate(i, (1,), scores={"search_top1": i / 500}) for i in range(500))
    record = RunRecord.of(run)
    whole = candidates(RunAnalysis(record))
    table = first_candidates(whole)
    assert [row[1].value for row in table.rows[:3]] == [499, 498, 497]
    assert len(table.rows) == 300
    assert "300 of 500 candidates; candidates.csv has them all" in table.note
    assert len(whole.rows) == 500


def test_ledger_sums_by_phase_and_in_all(run: Run) -> None:
    for i in range(3):
        run.add_cost(CostEntry("search", f"s/{i}", 1, 100, 0, 1e9, 0.5, "cpu"))
    run.add_cost(CostEntry("search", "s/3", 1, 100, 0, 1e9, 0.5, "cuda"))
    run.add_cost(CostEntry("finetune", "f", 0, 1000, 1000, 3e12, 60.0, "cuda"))
    table = ledger_table(Ledger.of(RunRecord.of(run).ledger))
    assert [[cell.value or cell.text for cell in row] for row in (*table.rows, table.total)] == [
        ["search", 4, 400, "–", 4e9, 2.0, "cpu + cuda"],
        ["finetune", "–", 1000, 1000, 3e12, 60.0, "cuda"],
        ["total", 4, 1400, 1000, 3.004e12, 62.0, ""],
    ]


# -- figures ---------------------------------------------------------------------------------------


def test_best_of_n_figure_shows_the_exact_curve(finished: RunRecord) -> None:
    chart = next(chart for chart in charts_of(finished) if chart.id == "best-of-n")
    scores = [c.scores["search_top1"] for c in finished.scored("searched")]
    curve = best_of_n(scores)
    marks = {mark.name: mark for mark in chart.marks}
    assert marks["expected best of n"].y == curve.mean.tolist()  # type: ignore[union-attr]
    assert marks["80 % of all draws"].low == curve.low.tolist()  # type: ignore[union-attr]
    seen = marks["best so far, in the order drawn"].y  # type: ignore[union-attr]
    assert seen == np.maximum.accumulate(scores).tolist()


def test_histogram_counts_every_candidate_once(finished: RunRecord) -> None:
    chart = next(chart for chart in charts_of(finished) if chart.id == "spread")
    assert sum(chart.marks[0].y) == len(finished.scored("searched")) == 99  # type: ignore[arg-type, union-attr]
    assert [said(mark.name) for mark in chart.marks[2:]] == [
        "dense 100.0 %",
        "random channels 64.3 %",
        "uniform width 87.3 %",
        "chosen 88.6 %",
    ]


def test_large_pools_keep_the_page_light(run: Run) -> None:
    rng = np.random.default_rng(0)
    run.record_candidates(
        Candidate(i, (1, 2), scores={"search_top1": float(s), "proxy": float(s)}, costs={"macs": 1})
        for i, s in enumerate(rng.uniform(size=8000))
    )
    record = RunRecord.of(run)
    assert len(page_of(record)) < 2_000_000
    chart = next(chart for chart in charts_of(record) if chart.id == "spread")
    assert sum(chart.marks[0].y) == 8000  # type: ignore[arg-type, union-attr]
    assert "8,000 candidates" in chart.text


# -- files -----------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_report_is_a_page_tables_and_figures(finished: RunRecord, tmp_path: Path) -> None:
    paths = write_report(finished, tmp_path / "new" / "report")
    assert paths.html == tmp_path / "new" / "report" / "report.html"
    assert {path.stem for path in paths.png} == {chart.id for chart in charts_of(finished)}
    for path in paths.png:
        assert path.parent.name == "figures"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    assert not list((tmp_path / "new" / "report").rglob(".*"))
    # plotly.js is in it once, and makes up most of it.
    assert 1_000_000 < paths.html.stat().st_size < 2_000_000

    found = {path.stem: rows_of(path) for path in paths.csv}
    assert set(found) == {"networks", "candidates", "widths", "epochs", "ledger", "frozen"}
    by_index = {(row["method"], row["index"]): row for row in found["candidates"]}
    for candidate in finished.candidates:
        row = by_index[candidate.method, str(candidate.index)]
        assert row["widths"] == " ".join(map(str, candidate.widths))
        if "search_top1" in candidate.scores:
            assert float(row["score_search_top1"]) == candidate.scores["search_top1"]
            assert float(row["cost_macs"]) == candidate.costs["macs"]
        else:
            assert row["score_search_top1"] == ""
            assert row["error"] == "the repaired weights are not finite"
    tuned = [row for row in found["networks"] if row["stage"] == "finetuned"]
    assert [(row["test_correct"], row["test_images"]) for row in tuned] == [
        ("9217", "10000"),
        ("9164", "10000"),
        ("9023", "10000"),
    ]
    low, high = Accuracy(9217, 10_000).interval()
    assert (float(tuned[0]["test_low"]), float(tuned[0]["test_high"])) == (low, high)
    assert float(tuned[0]["flops"]) == 2 * float(tuned[0]["macs"])
    assert len(found["ledger"]) == len(finished.ledger)
    assert len(found["widths"]) == 30


def test_report_can_be_named_and_written_again(run: Run, tmp_path: Path) -> None:
    first = write_report(run, tmp_path / "page.html")
    assert first.html == tmp_path / "page.html"
    assert first.png == first.csv == ()
    before = first.html.read_text()
    synthetic.begin(run)
    again = write_report(run.store.folder, tmp_path / "page.html")
    assert again.html == first.html
    assert again.html.read_text() != before


def test_report_that_cannot_be_written(finished: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written .* choose another folder"):
        write_report(finished, tmp_path / "file" / "out")
    with pytest.raises(StorageError, match="No records in"):
        write_report(tmp_path, tmp_path)


def test_summary_is_for_scripts(finished: RunRecord) -> None:
    found = report_of(finished).summary
    assert found["status"] == "finished"
    assert found["headline"] == report_of(finished).headline
    assert found["speedup"] == pytest.approx(2.1, abs=0.05)
    assert [row["test_top1"] for row in found["networks"] if row["stage"] == "finetuned"] == [  # type: ignore[attr-defined]
        0.9217,
        0.9164,
        0.9023,
    ]


def test_record_can_be_built_by_hand(finished: RunRecord) -> None:
    bare = RunRecord(info=finished.info, status="finished")
    assert "nothing evaluated yet" in page_of(bare)
    fuller = replace(bare, networks=finished.networks)
    assert "92.2 % test accuracy" in said(report_of(fuller).headline)
