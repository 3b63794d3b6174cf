"""The page of a benchmark: what it says of planted effects, its links, tables and files."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from randprune.bench import BenchRun
from randprune.bench.analysis import Analysis
from randprune.bench.keys import Row
from randprune.cli.app import app
from randprune.report import ReportPaths, report_of, write_report
from randprune.report.bench.findings import findings
from randprune.report.chart import Chart
from randprune.report.format import points
from randprune.report.html import render
from randprune.report.names import Names
from randprune.testing import write_bench_run

EFFECTS = {
    Row("random_search", "l1"): 0.0,
    Row("random_search", "l2"): 0.0003,
    Row("random_search", "kl"): -0.0002,
    Row("random_search", "random"): -0.03,
    Row("uniform", "l1"): -0.012,
    Row("random_channels", "random"): -0.05,
    Row("iterative", "l1"): 0.015,
    Row("global_ranking", "taylor"): -0.03,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five draws, two trainings, three lengths; one row failed at one draw."""
    out = tmp_path_factory.mktemp("planted")
    write_bench_run(
        out,
        EFFECTS,
        epochs=(0, 1, 4),
        draws=5,
        trainings=2,
        candidates=12,
        training_sd=0.001,
        failed=[Row("global_ranking", "taylor")],
    )
    return out


@pytest.fixture(scope="module")
def planted(folder: Path) -> BenchRun:
    return BenchRun.load(folder)


@pytest.fixture(scope="module")
def page(planted: BenchRun) -> str:
    return render(report_of(planted).page).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def written(planted: BenchRun, tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    return write_report(planted, tmp_path_factory.mktemp("report"))


def said(run: BenchRun) -> dict[str, str]:
    found = findings(Analysis(run), Names(run))
    return {f.question.partition(":")[0]: f.answer.replace("\u00a0", " ") for f in found}


def charts_of(run: BenchRun) -> dict[str, Chart]:
    return {chart.id: chart for chart in report_of(run).page.charts}


# ---------------------------------------------------------------------------- what it says


def test_headline_counts_the_verdicts(planted: BenchRun) -> None:
    assert report_of(planted).headline == (
        "Compared with random search with l1 after 4 epochs, of 7 rows 1 is better, 2 are "
        "equivalent and 4 are worse (margin 0.5 points)"
    )


def test_findings_speak_of_what_was_planted(planted: BenchRun) -> None:
    answers = said(planted)
    f1 = answers["F1"]
    assert f1.startswith("Of 2 other criteria under the same draws, against l1: 2 equivalent: ")
    assert "Jointly, with 95 % confidence, none of them differs from l1 by more than 0." in f1
    assert "There is no clear winner, and the data show it" in f1
    assert planted_is(planted, Row("random_search", "random"), -0.03)
    control = difference(planted, Row("random_search", "random"))
    assert f"Control: ranking channels at random is worse ({points(control, 2)}, ".replace(
        "\u00a0", " "
    ) in f1  # fmt: skip
    f2 = answers["F2"]
    assert "1 better: iterative (+1." in f2
    assert "3 worse: uniform (−1." in f2
    assert "p < 0.001" in f2
    f4 = answers["F4"]
    gain = re.match(r"From 1 to 4 epochs random search with l1 gains \+1\.(\d+) points", f4)
    assert gain is not None  # planted: 0.01 * log2(5 / 2), 1.32 points
    assert "the length changes results more than the criterion" in f4
    assert "With 5 draws with Holm's correction over 7 rows, a difference has to be about 0." in f1


def difference(run: BenchRun, row: Row) -> float:
    """What the statistics say of a row, in shares."""
    main = Analysis(run).main
    assert main is not None
    return next(c.difference.value for c in main.comparisons if c.name == row)


def planted_is(run: BenchRun, row: Row, effect: float) -> bool:
    """Whether that is what was planted, within the chance of five draws with two trainings."""
    return abs(difference(run, row) - effect) < 4 * 0.001 * (2 / (5 * 2)) ** 0.5


def verdicts(run: BenchRun) -> list[str]:
    """The verdicts of the leaderboard."""
    board = report_of(run).results
    assert board is not None
    column = [column.name for column in board.columns].index("verdict")
    return [row[column].text for row in board.rows]


def test_undecided_rows_are_counted_before_anybody_is_said_to_be_unbeaten(tmp_path: Path) -> None:
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("random_search", "l2"): 0.001,
        Row("uniform", "l1"): -0.2,
    }
    run = write_bench_run(tmp_path / "open", effects, draws=3, training_sd=0.01, seed=1)
    assert sorted(verdicts(run)) == ["reference", "undecided", "worse", "–"]
    assert report_of(run).headline.replace("\u00a0", " ") == (
        "No row was shown to beat random search with l1 after 2 epochs: of 2 rows 1 is undecided "
        "and 1 is worse (margin 0.5 points)"
    )
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("random_search", "l2"): -0.2,
        Row("random_search", "kl"): 0.001,
    }
    run = write_bench_run(tmp_path / "criteria", effects, draws=3, training_sd=0.01)
    assert verdicts(run).count("undecided") == 1
    f1 = said(run)["F1"]
    assert "No criterion was shown to be ahead, but l2 fell behind. 1 of 2 is undecided" in f1
    # Once all is decided, it may be said.
    effects = {Row("random_search", "l1"): 0.0, Row("random_search", "l2"): -0.2}
    run = write_bench_run(tmp_path / "closed", effects, draws=6, training_sd=0.001)
    assert report_of(run).headline.startswith("No row beats random search with l1 after 2 epochs")
    assert "No criterion is ahead, but l2 fell behind." in said(run)["F1"]


