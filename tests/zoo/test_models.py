"""Networks by name: shapes, published sizes, keys, reproducible weights, refusals."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import randprune as rp
from randprune.errors import InvalidInputError
from randprune.zoo.cifar import BasicBlock, CifarResNet, ZeroPadShortcut
from randprune.zoo.models import OWN_MODELS, build_model, list_models


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# He et al. (2016), Table 6, give 0.27, 0.46, 0.66, 0.85 and 1.7 million for the ResNets.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        ("vgg16_bn", 14_724_042),
        ("mobilenet_v2", 2_236_682),
        ("digits_cnn", 172_218),
    ],
)
def test_own_models_have_their_published_size_and_run(name, size):
    model = build_model(f"randprune:{name}").eval()
    assert parameters(model) == size
    channels = 1 if name == "digits_cnn" else 3
    with torch.no_grad():
        logits = model(torch.randn(2, channels, 32, 32))
    assert logits.shape == (2, 10)
    assert torch.isfinite(logits).all()


def test_every_own_model_takes_classes_and_channels():
    for name in OWN_MODELS:
        model = build_model(f"randprune:{name}", num_classes=7, in_channels=2).eval()
        with torch.no_grad():
            assert model(torch.zeros(1, 2, 32, 32)).shape == (1, 7)


def test_keys_are_those_of_the_published_checkpoints():
    keys = set(build_model("randprune:resnet20").state_dict())
    blocks = [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(3)]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{key}" for key in norm)}
    for block in blocks:
        expected |= {f"{block}.conv{i}.weight" for i in (1, 2)}
        expected |= {f"{block}.bn{i}.{key}" for i in (1, 2) for key in norm}
    assert keys == expected


def test_the_shortcut_is_option_a():
    shortcut = ZeroPadShortcut(2, 3)
    images = torch.randn(4, 6, 7, 8)
    out = shortcut(images)
    assert out.shape == (4, 11, 4, 4)
    assert torch.equal(out[:, 2:8], images[:, :, ::2, ::2])
    assert torch.equal(out[:, :2], torch.zeros(4, 2, 4, 4))
    assert torch.equal(out[:, 8:], torch.zeros(4, 3, 4, 4))
    assert not shortcut.state_dict()


def test_the_shortcut_keeps_the_dtype_of_the_images():
    assert ZeroPadShortcut(1, 1)(torch.zeros(1, 2, 2, 2).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("before", "after"), [(0, 3), (2, 0), (0, 0)])
def test_the_shortcut_works_with_no_channels_left(before, after):
    shortcut = ZeroPadShortcut(before, after)
    images = torch.randn(2, 4, 6, 6, requires_grad=True)
    out = shortcut(images)
    assert out.shape == (2, before + 4 + after, 3, 3)
    out.sum().backward()
    exported = torch.export.export(shortcut, (images.detach(),)).module()
    assert torch.equal(exported(images.detach()), out)


def test_only_blocks_that_halve_the_resolution_pad():
    model = build_model("randprune:resnet20")
    padding = [name for name, m in model.named_modules() if isinstance(m, ZeroPadShortcut)]
    assert padding == ["layer2.0.shortcut", "layer3.0.shortcut"]
    assert isinstance(BasicBlock(16, 16, 1).shortcut, nn.Identity)


def test_padded_channels_are_traced_and_cut():
    torch.manual_seed(0)
    model = build_model("randprune:digits_cnn").eval()
    images = torch.randn(2, 1, 8, 8)
    space = rp.trace(model, images)
    pads = {slot.tensor for group in space.groups for slot in group.slots if "short" in slot.tensor}
    assert pads == {f"layer{i}.0.shortcut.{side}" for i in (2, 3) for side in ("before", "after")}
    assert [frozen.layer for frozen in space.frozen] == ["linear"]
    rng = np.random.default_rng(0)
    for ratio in (0.5, 0.01):
        kept = tuple(
            np.sort(rng.permutation(width)[: max(1, round(ratio * width))])
            for width in space.widths.tolist()
        )
        selection = rp.Selection(kept, space.fingerprint)
        small = rp.cut(model, space, selection)
        rp.verify(model, small, space, selection, images)
        assert parameters(small) == space.cost("params")(selection.widths)


def test_pads_follow_the_module_to_another_dtype():
    model = CifarResNet(1).eval().to(torch.bfloat16)
    assert model(torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_mobilenet_keeps_a_resolution_of_four():
    model = build_model("randprune:mobilenet_v2").eval()
    with torch.no_grad():
        assert model.get_submodule("features")(torch.zeros(1, 3, 32, 32)).shape[2:] == (4, 4)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn", "mobilenet_v2"])
def test_initial_weights_follow_the_seed_and_the_stated_law(name):
    first, same, other = (seeded(name, seed) for seed in (0, 0, 1))
    for a, b in zip(first.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    convolution = [m for m in first.modules() if isinstance(m, nn.Conv2d)][-1]
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    fan = convolution.in_channels if name == "resnet20" else convolution.out_channels
    kernel = convolution.kernel_size[0] ** 2
    assert convolution.weight.std().item() == pytest.approx((2 / (fan * kernel)) ** 0.5, rel=0.02)


def seeded(name: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(f"randprune:{name}")


def test_digits_cnn_learns():
    """A few steps on one batch: gradients reach everything and the loss falls."""
    torch.manual_seed(0)
    model = build_model("randprune:digits_cnn")
    images, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_torchvision_models():
    model = build_model("torchvision:squeezenet1_1", num_classes=5, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
    assert parameters(build_model("torchvision:resnet18")) == 11_689_512
    assert parameters(build_model("torchvision:resnet18", in_channels=3)) == 11_689_512
    assert build_model("torchvision:shufflenet_v2_x1_0").training


def test_torchvision_networks_with_heavy_initialisation_build_silently():
    model = build_model("torchvision:googlenet", num_classes=3).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_timm_models():
    model = build_model("timm:resnet10t", num_classes=5, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)


def test_importable_callables(tmp_path, monkeypatch):
    (tmp_path / "networks_here.py").write_text(
        "from torch import nn\n"
        "def make(num_classes=2, width=4):\n"
        "    return nn.Linear(width, num_classes)\n"
        "class Holder:\n"
        "    plain = staticmethod(make)\n"
        "def wrong():\n"
        "    return 3\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    model = build_model("networks_here:make", num_classes=5, width=6)
    assert tuple(model.weight.shape) == (5, 6)
    assert isinstance(build_model("networks_here:Holder.plain"), nn.Linear)
    assert isinstance(build_model("torch.nn:Identity"), nn.Identity)
    assert sys.path == before
    with pytest.raises(InvalidInputError, match=r"must give an nn\.Module\. Got int"):
        build_model("networks_here:wrong")
    with pytest.raises(InvalidInputError, match="is a int, not a callable"):
        build_model("networks_here:number")
    with pytest.raises(InvalidInputError, match="Close: networks_here:make"):
        build_model("networks_here:mak")
    with pytest.raises(InvalidInputError, match=r"cannot be made with the options \['depth'\]"):
        build_model("networks_here:make", depth=3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("randprune:resnet57", "Close: randprune:resnet5"),
        ("torchvision:resnet5", "Close: torchvision:resnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "Unknown model"),
        ("timm:resnet_50", "Close: timm:"),
        ("resnet56", "Did you mean 'randprune:resnet56'"),
        ("randprune:", "is named randprune:NAME"),
        (":resnet20", "is named randprune:NAME"),
        ("no_such_package.models:make", "cannot be imported: No module named 'no_such_package'"),
    ],
)
def test_unknown_models(spec, message):
    with pytest.raises(InvalidInputError, match=message):
        build_model(spec)


def test_nothing_is_downloaded():
    for spec, option in (("timm:resnet18", "pretrained"), ("torchvision:resnet18", "weights")):
        with pytest.raises(InvalidInputError, match="never downloads"):
            build_model(spec, **{option: True})


def test_constructor_arguments_that_do_not_fit():
    with pytest.raises(InvalidInputError, match=r"options \['depth'\]"):
        build_model("randprune:resnet20", depth=3)


def test_lists_of_models():
    assert "resnet56" in list_models("randprune")
    assert "resnet50" in list_models("torchvision")
    assert "resnet50" in list_models("timm")
    with pytest.raises(InvalidInputError, match="must be randprune, torchvision or timm"):
        list_models("hub")


def test_torchvision_imports_in_a_fresh_process_with_warnings_as_errors():
    code = (
        "from randprune.zoo.vision import timm, torchvision\n"
        "assert torchvision() is torchvision() and timm().__name__ == 'timm'\n"
        "import torch\n"
        "assert hasattr(torch.ops.torchvision, 'nms') and hasattr(torch.ops.torchvision, 'qnms')\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_file_is_answered_with_its_module() -> None:
    with pytest.raises(InvalidInputError, match=r"name the module instead: mynet:Net$"):
        build_model("mynet.py:Net")
    with pytest.raises(InvalidInputError, match=r"name the module instead: nets\.mynet:Net$"):
        build_model("nets/mynet.py:Net")


def test_a_module_of_ones_own_may_import_torchvision(tmp_path: Path) -> None:
    """In a process that has not imported it."""
    (tmp_path / "mine.py").write_text("from torchvision.models import resnet18\n")
    code = (
        "from randprune.zoo.models import build_model\n"
        "print(type(build_model('mine:resnet18', num_classes=2)).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "ResNet", done.stderr
