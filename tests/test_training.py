"""The training loop: exact resumption, untouched surroundings, and the parts it is made of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randprune.errors import ArtifactError, DataError, InvalidInputError, WeightsError
from randprune.evaluate import Evaluator
from randprune.testing import Normed, in_place, seeded
from randprune.training import (
    Checkpoint,
    StepOutput,
    SupervisedStep,
    Teacher,
    TrainProgress,
    TrainRecipe,
    TrainResult,
    train,
)
from randprune.training.fast_norm import install, pixels_a_row, remove
from randprune.training.optimize import WeightAverage, make_optimizer
from randprune.training.state import weights_digest
from randprune.zoo.models import OWN_MODELS, build_model
from randprune.zoo.splits import TensorSplit

FAST = TrainRecipe(epochs=2, batch_size=16, lr=0.05)


class TinyNet(nn.Module):
    """Two convolutions with batch norm, dropout, and a frozen input scale."""

    def __init__(self, channels: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 12, 3, 2, 1)
        self.bn2 = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.linear(self.drop(x.mean((2, 3))))


def tiny_net(seed: int = 0, channels: int = 7) -> TinyNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyNet(channels)


def tiny_split(count: int = 70, seed: int = 0) -> TensorSplit:
    """Four classes that differ in brightness, with noise: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    noise = torch.randint(0, 90, (count, 3, 8, 8), generator=generator)
    images = (noise + 50 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    return TensorSplit(images, labels, (0.5,) * 3, (0.25,) * 3, num_classes=4, pad=1)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


class Interrupt:
    """A progress callback that stops the run at a given epoch and step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def __call__(self, progress: TrainProgress) -> None:
        if (progress.epoch, progress.step) == self.at:
            raise KeyboardInterrupt


@pytest.fixture
def every_step_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("randprune.training.loop._PROGRESS_SECONDS", 0.0)


# -- it trains ---------------------------------------------------------------------------------


def test_training_learns_and_keeps_books() -> None:
    split = tiny_split(160)
    result = train(tiny_net(), split, FAST.replace(epochs=6), evaluator=Evaluator(split))
    assert [r["epoch"] for r in result.history] == [1, 2, 3, 4, 5, 6]
    assert result.history[-1]["loss"] < 0.6 * result.history[0]["loss"]
    assert result.history[-1]["accuracy"] > 0.9
    assert result.history[-1]["train_accuracy"] > result.history[0]["train_accuracy"]
    assert all(r["images"] == 160 for r in result.history)
    assert result.images_forward == result.images_backward == 6 * 160
    assert result.images_teacher == 0
    assert result.epochs_resumed == 0
    assert result.seconds >= sum(r["seconds"] for r in result.history)
    json.dumps(result.history)
    measured = Evaluator(split).accuracy(result.model)
    assert measured.top1 == result.history[-1]["accuracy"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_call_same_weights(precision: str) -> None:
    recipe = FAST.replace(precision=precision)
    first, again = (train(tiny_net(), tiny_split(), recipe) for _ in range(2))
    assert_same_weights(first.model, again.model)
    assert first.precision == precision
    other = train(tiny_net(), tiny_split(), recipe.replace(seed=1))
    assert not torch.equal(other.model.conv1.weight, first.model.conv1.weight)


def test_an_incomplete_batch_is_left_out_and_a_small_split_is_one_batch() -> None:
    result = train(tiny_net(), tiny_split(70), FAST.replace(epochs=1))
    assert result.history[0]["images"] == 64
    result = train(tiny_net(), tiny_split(10), FAST.replace(epochs=1))
    assert result.history[0]["images"] == 10


def test_zero_epochs_give_an_equal_network() -> None:
    model = tiny_net()
    result = train(model, tiny_split(), FAST.replace(epochs=0))
    assert result.model is not model
    assert_same_weights(result.model, model)
    assert result.history == []


def test_surroundings_stay_as_they_were() -> None:
    model = tiny_net()
    model.train()
    model.bn1.eval()
    model.conv2.weight.requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    flags = {name: m.training for name, m in model.named_modules()}
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    result = train(model, tiny_split(), FAST, teacher=tiny_net(9))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert {name: m.training for name, m in model.named_modules()} == flags
    assert {name: m.training for name, m in result.model.named_modules()} == flags
    assert all(p.grad is None for p in [*model.parameters(), *result.model.parameters()])
    # Frozen parameters stay, the others move; classes and memory order are those of the caller.
    assert torch.equal(result.model.conv2.weight, before["conv2.weight"])
    assert not result.model.conv2.weight.requires_grad
    assert not torch.equal(result.model.conv1.weight, before["conv1.weight"])
    assert type(result.model.bn1) is type(model.bn1) is nn.BatchNorm2d
    assert all(p.is_contiguous() for p in result.model.parameters())


# -- interruption ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "every", "resumed"), [((2, 2), None, 1), ((2, 3), 2, 1), ((1, 1), None, 0)]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.usefixtures("every_step_reports")
def test_an_interrupted_run_continues_to_the_last_bit(
    tmp_path: Path, stop: tuple[int, int], every: int | None, resumed: int, optimizer: str
) -> None:
    recipe = FAST.replace(epochs=3, optimizer=optimizer, ema_decay=0.9, distill_weight=0.5)
    teacher = tiny_net(9)

    def run(folder: Path, stops: tuple[int, int] = (0, 0)) -> TrainResult:
        return train(
            tiny_net(), tiny_split(), recipe, teacher=teacher,
            checkpoint=Checkpoint(folder, every), progress=Interrupt(*stops),
        )  # fmt: skip

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    assert not list(tmp_path.rglob("*.part"))
    parts = run(tmp_path / "parts")
    assert parts.epochs_resumed == resumed
    assert_same_weights(parts.model, whole.model)
    timeless = [{k: v for k, v in r.items() if k != "seconds"} for r in parts.history]
    assert timeless == [{k: v for k, v in r.items() if k != "seconds"} for r in whole.history]
    assert parts.images_forward == whole.images_forward == 3 * 64


def test_a_complete_run_returns_at_once(tmp_path: Path) -> None:
    first = train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path)
    calls: list[TrainProgress] = []
    again = train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path, progress=calls.append)
    assert calls == []
    assert again.epochs_resumed == 2
    assert_same_weights(again.model, first.model)
    assert again.history == first.history


_KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[2])
import test_training as t
torch.set_num_threads(1)
t.train(
    t.tiny_net(), t.tiny_split(), t.FAST.replace(epochs=4, ema_decay=0.9),
    checkpoint=t.Checkpoint(sys.argv[1], 1),
    progress=lambda p: print(p.epoch, p.step, flush=True),
)
"""


def test_kill_minus_nine_continues_to_the_last_bit(tmp_path: Path) -> None:
    recipe = FAST.replace(epochs=4, ema_decay=0.9)
    whole = train(tiny_net(), tiny_split(), recipe)
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path / "run"), here], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"2 "):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    continued = train(tiny_net(), tiny_split(), recipe, checkpoint=Checkpoint(tmp_path / "run", 1))
    assert continued.epochs_resumed >= 1
    assert_same_weights(continued.model, whole.model)


