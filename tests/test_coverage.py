"""The coverage sweep: a quick part of it for real, and what it does with failures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import randprune as rp

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "benchmarks"))

import coverage  # noqa: E402 - a script beside the package, not an installed module
import coverage_network  # noqa: E402
import coverage_page  # noqa: E402


@pytest.fixture
def record():
    """A network that holds, as the sweep records it."""
    mode = {
        "groups": 12,
        "macs": 1.8e9,
        "params": 1.1e7,
        "lowest": 0.02,
        "prunable_macs": 1.0,
        "trace_seconds": 1.1,
        "trace_mib": 184,
        "frozen_layers": 1,
        "frozen": [["the network's output", 1000, ["fc"]]],
        "inexact": [],
        "ratios": [0.5],
        "verify_error": 1e-15,
        "cost_error": 0.0,
    }
    return {"model": "tv:resnet18", "module": mode, "torch_pruning": {"outcome": "crashes"}}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["tv:resnet18", "tv:shufflenet_v2_x0_5", "timm:regnetx_002"])
def test_networks_hold(name):
    """At half of the MACs, three times: runs, exact, costs what is said, trains, exports."""
    model, _ = coverage_network.build(name)
    example = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = coverage_network.measure_model(name, model, example, graph=False)
    assert coverage.failures(found) == []
    assert found["module"]["lowest"] <= coverage_network.RATIO
    assert found["module"]["ratios"] == pytest.approx([0.5] * 3, abs=0.01)
    assert found["module"]["prunable_macs"] > 0.5


def test_a_frozen_network_is_cut_as_a_graph_too():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), Halves()
    )
    found = coverage_network.measure_model("halves", net, torch.randn(1, 3, 8, 8))
    assert coverage.failures(found) == []
    assert found["module"]["groups"] == 1
    assert found["graph"]["groups"] > 1
    assert any("holds a constant" in reason for reason, _, _ in found["module"]["frozen"])


class Halves(torch.nn.Module):
    """Splits eight channels at a constant, then classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.end = torch.nn.Linear(8, 2)

    def forward(self, x):
        first, second = torch.split(x.relu(), [3, 5], 1)
        return self.end(torch.cat([second, first], 1).mean((2, 3)))


def test_the_list_is_the_shared_one(shared_data):
    shared = shared_data.parent / "coverage_models.txt"
    names = coverage.read_list(coverage.DEFAULT_LIST)
    assert names == coverage.read_list(shared)
    assert len(names) == len(set(names)) == 60
    assert all(re.fullmatch(r"(tv|timm):\w+", name) for name in names)


def test_one_broken_network_ends_nothing(tmp_path):
    """Each runs in its own process: an exception and a time-out become records."""
    script = Path(coverage.__file__)
    broken = coverage_network.run_apart(script, "tv:no_such_network", 600)
    assert broken["model"] == "tv:no_such_network"
    assert "no_such_network" in broken["error"]
    sleepy = tmp_path / "sleepy.py"
    sleepy.write_text("import time; time.sleep(60)")
    assert coverage_network.run_apart(sleepy, "x", 0.5)["error"] == "no result within 0 s"
    good = tmp_path / "good.py"
    good.write_text(
        "import sys; print('noise'); print('RECORD {\"model\": \"' + sys.argv[2] + '\"}')"
    )
    assert coverage_network.run_apart(good, "y", 600) == {"model": "y"}


class TestFailures:
    def test_none(self, record):
        assert coverage.failures(record) == []
        assert coverage.one_line(record).endswith("Torch-Pruning crashes; ok")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"verify_error": 1e-3}, "module: relative error 1.0e-03"),
            ({"verify_error": float("nan")}, "module: relative error nan"),
            ({"cost_error": 1.0}, "module: the cost is off by 1"),
            ({"error": "RuntimeError: x"}, "module: RuntimeError: x"),
        ],
    )
    def test_each_kind(self, record, change, message):
        record["module"].update(change)
        assert coverage.failures(record) == [message]
        assert "FAIL" in coverage.one_line(record)

    def test_of_the_emitted_graph(self, record):
        record["graph"] = {**record["module"], "cost_error": 2.0}
        assert coverage.failures(record) == ["graph: the cost is off by 2"]


