"""Networks come back from a file to the last bit, and a damaged or foreign file is refused."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from randprune import atomic
from randprune.artifact import load, read_header, save
from randprune.errors import ArtifactError, InvalidInputError, StorageError
from randprune.graph.trace import trace
from randprune.lineage import named_tensors, plan_of
from randprune.space import Selection, Space
from randprune.surgery import cut
from randprune.zoo.models import build_model


class Small(nn.Module):
    """Convolution without bias, batch norm, convolution, linear; odd tensors on the side."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, classes)
        self.register_buffer("kept", torch.rand(3, dtype=torch.float64))
        self.register_buffer("passing", torch.rand(2), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(images)))
        return self.head(torch.relu(self.second(hidden)).mean((2, 3)))


class Tied(nn.Module):
    """One convolution under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = self.a
        self.head = nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.b(torch.relu(self.a(torch.relu(self.stem(images)))))
        return self.head(torch.relu(hidden).mean((2, 3)))


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@functools.cache
def space_of(kind: type[nn.Module]) -> Space:
    return trace(kind().eval(), IMAGES[:1])


def prune(model: nn.Module, share: float = 0.5, seed: int = 0) -> tuple[nn.Module, Space]:
    fresh = plan_of(model) is None
    space = space_of(type(model)) if fresh else trace(model.eval(), IMAGES[:1])
    rng = np.random.default_rng(seed)
    kept = tuple(
        np.sort(rng.permutation(group.width)[: max(1, int(share * group.width))])
        for group in space.groups
    )
    return cut(model, space, Selection(kept, space.fingerprint)), space


def randomise(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(7)
    for tensor in named_tensors(model).values():
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator).to(tensor.dtype) + 0.5
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = named_tensors(a), named_tensors(b)
    return list(left) == list(right) and all(
        x.dtype == y.dtype
        and x.stride() == y.stride()
        and isinstance(x, nn.Parameter) == isinstance(y, nn.Parameter)
        and torch.equal(x, y)
        for x, y in zip(left.values(), right.values(), strict=True)
    )


def test_a_cut_network_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    small, space = prune(randomise(Small()))
    path = save(small, tmp_path / "small.safetensors")
    back = load(path, model=Small)
    assert same(small, back)
    assert torch.equal(small.eval()(IMAGES), back(IMAGES))
    assert not back.training
    assert back.first.out_channels == small.first.out_channels < 8
    header = read_header(path)
    assert header.fingerprint == space.fingerprint
    assert header.steps[0].selection == plan_of(small).steps[0].selection  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [copy.deepcopy, lambda m: m.double(), lambda m: m.bfloat16()])
def test_the_plan_survives_copies_and_casts(
    tmp_path: Path, change: Callable[[nn.Module], nn.Module]
) -> None:
    small = change(prune(randomise(Small()))[0])
    back = load(save(small, tmp_path / "x.safetensors"), model=Small)
    assert same(small, back)


def test_a_pickled_network_keeps_its_plan_as_text(tmp_path: Path) -> None:
    """It has to load where this package is not installed, and to be saved by us all the same."""
    small, space = prune(randomise(Small()))
    small.first.weight.requires_grad_(False)
    buffer = io.BytesIO()
    pickle.dump(small.__dict__["_randprune_plan"], buffer)
    assert b"randprune.lineage" not in buffer.getvalue()
    pickled = pickle.loads(pickle.dumps(small))
    assert isinstance(pickled.__dict__["_randprune_plan"], str)
    plan = plan_of(pickled)
    assert plan is not None
    assert plan.steps[0].space.fingerprint == space.fingerprint
    assert plan_of(pickled) is plan  # read once
    back = load(save(pickled, tmp_path / "x.safetensors"), model=Small)
    assert same(small, back)
    pickled.__dict__["_randprune_plan"] = '{"randprune": 99}'
    with pytest.raises(ArtifactError, match="cannot be read: format 99, this version reads 1"):
        plan_of(pickled)


def test_the_plan_is_no_part_of_the_state() -> None:
    small, _ = prune(Small())
    assert list(small.state_dict()) == list(Small().state_dict())
    assert plan_of(Small()) is None


def test_weights_after_training_come_back(tmp_path: Path) -> None:
    small = prune(Small())[0].train()
    optimiser = torch.optim.SGD(small.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimiser.zero_grad()
        small(IMAGES).square().sum().backward()
        optimiser.step()
    back = load(save(small, tmp_path / "x.safetensors"), model=Small)
    assert same(small, back)
    assert small.norm.num_batches_tracked == 2


def test_a_memory_layout_comes_back(tmp_path: Path) -> None:
    small = prune(randomise(Small()))[0].to(memory_format=torch.channels_last)
    back = load(save(small, tmp_path / "x.safetensors"), model=Small)
    assert back.first.weight.is_contiguous(memory_format=torch.channels_last)
    assert same(small, back)


def test_strides_come_back(tmp_path: Path) -> None:
    """Also those of axes of one, by which a 1x1 convolution chooses its kernel."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 3))

    dense = build().to(memory_format=torch.channels_last)
    dense[2].weight.data = dense[2].weight.data.t().contiguous().t()
    assert [p.stride() for p in dense.parameters()] == [(3, 1, 3, 3), (1,), (1, 3), (1,)]
    assert same(dense, load(save(dense, tmp_path / "x.safetensors"), model=build))