def test_a_gain_is_compared_by_its_interval(tmp_path: Path) -> None:
    effects = {Row("random_search", "l1"): 0.0, Row("uniform", "l1"): -0.008}
    kinds = {"more than": 0.0005, "comparably to": 0.006}
    for words, deviation in kinds.items():
        folder = tmp_path / words.split()[0]
        run = write_bench_run(
            folder, effects, epochs=(1, 4), draws=4, training_sd=deviation, draw_sd=0.001
        )
        assert f"the length changes results {words} the method" in said(run)["F4"], words


def test_a_page_opens_with_the_forest_plot_and_the_leaderboard(planted: BenchRun) -> None:
    result = report_of(planted).page.sections[0]
    assert [getattr(block, "id", type(block).__name__) for block in result.blocks[:3]] == [
        "forest",
        "leaderboard",
        "Facts",
    ]


def test_an_ahead_criterion_is_said_to_contradict(tmp_path: Path) -> None:
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("random_search", "kl"): 0.02,
        Row("random_search", "l2"): 0.0,
    }
    run = write_bench_run(tmp_path, effects, draws=6, trainings=2, training_sd=0.001)
    assert "contradicts “no clear winner”: kl came out ahead" in said(run)["F1"]


def test_all_equivalent_is_a_result(tmp_path: Path) -> None:
    effects = {
        Row("random_search", "l1"): 0.0,
        Row("random_search", "kl"): 0.0,
        Row("uniform", "l1"): 0.0,
    }
    run = write_bench_run(tmp_path, effects, draws=8, training_sd=0.001)
    text = report_of(run).headline
    assert text.startswith("No clear winner: 2 of 2 rows equivalent to random search with l1")


@pytest.mark.parametrize("draws", [1, 2])
def test_few_draws_decide_little_and_the_page_says_so(draws: int, tmp_path: Path) -> None:
    effects = {Row("random_search", "l1"): 0.0, Row("uniform", "l1"): -0.001}
    run = write_bench_run(tmp_path, effects, draws=draws, candidates=1)
    assert report_of(run).headline.startswith("Undecided after 2 epochs: none of 1 row")
    text = render(report_of(run).page)
    assert ("One draw of configurations" if draws == 1 else "Two draws of configurations") in text
    if draws == 1:
        assert "n = 1, no interval" in text