# -- checkpoints -------------------------------------------------------------------------------


def _damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, harm: str) -> None:
    whole = train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path)
    file = tmp_path / "training.safetensors"
    if harm == "flip":
        _damage(file)
    elif harm == "truncate":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        file.unlink()
    again = train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path)
    assert again.epochs_resumed == 1
    assert_same_weights(again.model, whole.model)


def test_no_intact_checkpoint_is_an_error(tmp_path: Path) -> None:
    train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path)
    for name in ("training.safetensors", "training.previous.safetensors"):
        _damage(tmp_path / name)
    with pytest.raises(ArtifactError, match=r"checksum.*No intact training state is left"):
        train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    train(tiny_net(), tiny_split(), FAST, checkpoint=file)
    assert file.exists()
    with pytest.raises(InvalidInputError, match=r"recipe\.lr 0\.05 there, 0\.1 here"):
        train(tiny_net(), tiny_split(), FAST.replace(lr=0.1), checkpoint=file)
    with pytest.raises(InvalidInputError, match="weights"):
        train(tiny_net(1), tiny_split(), FAST, checkpoint=file)
    with pytest.raises(InvalidInputError, match="data"):
        train(tiny_net(), tiny_split(seed=1), FAST, checkpoint=file)


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path)
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert json.loads(header["__metadata__"]["randprune.training"])["epoch"] in (1, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "training.previous.safetensors",
        "training.safetensors",
    ]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="cannot be written"):
        train(tiny_net(), tiny_split(), FAST, checkpoint=tmp_path / "run")


# -- what can go wrong -------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_says_where() -> None:
    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        calls.append(1)
        loss = model(batch[0]).square().mean()
        return loss * float("nan") if len(calls) == 7 else loss

    calls: list[int] = []
    with pytest.raises(DataError, match=r"nan in epoch 2 at step 3 of 4, .*Lower lr"):
        train(tiny_net(), tiny_split(), FAST, step=step)


