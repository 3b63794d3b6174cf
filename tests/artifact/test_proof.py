"""`check`: an exact cut is told from a repaired one, a trained one, and from somebody else's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from forgery import Literal, Tied, every_second, read, signed
from torch import nn

import randprune as rp
from randprune.artifact import check
from randprune.lineage import named_tensors
from randprune.recovery.chain import recover
from randprune.zoo.models import build_model

DIGITS = "randprune:digits_cnn"


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(2)
    network = build_model(DIGITS).eval()
    for tensor in named_tensors(network).values():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape) + 0.5
    return network


@pytest.fixture(scope="module")
def small(dense: nn.Module) -> nn.Module:
    space = rp.trace(dense, torch.zeros(1, 1, 8, 8))
    return rp.cut(dense, space, every_second(space))


@pytest.fixture
def weights(dense: nn.Module, tmp_path: Path) -> Path:
    safetensors.torch.save_file(dense.state_dict(), tmp_path / "dense.safetensors")
    return tmp_path / "dense.safetensors"


@pytest.fixture
def file(small: nn.Module, tmp_path: Path) -> Path:
    return rp.save(small, tmp_path / "small.safetensors", model=DIGITS)


def test_an_exact_cut(dense: nn.Module, file: Path, weights: Path) -> None:
    state = torch.random.get_rng_state()
    found = check(file, weights)
    assert found == check(file, dense) == check(file, weights, DIGITS)
    assert found.verdict == "exact"
    assert found.channels[0] * 2 == found.channels[1]
    assert found.error < 1e-6
    assert found.same_space
    assert found.differences == found.dtypes == ()
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("recovery", ["least_squares", "bn", "least_squares+sequential+bn"])
def test_a_repair_writes_where_repairs_write(
    recovery: str, dense: nn.Module, small: nn.Module, tmp_path: Path
) -> None:
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plan = rp.trace(dense, images[:1])
    repaired = recover(
        copy.deepcopy(small), dense, plan, every_second(plan), recovery, data=[(images, None)]
    )
    found = check(rp.save(repaired, tmp_path / "x.safetensors", model=DIGITS), dense)
    assert found.verdict == "repaired"
    assert found.differences
    assert all(difference.repair for difference in found.differences)


def test_training_is_told_from_repair(small: nn.Module, dense: nn.Module, tmp_path: Path) -> None:
    trained = copy.deepcopy(small).train()
    optimiser = torch.optim.SGD(trained.parameters(), 0.1)
    trained(torch.rand(8, 1, 8, 8)).square().sum().backward()
    optimiser.step()
    found = check(rp.save(trained, tmp_path / "x.safetensors", model=DIGITS), dense)
    assert found.verdict == "changed"
    foreign = {d.tensor for d in found.differences if not d.repair}
    assert "conv1.weight" in foreign
    assert "bn1.weight" in foreign
    assert not {"layer2.0.conv2.weight", "bn1.running_mean"} & foreign


@pytest.mark.parametrize("name", ["conv1.weight", "layer1.0.bn1.bias", "layer3.0.shortcut.after"])
def test_one_changed_value_is_found(
    name: str, small: nn.Module, dense: nn.Module, tmp_path: Path
) -> None:
    changed = copy.deepcopy(small)
    tensor = named_tensors(changed)[name]
    with torch.no_grad():
        tensor.view(-1)[3] += 0.25
    found = check(rp.save(changed, tmp_path / "x.safetensors", model=DIGITS), dense)
    assert found.verdict == "changed"
    (difference,) = found.differences
    assert difference.tensor == name
    assert difference.largest == pytest.approx(0.25)
    assert not difference.repair


def test_another_dtype_is_no_other_value(
    small: nn.Module, dense: nn.Module, tmp_path: Path
) -> None:
    half = copy.deepcopy(small).bfloat16()
    found = check(rp.save(half, tmp_path / "x.safetensors", model=DIGITS), dense)
    assert found.verdict == "exact"
    assert "conv1.weight" in found.dtypes


def test_a_selection_that_its_values_do_not_have(
    file: Path, dense: nn.Module, tmp_path: Path
) -> None:
    """The header claims other channels than those that the tensors hold; it loads all the same."""
    header, tensors = read(file)
    kept = header["cuts"][0]["selection"]["kept"][0]
    header["cuts"][0]["selection"]["kept"][0] = [channel + 1 for channel in kept]
    path = signed(tmp_path / "forged.safetensors", header, tensors)
    rp.load(path)
    found = check(path, dense)
    assert found.verdict == "changed"
    assert "conv1.weight" in {d.tensor for d in found.differences if not d.repair}


def test_a_forged_space_is_no_exact_cut(tmp_path: Path) -> None:
    """Groups that cut one layer's channels but not those that it is added to."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.a(images) + self.b(images)))

    network = Sum().eval()
    space = rp.trace(network, torch.zeros(1, 3, 4, 4))
    small = rp.cut(network, space, every_second(space))
    header, tensors = read(rp.save(small, tmp_path / "x.safetensors"))
    for group in header["cuts"][0]["space"]["groups"]:
        for slot in group["slots"]:
            if slot["tensor"].startswith("b."):
                slot["index"] = [[3, -1, 4]]  # channel j of a with channel 3 - j of b
    path = signed(tmp_path / "forged.safetensors", header, tensors)
    rp.load(path, Sum)
    with pytest.raises(rp.VerificationError, match=r"forged\.safetensors is not an exact cut"):
        check(path, network)