def test_a_run_without_results_has_a_page(tmp_path: Path) -> None:
    run = write_bench_run(
        tmp_path, {Row("random_search", "l1"): 0.0}, draws=1, failed=[Row("random_search", "l1")]
    )
    text = render(report_of(run).page)
    assert "1 of 1 networks proposed, nothing tested yet" in text
    assert "DataError: planted" in text


def test_published_numbers_stand_beside_as_context(planted: BenchRun, page: str) -> None:
    assert "Published for" not in page  # nobody published for ResNet-20
    model = replace(planted.model, title="ResNet-56", name="randprune:resnet56")
    run = replace(planted, model=model)
    answers = [f.answer for f in findings(Analysis(run), Names(run)) if "published" in f.question]
    assert len(answers) == 1
    assert "published results for ResNet-56 on cifar10" in answers[0]
    assert "this is context and no test" in answers[0]
    text = render(report_of(run).page)
    assert "Published for ResNet-56 on cifar10" in text
    assert "HRank" in text


def test_curve_over_candidates_after_training(tmp_path: Path) -> None:
    effects = {
        Row("best_of_1", "l1"): 0.0,
        Row("random_search", "l1"): 0.01,
        Row("uniform", "l1"): -0.01,
    }
    run = write_bench_run(tmp_path, effects, draws=8, candidates=20, training_sd=0.0005)
    info = {m.label: m for m in run.protocol.methods}
    one = replace(info["best_of_1"], method="random_search", label="best_of_1")
    protocol = replace(run.protocol, methods=(one, info["random_search"], info["uniform"]))
    run = replace(run, protocol=protocol)
    answers = said(run)
    assert "against 1 candidate: 20: better (+" in answers["How many candidates are enough?"]
    # More candidates of the same method are no other method.
    assert "uniform" in answers["F2"]
    assert "random search (" not in answers["F2"]
    charts = charts_of(run)
    assert "candidates-accuracy" in charts
    assert "8 random configurations on the test images" in charts["spread-test"].text


def test_the_same_network_at_every_draw_is_one_configuration(tmp_path: Path) -> None:
    effects = {Row("random_search", "l1"): 0.0, Row("uniform", "l1"): 0.0}
    run = write_bench_run(tmp_path, effects, draws=6, draw_sd=0.01)
    fixed = tuple(
        replace(p, selection="same") if p.row == Row("uniform", "l1") else p for p in run.proposals
    )
    run = replace(run, proposals=fixed)
    split = Analysis(run).at[2].of(Row("uniform", "l1")).variance
    assert split is not None
    assert (split.configurations, split.trainings) == (1, 6)
    answer = said(run)["How much is chance?"]
    assert "Together they have a standard deviation of" in answer
    assert "uniform, the same network at every draw, has" in answer


# ---------------------------------------------------------------------------- the page


def test_each_link_leads_to_records(page: str) -> None:
    links = set(re.findall(r'<a href="#(results-[^"]+)"', page))
    rows = re.findall(r'<tr data-group="([^"]+)" id="([^"]+)"', page)
    assert {group for group, _ in rows} == {anchor for _, anchor in rows}
    assert links
    assert links <= {anchor for _, anchor in rows}
    # All results of a row are in its group: five draws with two trainings each.
    assert page.count('data-group="results-random_search/l1/epochs-4"') == 10


def test_page_has_everything(planted: BenchRun, page: str) -> None:
    charts = charts_of(planted)
    assert list(charts) == [
        "forest",
        "accuracy-macs",
        "accuracy-compute",
        "ledger",
        "lengths",
        "before-after",
        "best-of-n",
        "spread",
    ]
    assert [m.name for m in charts["forest"].marks][:2] == [
        "equivalence margin ±0.5 points",
        "better",
    ]
    for text in (
        "failed; their errors are listed",
        "Paired tests against random search with l1",
        "At equal total compute",
        "Where the spread comes from",
        "Does a cheap score predict the order?",
        "The test set was read 0 times before the final evaluation",
        "Fine-tuning, batch size",
    ):
        assert text in page, text