def test_weights_that_are_not_finite_are_named() -> None:
    model = tiny_net()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"conv2\.weight of TinyNet holds NaN"):
        train(model, tiny_split(), FAST)


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="nothing to train"):
        train(tiny_net().requires_grad_(False), tiny_split(), FAST)


def test_distillation_needs_a_teacher() -> None:
    with pytest.raises(InvalidInputError, match="needs a teacher"):
        train(tiny_net(), tiny_split(), FAST.replace(distill_weight=0.5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "'lr' parameter of TrainRecipe must be greater than 0. Got 0.0 instead"),
        ({"epochs": -1}, "'epochs' parameter"),
        ({"optimizer": "lion"}, "must be 'sgd' or 'adamw'. Got 'lion' instead"),
        ({"learning_rate": 0.1}, "no field 'learning_rate'; it has epochs, batch_size"),
        ({"momentum": 0.0}, "nesterov needs momentum above 0"),
        ({"epochs": 2, "warmup_epochs": 3}, r"warmup_epochs \(3\) must not exceed epochs \(2\)"),
        ({"lr": float("nan")}, "'lr' parameter"),
        ({"batch_size": "many"}, "'batch_size' parameter"),
    ],
)
def test_recipes_are_validated(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TrainRecipe(**fields)
    assert TrainRecipe(**TrainRecipe().model_dump()) == TrainRecipe()


# -- the parts ---------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    recipe = TrainRecipe(epochs=4, lr=0.8, warmup_epochs=1)
    rates = [recipe.learning_rate(step, 10) for step in range(40)]
    assert rates[0] == pytest.approx(0.8 / 11)
    assert rates[10] == 0.8 == max(rates)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[25] == pytest.approx(0.4)
    assert 0 < rates[-1] < 0.01
    assert TrainRecipe(schedule="constant", lr=0.1).learning_rate(999, 10) == 0.1


def test_one_step_is_sgd_on_the_mixed_loss() -> None:
    """The loop's first step, recomputed by hand in float32."""
    model, teacher, split = tiny_net(), tiny_net(9), tiny_split(32)
    model.drop.p = 0.0
    recipe = TrainRecipe(
        epochs=1, batch_size=32, lr=0.1, weight_decay=0.01, schedule="constant", augment=False,
        label_smoothing=0.1, distill_weight=0.3, distill_temperature=2.0, precision="float32",
    )  # fmt: skip
    result = train(model, split, recipe, teacher=teacher)
    ((images, labels),) = split.batches(32)
    logits = tiny_logits = model.train()(images)
    with torch.no_grad():
        theirs = teacher.eval()(images)
    hard = F.cross_entropy(tiny_logits, labels, label_smoothing=0.1)
    soft = F.softmax(theirs / 2, 1) * (F.log_softmax(theirs / 2, 1) - F.log_softmax(logits / 2, 1))
    loss = 0.7 * hard + 0.3 * 4 * soft.sum(1).mean()
    loss.backward()
    assert result.history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    trained = dict(result.model.named_parameters())
    for name, p in model.named_parameters():
        assert p.grad is not None
        decay = 0.01 if p.ndim > 1 else 0.0
        # Nesterov's first step: gradient + momentum * gradient.
        wanted = p - 0.1 * 1.9 * (p.grad + decay * p)
        torch.testing.assert_close(trained[name], wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result.model.bn1.running_var, model.bn1.running_var)


def test_norms_and_biases_are_decayed_only_when_asked() -> None:
    model = tiny_net()
    first, second = make_optimizer(model, TrainRecipe()).param_groups
    assert {p.ndim for p in first["params"]} == {2, 4}
    assert {p.ndim for p in second["params"]} == {1}
    assert (first["weight_decay"], second["weight_decay"]) == (5e-4, 0.0)
    (only,) = make_optimizer(model, TrainRecipe(decay_norm_and_bias=True)).param_groups
    assert len(only["params"]) == len(list(model.parameters()))


def test_the_average_is_what_its_formula_says() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, decay=0.9)
    mean = layer.weight.item()
    for step in range(1, 30):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * step
    assert average.mean["weight"].item() == pytest.approx(mean, rel=1e-5)
    target = nn.Linear(1, 1, bias=False)
    average.write_to(target)
    assert target.weight.item() == pytest.approx(mean, rel=1e-5)