def test_loaded_tensors_lie_where_torch_would_put_them(tmp_path: Path) -> None:
    """Aligned memory of their own: else a matrix product may round differently."""
    back = load(save(randomise(Small()), tmp_path / "x.safetensors"), model=Small)
    assert all(t.data_ptr() % 64 == 0 for t in named_tensors(back).values())


def test_a_bias_gained_by_recovery_comes_back(tmp_path: Path) -> None:
    small, _ = prune(randomise(Small()))
    small.first.bias = nn.Parameter(torch.rand(small.first.out_channels))
    path = save(small, tmp_path / "x.safetensors")
    back = load(path, model=Small)
    assert same(small, back)
    assert list(read_header(path).gained) == ["first.bias"]
    assert torch.equal(small.eval()(IMAGES), back(IMAGES))


def test_cutting_a_cut_network_again_is_repeated(tmp_path: Path) -> None:
    once, _ = prune(randomise(Small()), 0.75)
    once.first.bias = nn.Parameter(torch.rand(once.first.out_channels))
    twice, _ = prune(once, 0.5, seed=1)
    assert twice.first.out_channels < once.first.out_channels
    path = save(twice, tmp_path / "x.safetensors")
    assert same(twice, load(path, model=Small))
    again = save(load(path, model=Small), tmp_path / "y.safetensors")
    assert again.read_bytes() == path.read_bytes()


