"""The command line: what is printed where, exit codes, and errors in one line."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from randprune.cli import app as app_module
from randprune.cli.inspect import default_shape, parse_shape
from randprune.cli.progress import bars, progress
from randprune.cli.report import as_text
from randprune.errors import (
    ArtifactError,
    DataError,
    InfeasibleBudgetError,
    InvalidInputError,
    RandpruneError,
    StorageError,
    UnsupportedModelError,
    VerificationError,
    WeightsError,
)
from randprune.jobs.progress import Progress
from randprune.report.table import EMPTY, Cell, Column, Table
from randprune.store import RunKey, Store
from randprune.zoo.models import build_model

DIGITS = "randprune:digits_cnn"


# ---------------------------------------------------------------------------- the program


def test_version_and_help(run: Any) -> None:
    assert run("--version") == (0, f"randprune {version('randprune')}\n", "")
    code, out, err = run("--help")
    assert code == 0
    assert err == ""
    assert "inspect" in out
    assert run() == (0, out, "")


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "randprune", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"randprune {version('randprune')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["inspet"],
            "No such command 'inspet'. Did you mean 'inspect', 'list'? See: randprune --help",
        ),
        (["inspect"], "Missing argument 'MODEL'. See: randprune inspect --help"),
        (["inspect", DIGITS, "--nonsense"], "No such option: --nonsense"),
        (
            ["inspect", DIGITS, "--min-keep", "2"],
            "Invalid value for '--min-keep': ",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    run: Any, arguments: list[str], message: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        RandpruneError,
        InvalidInputError,
        UnsupportedModelError,
        InfeasibleBudgetError,
        VerificationError,
        DataError,
        WeightsError,
        ArtifactError,
        StorageError,
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: type[RandpruneError]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("what failed,\nwhere [bold]and[/] the next step.")

    monkeypatch.setattr("randprune.zoo.models.build_model", fail)
    code, out, err = run("inspect", DIGITS)
    assert (code, out) == (error.exit_code, "")
    assert err == "error: what failed, where [bold]and[/] the next step.\n"


def test_unexpected_errors_show_a_traceback_only_with_debug(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("conv1")

    monkeypatch.setattr("randprune.zoo.models.build_model", fail)
    code, out, err = run("inspect", DIGITS)
    assert (code, out) == (1, "")
    assert err.startswith("error: KeyError: 'conv1' (unexpected")
    assert "Traceback" not in err
    code, _, err = run("inspect", DIGITS, "--debug")
    assert code == 1
    assert "Traceback" in err


def test_interrupting_is_exit_code_130(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("randprune.zoo.models.build_model", stop)
    code, out, err = run("inspect", DIGITS)
    assert (code, out) == (app_module.INTERRUPTED, "")
    assert err.strip() == "Interrupted."


# ---------------------------------------------------------------------------- inspect


def test_inspect_tells_groups_costs_frozen_parts_and_reach(run: Any) -> None:
    code, out, err = run("inspect", DIGITS)
    assert (code, err) == (0, "")
    assert f"{DIGITS} (" in out
    assert "input 1x1x8x8" in out
    assert "MACs" in out
    assert "FLOPs" in out
    assert "Frozen" in out
    assert "Reachable budgets with --min-keep 0.1: from" in out


def test_inspect_json_agrees_with_the_space(run: Any) -> None:
    import randprune as rp

    code, out, err = run("inspect", DIGITS, "--json", "--min-keep", "0.25", "--round-to", "4")
    assert (code, err) == (0, "")
    document = json.loads(out)
    space = rp.trace(build_model(DIGITS), torch.zeros(1, 1, 8, 8))
    assert [group["width"] for group in document["groups"]] == space.widths.tolist()
    assert document["macs"] == space.cost("macs").dense
    assert document["flops"] == 2 * document["macs"]
    assert document["params"] == sum(p.numel() for p in build_model(DIGITS).parameters())
    assert document["fingerprint"] == space.fingerprint
    low, high = document["reachable"]["macs"]
    assert 0 < low < 1 == high
    widths = space.widths.copy()
    widths[0] = 1
    saved = 1 - float(space.cost("macs")(widths)) / document["macs"]
    assert document["groups"][0]["largest_saving_macs"] == pytest.approx(saved)
    assert all(part["reason"] for part in document["frozen"])


def test_inspect_freezes_layers_by_name(run: Any) -> None:
    free = json.loads(run("inspect", DIGITS, "--json")[1])
    layer = free["groups"][0]["layers"][0]
    kept = json.loads(run("inspect", DIGITS, "--json", "--freeze", layer)[1])
    assert len(kept["groups"]) < len(free["groups"])
    assert f"named in freeze ({layer})" in [part["reason"] for part in kept["frozen"]]


def test_inspect_cuts_long_lists_short_unless_all_is_given(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("randprune.cli.inspect._SHOWN", 1)
    groups = len(json.loads(run("inspect", DIGITS, "--json")[1])["groups"])
    assert f"... and {groups - 1} more groups: --all lists them." in run("inspect", DIGITS)[1]
    assert "--all" not in run("inspect", DIGITS, "--all")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["randprune:resnet21"], 2, "Unknown model 'randprune:resnet21'. Close: randprune:resnet"),
        (["nonsense"], 2, "A model is named randprune:NAME"),
        ([DIGITS, "--input", "1x1"], 2, "does not run on the example inputs"),
        ([DIGITS, "--input", "big"], 2, "The option --input must be a shape such as 1x3x224x224"),
        ([DIGITS, "--weights", "missing.safetensors"], 7, "missing.safetensors does not exist"),
        ([DIGITS, "--freeze", "nowhere"], 2, "'nowhere' matches none"),
        ([DIGITS, "--allow", "magic"], 2, "The 'allow' parameter of trace must be among"),
    ],
)
def test_inspect_refuses_bad_input(run: Any, arguments: list[str], code: int, message: str) -> None:
    got, out, err = run("inspect", *arguments)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_networks_of_the_current_directory_can_be_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes=3):\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(6, num_classes))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "randprune", "inspect", "my_net:make", "--json",
         "--input", "1x3x16x16", "--num-classes", "7"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert [group["width"] for group in document["groups"]] == [6]
    assert document["params"] == 3 * 9 * 6 + 6 + 6 * 7 + 7


def test_the_default_input_is_what_the_network_expects() -> None:
    grey = build_model("randprune:resnet20", in_channels=1)
    assert default_shape("randprune:resnet20", grey) == (1, 1, 32, 32)
    assert default_shape(DIGITS, build_model(DIGITS)) == (1, 1, 8, 8)
    assert default_shape("my.nets:make", torch.nn.Conv2d(4, 8, 3)) == (1, 4, 224, 224)


# ---------------------------------------------------------------------------- export


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned digits network as a file."""
    import randprune as rp

    model = build_model(DIGITS).eval()
    space = rp.trace(model, torch.zeros(1, 1, 8, 8))
    selection = rp.select(space, rp.score(model, space, "l1"), (space.widths + 1) // 2)
    folder = tmp_path_factory.mktemp("export")
    return rp.save(rp.cut(model, space, selection), folder / "small.safetensors", model=DIGITS)


def test_export_writes_a_file_that_agrees(run: Any, small_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.pt2"
    code, out, err = run("export", str(small_file), "-o", str(target), "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["format"] == "pt2"
    assert document["batch"] is None
    assert document["difference"] < 1e-5
    assert document["size_bytes"] == target.stat().st_size
    code, out, _ = run("export", str(small_file), "-o", str(target), "--batch", "2")
    assert code == 0
    assert "batches of 2" in out


def test_export_times_the_file_beside_the_dense_network(
    run: Any, small_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
    target = tmp_path / "small.onnx"
    code, out, err = run("export", str(small_file), "-o", str(target), "--time", "--json")
    assert code == 0, err
    found = json.loads(out)
    ratio = found["dense_milliseconds"] / found["milliseconds"]
    assert found["speedup"] == pytest.approx(ratio)
    code, _, err = run("export", str(small_file), "-o", str(tmp_path / "small.pt2"), "--time")
    assert code == 2
    assert "needs an .onnx file" in err


def test_export_refuses_what_it_cannot_do(run: Any, small_file: Path, tmp_path: Path) -> None:
    code, _, err = run("export", str(small_file), "-o", str(tmp_path / "small.tflite"))
    assert (code, "must end in .onnx, .pt2 or .xml" in err) == (2, True)
    code, _, err = run("export", str(tmp_path / "none.safetensors"), "-o", "x.pt2")
    assert (code, "does not exist" in err) == (8, True)


# ---------------------------------------------------------------------------- report


def test_report_writes_the_page_of_a_run_that_has_just_begun(run: Any, tmp_path: Path) -> None:
    with Store.open(tmp_path / "out") as store, store.run(RunKey("prune", {}, 0)):
        pass
    code, out, err = run("report", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in out
    code, out, _ = run("report", str(tmp_path / "out"), "--to", str(tmp_path / "a.html"), "--json")
    document = json.loads(out)
    assert code == 0
    assert document["report"] == str(tmp_path / "a.html")
    assert document["status"] == "finished"
    assert all(Path(path).is_file() for path in [document["report"], *document["tables"]])


def test_report_refuses_a_folder_without_records(run: Any, tmp_path: Path) -> None:
    code, out, err = run("report", str(tmp_path))
    assert (code, out) == (9, "")
    assert str(tmp_path) in err


def test_a_results_table_shows_costs_as_shares_of_the_dense_network() -> None:
    columns = (Column("network", "Network"), Column("macs", "MACs", True),
               Column("test_cut", "Test accuracy", True, hint="cut only"),
               Column("size", "Size on disk", True), Column("hidden", "", shown="csv"))  # fmt: skip
    rows = (
        (Cell("dense"), Cell("40 M"), Cell("91 %"), Cell("1 MB"), EMPTY),
        (Cell("best [x]"), Cell("20 M", note="50.0 %\nx"), Cell("12 %"), Cell("1 MB"), EMPTY),
    )
    console = Console(width=80, file=io.StringIO())
    console.print(as_text(Table("results", "", columns, rows)))
    lines = [line.split("  ") for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    words = [[word.strip() for word in line if word.strip()] for line in lines]
    assert words == [
        ["Accuracy"],
        ["Network", "MACs", "cut only"],
        ["dense", "40 M", "91 %"],
        ["best [x]", "50.0 %", "12 %"],
    ]


# ---------------------------------------------------------------------------- progress


def test_logs_get_a_line_per_phase_and_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress(quiet=False) as shown:
        assert isinstance(shown, Progress)
        shown.start("search", 3, 1, "Searching 3 configurations")
        shown.advance("search", 2, {"best_top1": 0.875, "loss": 0.25})
        shown.finish("search")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(
        r"Searching 3 configurations: done in [^(]+ \(best top1 87.5\xa0%, loss 0.25\)\n",
        printed.err,
    )


def test_terminals_get_bars_with_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with bars(console) as shown:
        shown.start("search", 4, 0, "Searching")
        shown.advance("search", 2, {"best_top1": 0.5})
        shown.start("train", 2, 2, "Training")
        shown.finish("train")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Searching" in text
    assert "2/4" in text
    assert "best top1 50.0" in text
    assert "2/2" in text


def test_nobody_is_told_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as shown:
        shown.start("search", 3, 1, "Searching 3 configurations")
        shown.advance("search", 2, {"best_top1": 0.875})
        shown.finish("search")
    assert capsys.readouterr() == ("", "")


def test_shapes() -> None:
    assert parse_shape("1x3x32x32") == (1, 3, 32, 32)
    assert parse_shape("2,40") == (2, 40)