def test_other_groups_than_tracing_finds_are_said(dense: nn.Module, tmp_path: Path) -> None:
    space = rp.trace(dense, torch.zeros(1, 1, 8, 8), freeze=["layer3*"])
    small = rp.cut(dense, space, every_second(space))
    found = check(rp.save(small, tmp_path / "x.safetensors", model=DIGITS), dense)
    assert found.verdict == "exact"
    assert not found.same_space


def test_cuts_of_cuts_graphs_and_shared_layers(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 6, 6)
    network = Tied().eval()
    space = rp.trace(network, images)
    once = rp.cut(network, space, every_second(space))
    once.stem.bias = nn.Parameter(torch.zeros(once.stem.out_channels))
    again = rp.trace(once, images)
    twice = rp.cut(once, again, every_second(again))
    found = check(rp.save(twice, tmp_path / "x.safetensors"), network)
    assert found.verdict == "exact"
    network = Literal().eval()
    space = rp.trace(network, images, as_graph=True)
    small = rp.cut(network, space, every_second(space))
    assert check(rp.save(small, tmp_path / "x.safetensors"), network).verdict == "exact"


def test_files_that_cannot_be_compared(
    dense: nn.Module, file: Path, weights: Path, tmp_path: Path
) -> None:
    network = Tied(shared=False).eval()
    wide = rp.widen(network, rp.trace(network, torch.rand(1, 3, 6, 6)), 1.5)
    with pytest.raises(rp.ArtifactError, match="was widened before it was cut"):
        check(rp.save(wide, tmp_path / "wide.safetensors"), network)
    with pytest.raises(rp.ArtifactError, match="belongs to another network"):
        check(file, network)
    other = build_model(DIGITS, num_classes=3)
    safetensors.torch.save_file(other.state_dict(), weights)
    with pytest.raises(rp.WeightsError, match="do not fit"):
        check(file, weights)
    assert check(rp.save(dense, tmp_path / "x.safetensors"), dense).verdict == "exact"


def test_the_command(small: nn.Module, file: Path, weights: Path, run: Any, tmp_path: Path) -> None:
    code, text, _ = run("check", str(file), "--dense", str(weights))
    assert code == 0
    assert "is an exact cut of the dense network" in text
    assert "tensors hold the dense network's values" in text
    changed = copy.deepcopy(small)
    with torch.no_grad():
        changed.conv1.weight += 1
        changed.bn1.running_mean += 1
    path = rp.save(changed, tmp_path / "changed.safetensors", model=DIGITS)
    code, text, _ = run("check", str(path), "--dense", str(weights))
    assert code == 5
    assert "the network was trained, or changed by hand" in text
    assert "conv1.weight" in text
    code, text, _ = run("check", str(path), "--dense", str(weights), "--json")
    assert code == 5
    document = json.loads(text)
    assert document["verdict"] == "changed"
    assert [d["repair"] for d in document["differences"]] == [False, True]
    code, _, error = run("check", str(weights), "--dense", str(weights))
    assert code == 8
    assert "not written by randprune.save" in error