def test_equal_compute_lets_cheaper_methods_train_longer(planted: BenchRun) -> None:
    analysis = Analysis(planted)
    assert (
        analysis.at_equal_compute[4][Row("random_search", "l2")]
        == analysis.at[4].of(Row("random_search", "l2")).accuracy
    )
    # For what the reference spends without training, uniform widths have no training either.
    cheap = analysis.at_equal_compute[0][Row("uniform", "l1")]
    assert cheap is not None
    assert cheap.value < 0.6
    assert analysis.for_compute(Row("random_search", "l1"), 1.0) is None


# ---------------------------------------------------------------------------- files


def test_files_of_a_report(planted: BenchRun, written: ReportPaths) -> None:
    folder = written.html.parent / "tables"
    tables = {path.name for path in written.csv}
    assert {
        "leaderboard.csv",
        "results.csv",
        "candidates.csv",
        "epochs.csv",
        "ledger.csv",
    } <= tables
    assert {path.stem for path in written.tex} == {
        "leaderboard",
        "comparisons",
        "lengths",
        "equal_compute",
        "variances",
        "ranks",
    }
    assert len(written.png) == 8
    with (folder / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(planted.results)
    shares = [
        float(line["test_top1"])
        for line in lines
        if line["row"] == "random_search/l1" and line["epochs"] == "4"
    ]
    with (folder / "leaderboard.csv").open() as file:
        board = {line["row"]: line for line in csv.DictReader(file)}
    assert float(board["random_search/l1"]["test_top1"]) == pytest.approx(sum(shares) / len(shares))
    low, high = (float(board["random_search/l1"][f"test_{end}"]) for end in ("low", "high"))
    assert low < sum(shares) / len(shares) < high
    assert board["iterative/l1"]["verdict"] == "better"


def test_latex_is_what_booktabs_sets(written: ReportPaths) -> None:
    text = (written.html.parent / "tables" / "leaderboard.tex").read_text()
    body = text[text.index(r"\begin{tabular}") :]
    columns = re.match(r"\\begin\{tabular\}\{([lr]+)\}", body)
    assert columns is not None
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns[1])}
    assert not re.search(r"(?<!\\)[%#_]", body)
    assert all(character.isascii() for character in body)


def test_summary_is_json(planted: BenchRun) -> None:
    found = json.loads(json.dumps(report_of(planted).summary, allow_nan=False))
    rows = {row["row"]: row for row in found["rows"]}
    assert rows["iterative/l1"]["verdict"] == "better"
    assert rows["random_search/l1"]["verdict"] is None
    assert found["reference"] == "random_search/l1"


def test_report_command_finds_out_the_kind_of_run(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(folder), "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Compared with random search with l1" in done.output
    assert "iterative" in done.output
    assert "also for LaTeX" in done.output
    assert "Leaderboard" in (tmp_path / "report.html").read_text()


def test_rows_of_one_method_say_how_often_tables_tell_them_apart(tmp_path: Path) -> None:
    effects = {Row(label, "l1"): 0.0 for label in "abcd"} | {Row("uniform", "l1"): -0.05}
    run = write_bench_run(tmp_path, effects, draws=4)
    assert "A/A" not in said(run)
    methods = tuple(
        replace(m, method="random_search", options={"stream": number})
        if m.label != "uniform"
        else m
        for number, m in enumerate(run.protocol.methods)
    )
    same = replace(run, protocol=replace(run.protocol, methods=methods))
    answer = said(same)["A/A"]
    assert "4 rows are a" in answer
    assert "at each of 4 draws give 200 tables" in answer