class TestRecords:
    def test_a_partial_run_replaces_only_its_own(self, tmp_path, record):
        path = tmp_path / "docs" / "coverage.json"
        other = {**record, "model": "tv:alexnet"}
        coverage.merge_records(path, [record, other])
        coverage.merge_records(path, [{**record, "note": "new"}])
        found = {r["model"]: r for r in coverage.load_records(path)}
        assert list(found) == ["tv:resnet18", "tv:alexnet"]
        assert found["tv:resnet18"]["note"] == "new"
        assert "note" not in found["tv:alexnet"]
        assert [p.name for p in path.parent.iterdir()] == ["coverage.json"]

    def test_missing_ones_are_those_without_a_sound_record(self, tmp_path, monkeypatch, record):
        seen = []
        monkeypatch.setattr(coverage, "sweep", lambda names, *a, **k: seen.extend(names) or [])
        monkeypatch.setattr(coverage, "RECORDS", tmp_path / "coverage.json")
        broken = {"model": "tv:alexnet", "error": "no result within 600 s"}
        coverage.merge_records(coverage.RECORDS, [record, broken])
        names = ["tv:resnet18", "tv:alexnet", "tv:vgg11"]
        assert coverage.main(["--missing", "--dry-run", "--models", *names]) == 0
        assert seen == ["tv:alexnet", "tv:vgg11"]

    def test_an_earlier_result_of_the_peer_stays_where_it_does_not_run(
        self, tmp_path, monkeypatch, record
    ):
        monkeypatch.setattr(coverage, "RECORDS", tmp_path / "coverage.json")
        coverage.merge_records(coverage.RECORDS, [record])
        theirs = record.pop("torch_pruning")
        monkeypatch.setattr(coverage, "run_apart", lambda *a: {"model": a[1], **record})
        coverage.sweep(["tv:resnet18"], 60, peer=False)
        assert coverage.load_records(coverage.RECORDS)[0]["torch_pruning"] == theirs

    def test_thirds_cover_the_list(self, monkeypatch, capsys):
        seen = []

        def sweep(names, limit, **options):
            seen.append(names)
            return []

        monkeypatch.setattr(coverage, "sweep", sweep)
        for third in "012":
            assert coverage.main(["--third", third, "--dry-run", "--json"]) == 0
        assert sorted(name for part in seen for name in part) == sorted(
            coverage.read_list(coverage.DEFAULT_LIST)
        )
        assert json.loads(capsys.readouterr().out.split("]")[0] + "]") == []

    def test_the_exit_code_tells(self, monkeypatch, record):
        record["module"]["cost_error"] = 3.0
        monkeypatch.setattr(coverage, "sweep", lambda *a, **k: [record])
        assert coverage.main(["--models", "tv:resnet18", "--dry-run"]) == 1


class TestPage:
    def test_table_reasons_and_summary(self, record):
        high = json.loads(json.dumps(record))
        high["model"] = "timm:high"
        high["module"]["lowest"] = 0.8
        high["module"]["frozen"] = [["layer norm over channels in a|b (layer_norm)", 7, ["a", "c"]]]
        high["torch_pruning"] = {"outcome": "ok", "macs_ratio": 0.27}
        page = coverage_page.render([high, record], ["tv:resnet18", "timm:high", "tv:missing"])
        assert "2 of 3 networks trace; 2 hold in everything checked." in page
        assert "1 of 3 reach 50% of the MACs or less." in page
        assert "Torch-Pruning on the same 2: 1 ok, 1 crashes." in page
        assert page.index("| tv:resnet18 |") < page.index("| timm:high |")
        assert (
            "**timm:high** (80%): layer norm over channels in a|b (layer_norm) (7 channels)" in page
        )
        assert "layer norm over channels in a\\|b (layer_norm): 7 channels of a, c" in page
        rows = [line for line in page.splitlines() if line.startswith("| t")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}

    def test_a_network_that_failed(self, record):
        broken = {"model": "tv:broken", "error": "no result within 600 s"}
        page = coverage_page.render([record, broken], ["tv:resnet18", "tv:broken"])
        assert "| tv:broken | no result within 600 s |" in page
        record["module"]["error"] = "VerificationError: it | differs"
        page = coverage_page.render([record], ["tv:resnet18"])
        assert "**module: VerificationError: it \\| differs**" in page


def test_version_is_recorded():
    assert coverage.environment_of()["randprune"] == rp.__version__