def test_a_step_can_be_replaced_and_draws_from_its_generator() -> None:
    drawn: list[float] = []

    def step(model: nn.Module, batch: Any, generator: torch.Generator) -> StepOutput:
        images, labels = batch
        drawn.append(torch.rand((), generator=generator).item())
        return StepOutput(F.cross_entropy(model(images).float(), labels))

    result = train(tiny_net(), tiny_split(), FAST, step=step)
    assert len(drawn) == len(set(drawn)) == 8
    assert result.history[0]["train_accuracy"] is None
    once = list(drawn)
    train(tiny_net(), tiny_split(), FAST, step=step)
    assert drawn == once * 2
    with pytest.raises(InvalidInputError, match="belongs to the default step"):
        train(tiny_net(), tiny_split(), FAST, step=step, teacher=tiny_net())


def test_a_shared_teacher_computes_each_batch_once() -> None:
    recipe = FAST.replace(distill_weight=0.5)
    teacher = Teacher(tiny_net(9))
    first = train(tiny_net(), tiny_split(), recipe, teacher=teacher)
    second = train(tiny_net(1), tiny_split(), recipe, teacher=teacher)
    assert (first.images_teacher, second.images_teacher) == (128, 0)
    alone = train(tiny_net(1), tiny_split(), recipe, teacher=tiny_net(9))
    assert_same_weights(second.model, alone.model)
    # Other images are other batches; a teacher without memory computes every time.
    third = train(tiny_net(), tiny_split(), recipe.replace(seed=3), teacher=teacher)
    assert third.images_teacher == 128
    forgetful = Teacher(tiny_net(9), remember_bytes=0)
    for _ in range(2):
        again = train(tiny_net(1), tiny_split(), recipe, teacher=forgetful)
        assert again.images_teacher == 128
    assert_same_weights(again.model, alone.model)


def test_the_teacher_is_the_network_itself() -> None:
    network = tiny_net(9)
    teacher = Teacher(network, precision="float32")
    images, _ = next(tiny_split().batches(16))
    with torch.no_grad():
        wanted = network.eval()(images)
    torch.testing.assert_close(teacher.logits(images), wanted, rtol=1e-4, atol=1e-5)
    assert SupervisedStep(teacher=teacher).teacher is teacher


@pytest.mark.usefixtures("every_step_reports")
def test_progress_tells_how_long_it_will_take() -> None:
    seen: list[TrainProgress] = []
    train(tiny_net(), tiny_split(), FAST, progress=seen.append)
    assert [(p.epoch, p.step) for p in seen] == [(e, s) for e in (1, 2) for s in (1, 2, 3, 4)]
    assert all(p.steps == 4 and p.epochs == 2 and p.images_per_second > 0 for p in seen)
    assert seen[-1].remaining_seconds == 0
    assert seen[0].remaining_seconds == pytest.approx(7 * seen[0].seconds)


