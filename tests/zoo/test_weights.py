"""Weights: every format in, every misfit named, nothing half loaded; published accuracies."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from randprune.errors import WeightsError
from randprune.zoo.data import Split, TensorSplit, load_data
from randprune.zoo.models import build_model
from randprune.zoo.sources import RGB_MEAN, RGB_STD
from randprune.zoo.weights import load_weights, weights_hash


def network(seed: int = 0, outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, outputs))


def state(seed: int = 1, **options) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network(seed, **options).state_dict().items()}


def save(content, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_each_format_gives_the_saved_network(tmp_path, suffix):
    model = network(0)
    assert load_weights(model, save(state(1), tmp_path / f"w{suffix}")) is model
    assert weights_hash(model) == weights_hash(network(1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": {f"module.{key}": value for key, value in s.items()}},
        lambda s: {f"module.{key}": value for key, value in s.items()},
    ],
)
def test_wrappers_and_prefixes_are_removed(tmp_path, wrap):
    model = load_weights(network(0), save(wrap(state(1)), tmp_path / "w.pt"))
    assert weights_hash(model) == weights_hash(network(1))


def test_float16_is_upcast(tmp_path):
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state(1).items()}
    model = load_weights(network(0), save(halves, tmp_path / "w.safetensors"))
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, halves["0.weight"].float())


def test_the_batch_counter_may_be_missing(tmp_path):
    content = {k: v for k, v in state(1).items() if not k.endswith("num_batches_tracked")}
    assert len(content) < len(state(1))
    model = load_weights(network(0), save(content, tmp_path / "w.safetensors"))
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in content.items())
    # A new network's counter stays.
    assert loaded["1.num_batches_tracked"] == network(0).state_dict()["1.num_batches_tracked"]


def test_missing_and_unexpected_keys_are_named(tmp_path):
    content = state(1)
    content["head.weight"] = content.pop("3.weight")
    path = save(content, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError, match=r"1 missing: 3\.weight; 1 unexpected: head\.weight\. Check"
    ):
        load_weights(network(0), path)
    model = load_weights(network(0), path, strict=False)
    assert torch.equal(model[0].weight, content["0.weight"])
    assert torch.equal(model[3].weight, network(0)[3].weight)


def test_misshaped_keys_are_named_in_both_modes_and_nothing_is_loaded(tmp_path):
    path = save(state(1, outputs=5), tmp_path / "w.safetensors")
    for strict in (True, False):
        model = network(0)
        with pytest.raises(
            WeightsError,
            match=r"2 misshaped: 3\.weight \(file \(5, 4\), model \(3, 4\)\), 3\.bias",
        ):
            load_weights(model, path, strict=strict)
        assert weights_hash(model) == weights_hash(network(0))


def test_long_lists_are_shortened(tmp_path):
    with pytest.raises(WeightsError, match=r"97 missing: conv1\.weight, .*, \.\.\.; 9 unexpected"):
        load_weights(build_model("randprune:resnet20"), save(state(1), tmp_path / "w.safetensors"))


def test_weights_of_another_network_are_refused_even_when_not_strict(tmp_path):
    path = save({"other": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="none of its 1 keys"):
        load_weights(network(0), path, strict=False)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    content = state(1)
    content["1.running_var"][2] = value
    model = network(0)
    with pytest.raises(WeightsError, match=r"NaN or infinite values: 1 affected: 1\.running_var"):
        load_weights(model, save(content, tmp_path / "w.safetensors"))
    assert weights_hash(model) == weights_hash(network(0))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 20, 900])
def test_truncated_files(tmp_path, suffix, keep):
    path = save(state(1), tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="corrupt"):
        load_weights(network(0), path)


class Attack:
    def __reduce__(self):
        return (Path.touch, (Path("should_never_exist"),))


@pytest.mark.parametrize("legacy", [True, False])
def test_pickled_code_is_refused_and_does_not_run(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    content = {**state(1), "attack": Attack()}
    if legacy:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match="can run code"):
        load_weights(network(0), path)
    assert not Path("should_never_exist").exists()


def test_whole_pickled_models_are_refused(tmp_path):
    torch.save(network(0), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"Save model\.state_dict\(\)"):
        load_weights(network(0), tmp_path / "model.pt")


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        load_weights(network(0), tmp_path / "absent.pt")
    (tmp_path / "w.onnx").touch()
    with pytest.raises(WeightsError, match=r"Got 'w\.onnx' instead"):
        load_weights(network(0), tmp_path / "w.onnx")
    with pytest.raises(WeightsError, match="Got list instead"):
        load_weights(network(0), save([1, 2], tmp_path / "list.pt"))
    with pytest.raises(WeightsError, match=r"holds no tensors; its keys are \['epoch'\]"):
        load_weights(network(0), save({"epoch": 3}, tmp_path / "none.pt"))


def meta(tensor):
    return tensor.to("meta")


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to_sparse(), r"3\.weight \(sparse_coo\)"),
        (meta, r"3\.weight \(on the meta device, without values\)"),
        (lambda t: t.to(torch.complex64), r"3\.weight \(complex64, the model has float32\)"),
        (lambda t: t.to(torch.int8), r"3\.weight \(int8, the model has float32\)"),
        (lambda t: t.bool(), r"3\.weight \(bool, the model has float32\)"),
    ],
)
def test_tensors_without_plain_values_are_named(tmp_path, change, message):
    content = state(1)
    content["3.weight"] = change(content["3.weight"])
    model = network(0)
    with pytest.raises(WeightsError, match=message):
        load_weights(model, save(content, tmp_path / "w.pt"))
    assert weights_hash(model) == weights_hash(network(0))


def test_values_that_overflow_in_the_models_dtype(tmp_path):
    content = state(1)
    content["3.weight"] = content["3.weight"].double() + 1e300
    with pytest.raises(WeightsError, match=r"NaN or infinite values: 1 affected: 3\.weight"):
        load_weights(network(0), save(content, tmp_path / "w.pt"))


def test_a_dict_that_holds_itself(tmp_path):
    content = {"epoch": 3}
    content["model"] = content
    with pytest.raises(WeightsError, match="or holds itself"):
        load_weights(network(0), save(content, tmp_path / "w.pt"))


def test_a_small_file_that_claims_terabytes(tmp_path):
    """One stored number, repeated by its strides; of a shape that no model here has."""
    content = state(1) | {"3.weight": torch.zeros(1).expand(2**20, 2**20)}
    with pytest.raises(WeightsError, match=r"misshaped: 3\.weight \(file \(1048576, 1048576\)"):
        load_weights(network(0), save(content, tmp_path / "w.pt"))
    content = state(1) | {"other": torch.zeros(1).expand(2**20, 2**20)}
    model = load_weights(network(0), save(content, tmp_path / "w.pt"), strict=False)
    assert weights_hash(model) == weights_hash(network(1))


@pytest.mark.parametrize("name", ["a\0b.pt", "/dev/zero", "."])
def test_paths_that_are_no_files(name):
    with pytest.raises(WeightsError, match=r"does not exist|is not a regular file"):
        load_weights(network(0), name)


def test_file_names_that_are_not_utf_8(tmp_path):
    path = save(state(1), tmp_path / os.fsdecode(b"\xff\xfe.pt"))
    assert weights_hash(load_weights(network(0), path)) == weights_hash(network(1))
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match="corrupt"):
        load_weights(network(0), path)


def test_the_hash_follows_names_and_values():
    first = network(0)
    assert weights_hash(first) == weights_hash(network(0))
    assert len(weights_hash(first)) == 64
    renamed = nn.Sequential(nn.Identity(), *network(0))
    assert weights_hash(renamed) != weights_hash(first)
    with torch.no_grad():
        first[3].bias[1] += 1e-6
    assert weights_hash(first) != weights_hash(network(0))
    assert weights_hash(network(0).half()) != weights_hash(network(0))
    # Memory order is no property of the weights.
    assert weights_hash(network(0).to(memory_format=torch.channels_last)) == weights_hash(
        network(0)
    )


@pytest.mark.parametrize(("name", "correct"), [("resnet20", 469), ("resnet56", 467)])
def test_published_cifar_networks_reach_their_accuracy(shared_data, name, correct):
    """The first 500 of the 10,000 test images, on all of which they reach 91.73 and 93.39 %."""
    model = build_model(f"randprune:{name}")
    load_weights(model, shared_data / "weights" / f"cifar10_{name}.safetensors")
    with np.load(shared_data / "cifar10" / "test.npz") as archive:
        images = torch.from_numpy(archive["images"][:500]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(archive["labels"][:500].astype(np.int64))
    test = TensorSplit(images.contiguous(), labels, RGB_MEAN, RGB_STD, 10)
    assert abs(count_correct(model, test) - correct) <= 1


def test_squeezenet_reaches_its_accuracy_1000_way(shared_data):
    """100 of the 500 validation images, on all of which it reaches 59.0 %."""
    model = build_model("torchvision:squeezenet1_1")
    load_weights(model, shared_data / "weights" / "imagenet_squeezenet1_1_fp16.safetensors")
    data = load_data(
        f"imagefolder:{shared_data / 'imagenette'}", classes=shared_data / "imagenet_wnids.json"
    )
    assert data.num_classes == 1000
    test = data.open_test("published accuracy").subset(range(0, 500, 5))
    assert abs(count_correct(model, test) - 58) <= 1


def count_correct(model: nn.Module, split: Split) -> int:
    model.eval()
    with torch.inference_mode():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in split.batches(100))