class Literal(nn.Module):
    """A forward with constants: cut only in its graph. One weight is computed from another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(8 * 36, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.first(images))).view(-1, 8 * 36))


def test_a_network_cut_as_a_graph_comes_back(tmp_path: Path) -> None:
    dense = randomise(Literal()).eval()
    space = trace(dense, IMAGES[:1], as_graph=True)
    kept = tuple(np.arange(0, group.width, 3) for group in space.groups)
    small = cut(dense, space, Selection(kept, space.fingerprint))
    assert small.first.out_channels == 3
    path = save(small, tmp_path / "x.safetensors")
    back = load(path, model=Literal)
    assert isinstance(back, torch.fx.GraphModule)
    assert same(small, back)
    assert torch.equal(small(IMAGES), back(IMAGES))
    loss = back.train()(IMAGES).square().sum()
    loss.backward()
    torch.optim.SGD(back.parameters(), 0.1).step()
    again = load(save(back, tmp_path / "y.safetensors"), model=Literal)
    assert same(back, again)
    assert torch.equal(back.eval()(IMAGES), again(IMAGES))
    exported = torch.export.export(again, (IMAGES,)).module()
    assert torch.equal(exported(IMAGES), again(IMAGES))


def test_shared_tensors_are_stored_once_and_stay_shared(tmp_path: Path) -> None:
    small, _ = prune(randomise(Tied()))
    path = save(small, tmp_path / "x.safetensors")
    back = load(path, model=Tied)
    assert back.a.weight is back.b.weight
    assert torch.equal(small.eval()(IMAGES), back(IMAGES))
    stored = safetensors.torch.load_file(path)
    assert "a.weight" in stored
    assert "b.weight" not in stored


def test_a_dense_network_may_be_saved(tmp_path: Path) -> None:
    dense = randomise(Small())
    back = load(save(dense, tmp_path / "x.safetensors"), model=Small)
    assert same(dense, back)
    assert plan_of(back) is None


def test_the_stored_name_is_enough(tmp_path: Path) -> None:
    dense = build_model("randprune:resnet20", num_classes=7)
    space = trace(dense.eval(), torch.rand(1, 3, 32, 32))
    kept = tuple(np.arange(0, group.width, 2) for group in space.groups)
    small = cut(dense, space, Selection(kept, space.fingerprint))
    path = tmp_path / "x.safetensors"
    options = {"num_classes": 7}
    save(small, path, model="randprune:resnet20", options=options, metadata={"top1": 0.9})
    state = torch.random.get_rng_state()
    assert same(small, load(path))
    assert same(small, load(path, model="randprune:resnet20"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert read_header(path).metadata == {"top1": 0.9}


def test_an_instance_serves_as_architecture_and_stays_as_it_is(tmp_path: Path) -> None:
    small, _ = prune(randomise(Small()))
    path = save(small, tmp_path / "x.safetensors")
    instance = Small()
    before = copy.deepcopy(instance)
    assert same(small, load(path, model=instance))
    assert same(before, instance)
    assert instance.training


def test_a_fresh_process_without_pickle_gives_equal_outputs(tmp_path: Path) -> None:
    dense = build_model("randprune:digits_cnn")
    space = trace(dense.eval(), torch.rand(1, 1, 8, 8))
    kept = tuple(np.arange(0, group.width, 3) for group in space.groups)
    small = cut(dense, space, Selection(kept, space.fingerprint)).eval()
    path = save(small, tmp_path / "x.safetensors", model="randprune:digits_cnn")
    script = (
        "import sys, pickle, torch\n"
        "from randprune.artifact import load\n"
        "def refuse(*_, **__): raise SystemExit('pickle was used')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse\n"
        f"net = load({str(path)!r})\n"
        "torch.set_num_threads(1)\n"
        "images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))\n"
        "print(net(images).double().tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    assert json.loads(done.stdout) == small(images).double().tolist()


def test_equal_networks_give_equal_files(tmp_path: Path) -> None:
    small, _ = prune(randomise(Small()))
    contents = {save(small, tmp_path / f"{i}.safetensors").read_bytes() for i in range(5)}
    assert len(contents) == 1


def test_the_saved_network_is_left_alone(tmp_path: Path) -> None:
    small, _ = prune(randomise(Small()))
    before = copy.deepcopy(small)
    save(small.train(), tmp_path / "x.safetensors")
    assert same(before, small)
    assert small.training


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return save(prune(randomise(Small()))[0], tmp_path / "x.safetensors")


def test_another_architecture_is_named_by_its_first_tensor(stored: Path) -> None:
    with pytest.raises(ArtifactError, match=r"belongs to another network.* head\.weight has shape"):
        load(stored, model=lambda: Small(classes=5))
    with pytest.raises(ArtifactError, match=r"first\.weight is missing"):
        load(stored, model="randprune:resnet20")


def test_a_pruned_network_is_no_dense_architecture(stored: Path) -> None:
    small = load(stored, model=Small)
    with pytest.raises(ArtifactError, match=r"first\.weight has shape.*Pass the dense Small"):
        load(stored, model=small)


def test_without_a_name_the_constructor_is_asked_for(stored: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not name.*Small was saved.*model=constructor"):
        load(stored)


def test_a_constructor_that_wants_arguments_or_gives_no_network(stored: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot be called without arguments.*lambda"):
        load(stored, model=nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=r"must give the dense nn\.Module"):
        load(stored, model=dict)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 4, 200, -10])
def test_a_truncated_file(stored: Path, size: int) -> None:
    stored.write_bytes(stored.read_bytes()[:size])
    with pytest.raises(ArtifactError, match="corrupt or truncated"):
        load(stored, model=Small)


@pytest.mark.parametrize("place", [0.4, 0.999])
def test_a_flipped_bit_is_noticed_wherever_it_is(stored: Path, place: float) -> None:
    content = bytearray(stored.read_bytes())
    content[int(place * len(content))] ^= 1
    stored.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"checksum|corrupt|damaged|altered"):
        load(stored, model=Small)


def test_a_changed_selection_is_noticed(stored: Path) -> None:
    tensors = safetensors.torch.load_file(stored)
    content = stored.read_bytes()
    document = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header = json.loads(document["__metadata__"]["randprune"])
    kept = header["cuts"][0]["selection"]["kept"][0]
    kept[0] = next(i for i in range(8) if i not in kept)
    kept.sort()
    safetensors.torch.save_file(tensors, stored, {"randprune": json.dumps(header)})
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        load(stored, model=Small)


def test_somebody_elses_file(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ArtifactError, match=r"not written by randprune\.save"):
        load(path, model=Small)


def test_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    document = json.dumps({"format": 99, "versions": {"randprune": "9.0"}})
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"randprune": document})
    with pytest.raises(ArtifactError, match=r"format 99.*9\.0"):
        load(path, model=Small)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        load(tmp_path / "none.safetensors", model=Small)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(tmp_path, model=Small)


def test_a_network_rebuilt_after_the_cut_is_refused_when_saving(tmp_path: Path) -> None:
    small, _ = prune(Small())
    small.head = nn.Linear(small.head.in_features, 9)
    with pytest.raises(ArtifactError, match=r"head\.weight had shape .* the network was rebuilt"):
        save(small, tmp_path / "x.safetensors")
    small.norm = nn.Identity()
    with pytest.raises(ArtifactError, match=r"norm\.weight .* is gone"):
        save(small, tmp_path / "x.safetensors")


def test_a_cut_part_of_a_network_is_named(tmp_path: Path) -> None:
    wrapped = nn.Sequential(prune(Small())[0])
    with pytest.raises(ArtifactError, match="The part '0' of this Sequential was cut"):
        save(wrapped, tmp_path / "x.safetensors")


def test_wrappers_of_training_are_seen_through(tmp_path: Path) -> None:
    small, _ = prune(Small())
    back = load(save(nn.DataParallel(small), tmp_path / "x.safetensors"), model=Small)
    assert same(small, back)


def test_what_cannot_be_stored(tmp_path: Path) -> None:
    network = Small()
    network.register_buffer("wide", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(ArtifactError, match=r"cannot hold wide.*complex128"):
        save(network, tmp_path / "x.safetensors")
    with pytest.raises(InvalidInputError, match="must be JSON-ready"):
        save(Small(), tmp_path / "x.safetensors", metadata={"x": float("nan")})
    with pytest.raises(ArtifactError, match="has no values"):
        save(Small().to("meta"), tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save(prune(Small())[0], stored)
    assert stored.read_bytes() == before
    assert list(stored.parent.iterdir()) == [stored]


def test_an_unwritable_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be written .*choose another folder"):
        save(prune(Small())[0], blocked / "x.safetensors")


def test_the_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        path = save(Small(), tmp_path / "new" / "x.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