# -- batch norm over rows of pixels ------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 11, 53])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fast_batch_norm_is_batch_norm(channels: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, channels, 8, 8, generator=generator) * 3 + 5
    images = images.to(dtype).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(images.shape, generator=generator).to(dtype)
    plain = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(channels, generator=generator))
        plain.bias.copy_(torch.randn(channels, generator=generator))
    fast = nn.BatchNorm2d(channels, momentum=0.3)
    fast.load_state_dict(plain.state_dict())
    install(fast)
    assert pixels_a_row(fast, images) >= 2

    def run(norm: nn.BatchNorm2d, x: Tensor) -> tuple[Tensor, ...]:
        x = x.detach().clone().requires_grad_()
        y = norm(x)
        y.backward(gradient.to(x.dtype))
        assert x.grad is not None
        assert norm.weight.grad is not None
        assert norm.bias.grad is not None
        return y.detach(), x.grad, norm.weight.grad, norm.bias.grad

    got = run(fast, images)
    assert got[0].dtype == dtype
    assert got[0].is_contiguous(memory_format=torch.channels_last)
    wanted = run(plain.double(), images.double())
    tolerance = 2e-5 if dtype == torch.float32 else 1e-2
    for ours, theirs in zip(got, wanted, strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error < tolerance
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(
            getattr(fast, name).double(), getattr(plain, name).double(), rtol=1e-5, atol=1e-6
        )
    assert "forward" not in vars(remove(fast))


@pytest.mark.parametrize("shape", [(2, 11, 2, 2), (2, 11, 1, 1), (4, 3, 1, 1), (3, 5, 2, 1)])
def test_fast_batch_norm_of_a_handful_of_pixels(shape: tuple[int, ...]) -> None:
    """All pixels in one row would leave nothing to take a variance over."""
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    fast, plain = install(nn.BatchNorm2d(shape[1])), nn.BatchNorm2d(shape[1])
    torch.testing.assert_close(fast(images), plain(images))
    torch.testing.assert_close(fast.running_var, plain.running_var)


def test_fast_batch_norm_leaves_other_cases_to_torch() -> None:
    norm = nn.BatchNorm2d(6)
    images = torch.randn(4, 6, 4, 4)
    assert pixels_a_row(norm, images) == 1  # channels first
    last = images.contiguous(memory_format=torch.channels_last)
    assert pixels_a_row(norm, last) > 1
    assert pixels_a_row(norm, last.half()) == 1
    assert pixels_a_row(norm.eval(), last) == 1
    wide = torch.randn(4, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    assert pixels_a_row(nn.BatchNorm2d(16), wide) == 1
    for other in (nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6, momentum=None)):
        assert "forward" not in vars(install(other))


class InPlaceNet(nn.Module):
    """What published networks do to the output of a batch norm: activate it and add to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.conv2, self.bn2 = nn.Conv2d(7, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.linear = nn.Linear(7, 4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(x))
        out += x
        return self.linear(self.relu(out).mean((2, 3)))


class SameNet(InPlaceNet):
    """The same without an in-place operator."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(F.relu(self.bn2(self.conv2(x)) + x).mean((2, 3)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_place_operators_after_a_fast_batch_norm(precision: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        overwriting, plain = InPlaceNet(), SameNet()
    plain.load_state_dict(overwriting.state_dict())
    recipe = FAST.replace(precision=precision)
    first, second = (train(net, tiny_split(), recipe) for net in (overwriting, plain))
    assert_same_weights(first.model, second.model)


@pytest.mark.parametrize("name", ["tests:tiny", "tests:normed", *OWN_MODELS])
def test_our_networks_train_with_in_place_activations(name: str, every_norm_is_fast: None) -> None:
    made = {"tests:tiny": tiny_net, "tests:normed": lambda: seeded(Normed)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = made[name]() if name in made else build_model(f"randprune:{name}", num_classes=5)
    channels = next(model.parameters()).shape[1]
    size = 8 if name in (*made, "digits_cnn") else 32
    pixels = torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8)
    split = TensorSplit(
        pixels, torch.arange(4), (0.5,) * channels, (0.25,) * channels, num_classes=5
    )
    recipe = TrainRecipe(epochs=1, batch_size=4, lr=0.01)
    wanted = train(model, split, recipe)
    got = train(in_place(model), split, recipe)
    assert_same_weights(got.model, wanted.model)


# -- several processes -------------------------------------------------------------------------


_RANK = """
import sys, torch
sys.path.insert(0, sys.argv[2])
import test_training as t
torch.set_num_threads(1)
if __name__ == "__main__":
    result = t.train(t.plain_net(), t.tiny_split(64), t.SHARED, checkpoint=sys.argv[1])
    print(t.weights_digest(result.model), flush=True)
    torch.distributed.destroy_process_group()
"""

SHARED = TrainRecipe(epochs=2, batch_size=16, lr=0.05, precision="float32", augment=False)


def plain_net() -> nn.Module:
    """No batch norm and no dropout: two half batches add up to one whole batch exactly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 9, 4))


def _environment(rank: int, port: int) -> Iterator[tuple[str, str]]:
    yield from os.environ.items()
    yield from {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }.items()  # fmt: skip


def test_two_processes_train_the_same_network(tmp_path: Path, free_port: int) -> None:
    alone = train(plain_net(), tiny_split(64), SHARED)
    here = str(Path(__file__).parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(tmp_path), here],
            env=dict(_environment(rank, free_port)), stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    # One process reads what two wrote: the saved run is complete, and close to the whole batches.
    both = train(plain_net(), tiny_split(64), SHARED, checkpoint=tmp_path)
    assert both.epochs_resumed == 2
    assert outputs == [[weights_digest(both.model)]] * 2
    for ours, theirs in zip(both.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_splits_may_come_in_either_memory_order() -> None:
    recipe = FAST.replace(epochs=1)
    first = train(tiny_net(), tiny_split(), recipe)
    second = train(tiny_net(), replace(tiny_split(), channels_last=True), recipe)
    assert_same_weights(first.model, second.model)
