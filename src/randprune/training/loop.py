"""The loop: batches, steps, books, checkpoints. What a step computes is in `steps`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError, WeightsError
from randprune.evaluate.allocator import keep_freed_memory
from randprune.evaluate.evaluator import Evaluator
from randprune.evaluate.inference import in_memory_order
from randprune.graph.program import in_mode, private_copy
from randprune.graph.trees import map_tensors, part_of
from randprune.tasks.targets import target_of
from randprune.training import fast_norm
from randprune.training.optimize import (
    WeightAverage,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from randprune.training.placement import (
    derived_seed,
    make_accelerator,
    placed,
    private_randomness,
)
from randprune.training.precision import resolve_precision
from randprune.training.recipe import TrainRecipe
from randprune.training.results import TrainProgress, TrainResult
from randprune.training.state import (
    Checkpoint,
    TrainState,
    load_state,
    save_state,
    weights_digest,
)
from randprune.training.steps import AttachedStep, StepOutput, SupervisedStep, TrainStep
from randprune.training.task_step import TaskStep
from randprune.training.teacher import Teacher, as_teacher
from randprune.zoo.splits import Samples

# Reading a loss waits for a GPU; a CPU has it at hand.
_LOOK_EVERY = {"cpu": 1, "cuda": 50}
_PROGRESS_SECONDS = 0.1


def train(
    model: nn.Module,
    split: Samples,
    recipe: TrainRecipe | None = None,
    *,
    teacher: nn.Module | Teacher | None = None,
    step: TrainStep | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    progress: Callable[[TrainProgress], None] | None = None,
    evaluator: Evaluator | None = None,
    device: torch.device | str | None = None,
) -> TrainResult:
    """Train a copy of `model` on `split`; the caller's network and global random state stay.

    The last epoch's weights are returned (or their running average), never the best epoch's.
    Interrupted (Ctrl-C, `kill -9`, power), the same call with the same checkpoint goes on from the
    last saved step; on a CPU with as many threads the result is the same to the last bit. A run
    that is complete returns at once.

    Under `accelerate launch` or `torchrun`, every process calls this with the same arguments and
    takes its share of each batch.

    Args:
        model: what to start from. Parameters without requires_grad stay as they are.
        split: training images.
        recipe: how to train; default `TrainRecipe()`.
        teacher: the dense network, where the recipe distils; a `Teacher` can be shared by runs.
        step: what a step computes, instead of cross-entropy and distillation.
        checkpoint: a folder or .safetensors file to save to and to go on from.
        progress: called at most ten times a second, and at the end of each epoch.
        evaluator: measures each epoch's network, for the history; it chooses nothing.
        device: default: the GPU if there is one.

    Raises:
        InvalidInputError: arguments that do not fit together, or a checkpoint of another run.
        DataError: the loss became NaN or infinite; says at which epoch and step.
        WeightsError: the network starts with weights that are not finite.
        ArtifactError: no intact state is left at the checkpoint.
        StorageError: the checkpoint cannot be written.
    """
    recipe = recipe or TrainRecipe()
    if len(split) == 0:
        raise DataError("The split holds no images, so there is nothing to train on.")
    _check_finite(model)
    if step is None:
        tutor = as_teacher(teacher, recipe)
        step = SupervisedStep(
            recipe.label_smoothing, tutor, recipe.distill_weight, recipe.distill_temperature
        )
    elif teacher is not None:
        raise InvalidInputError(
            "The 'teacher' parameter of train belongs to the default step. Got a 'step' too; "
            "give the teacher to that step."
        )
    saves = checkpoint if isinstance(checkpoint, Checkpoint) or checkpoint is None else (
        Checkpoint(checkpoint)
    )  # fmt: skip
    run = _Run(model, split, recipe, step, saves, device)
    with private_randomness(run.device):
        run.resume()
        resumed = run.epoch
        while run.epoch < recipe.epochs:
            run.run_epoch(progress, evaluator)
    return run.result(resumed)


class _Run:
    """One training run: its network, optimizer and books. `epoch` and `step` say how far it is."""

    def __init__(
        self,
        model: nn.Module,
        split: Samples,
        recipe: TrainRecipe,
        step: TrainStep,
        checkpoint: Checkpoint | None,
        device: torch.device | str | None,
    ) -> None:
        keep_freed_memory()
        self.model, self.recipe, self.compute, self.checkpoint = model, recipe, step, checkpoint
        self.teacher = step.teacher if isinstance(step, SupervisedStep | TaskStep) else None
        self.accelerator = make_accelerator(device, isinstance(step, SupervisedStep | TaskStep))
        self.device: torch.device = self.accelerator.device
        self.precision = resolve_precision(recipe.precision, self.device)
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.split = placed(split, self.device, recipe.channels_last)
        self.batch_size = min(recipe.batch_size, len(split))
        self.steps = len(split) // self.batch_size
        processes = self.accelerator.num_processes
        if self.batch_size < processes:
            raise InvalidInputError(
                f"A batch of {self.batch_size} images cannot be shared by {processes} processes."
            )
        self.network = self._working_copy()
        # Prepared by accelerate: on one device the same module, else wrapped for its processes.
        optimizer = make_optimizer(self.network, recipe)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        if isinstance(step, AttachedStep):
            step.attach(self.network, optimizer)
        self.average = WeightAverage(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.identity = self._identity(split) if checkpoint else {}
        self.epoch, self.step = 0, 0
        self.history: list[dict[str, Any]] = []
        self.seconds = self.epoch_seconds = 0.0
        self.images = self.teacher_images = self.shown = 0
        self.losses = torch.zeros(self.steps, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._started = time.perf_counter()
        self._teacher_before = self.teacher.images_forward if self.teacher else 0
        self._images_here, self._shown_at = 0, 0.0

    def _working_copy(self) -> nn.Module:
        network: nn.Module = private_copy(self.model).to(self.device, torch.float32)
        in_memory_order(network, self.layout)
        if self.device.type == "cpu" and self.recipe.channels_last:
            fast_norm.install(network)
        return in_mode(network, training=True)

    def _identity(self, split: Samples) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump(),
            "weights": weights_digest(self.model),
            "data": split.fingerprint,
            "teacher": self.teacher.digest if self.teacher else None,
            "step": self.compute.identity
            if isinstance(self.compute, AttachedStep)
            else type(self.compute).__qualname__,
        }

    # -- one epoch -----------------------------------------------------------------------------

    def run_epoch(
        self,
        progress: Callable[[TrainProgress], None] | None,
        evaluator: Evaluator | None,
    ) -> None:
        """From the current step to the end of the epoch, with books and checkpoints."""
        started = time.perf_counter()
        before = self.epoch_seconds
        every = self.checkpoint.every_steps if self.checkpoint else None
        look_every = _LOOK_EVERY.get(self.device.type, _LOOK_EVERY["cuda"])
        for batch in self._batches():
            self._one_step(batch)
            self.epoch_seconds = before + time.perf_counter() - started
            last = self.step == self.steps
            if last or self.step % look_every == 0:
                self._check_losses(look_every)
            if progress is not None:
                self._report(progress, last)
            if every and not last and self.step % every == 0:
                self._save()
        self._close_epoch(evaluator)

    def _batches(self) -> Iterator[Any]:
        """The batches of the current epoch from the current step on, in this process's share."""
        order = torch.Generator().manual_seed(derived_seed(self.recipe.seed, self.epoch))
        batches = self.split.batches(
            self.batch_size, shuffle=order, augment=self.recipe.augment, drop_last=True
        )
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        for index, batch in enumerate(batches):
            if index < self.step:
                continue
            if processes > 1:
                batch = part_of(batch, slice(rank, None, processes))
            yield map_tensors(self._placed, batch)

    def _placed(self, value: Tensor) -> Tensor:
        """On the device, images in the memory order of the run."""
        value = value.to(self.device, non_blocking=True)
        image = value.ndim == 4 and value.is_floating_point()
        return value.contiguous(memory_format=self.layout) if image else value

    def _one_step(self, batch: Any) -> None:
        seed = derived_seed(self.recipe.seed, self.epoch, self.step)
        torch.manual_seed(seed)  # dropout; the caller's state is put back after the run
        rate = self.recipe.learning_rate(self.epoch * self.steps + self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            generator = torch.Generator().manual_seed(seed)
            out = self.compute(self.wrapped, batch, generator)
        out = out if isinstance(out, StepOutput) else StepOutput(out)
        self.accelerator.backward(out.loss)
        if self.recipe.grad_clip is not None:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        self.losses[self.step] = out.loss.detach()
        if out.logits is not None:
            labels = target_of(batch)
            self.correct += (out.logits.detach().argmax(dim=1) == labels).sum()
            self.shown += len(labels)
        self.step += 1
        self.images += self.batch_size
        self._images_here += self.batch_size
        if self.average is not None:
            self.average.update(self.epoch * self.steps + self.step)

    def _check_losses(self, count: int) -> None:
        recent = self.losses[max(0, self.step - count) : self.step]
        bad = ~torch.isfinite(recent)
        if bool(bad.any()):
            first = max(0, self.step - count) + int(bad.nonzero()[0])
            rate = self.recipe.learning_rate(self.epoch * self.steps + first, self.steps)
            raise DataError(
                f"The loss became {float(self.losses[first])} in epoch {self.epoch + 1} at step "
                f"{first + 1} of {self.steps}, learning rate {rate:.3g}. Lower lr "
                f"(now {self.recipe.lr:g}), add warmup_epochs or grad_clip; precision='float32' "
                "rules out overflow."
            )

    def _close_epoch(self, evaluator: Evaluator | None) -> None:
        losses, correct, shown = self.losses.mean(), self.correct, self.shown
        if self.accelerator.num_processes > 1:
            losses = self.accelerator.reduce(losses, "mean")
            correct = self.accelerator.reduce(correct, "sum")
            shown *= self.accelerator.num_processes
        last_step = (self.epoch + 1) * self.steps - 1
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": float(losses),
            "train_accuracy": int(correct) / shown if shown else None,
            "lr": self.recipe.learning_rate(last_step, self.steps),
            "seconds": self.epoch_seconds,
            "images": self.steps * self.batch_size,
        }
        if evaluator is not None:
            measured = evaluator.accuracy(self.finished_network())
            record.update(accuracy=measured.top1, eval_loss=measured.loss)
        self.history.append(record)
        self.epoch, self.step = self.epoch + 1, 0
        self.epoch_seconds, self.shown = 0.0, 0
        self.losses.zero_()
        self.correct.zero_()
        self._save()

    def _report(self, progress: Callable[[TrainProgress], None], last: bool) -> None:
        now = time.perf_counter()
        if not last and now - self._shown_at < _PROGRESS_SECONDS:
            return
        self._shown_at = now
        spent = now - self._started
        speed = self._images_here / spent
        done = self.epoch * self.steps + self.step
        left = (self.recipe.epochs * self.steps - done) * self.batch_size
        progress(
            TrainProgress(
                epoch=self.epoch + 1,
                epochs=self.recipe.epochs,
                step=self.step,
                steps=self.steps,
                loss=float(self.losses[: self.step].mean()),
                images_per_second=speed,
                seconds=spent,
                remaining_seconds=left / speed,
            )
        )

    # -- state ---------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoint is None or not self.accelerator.is_main_process:
            return
        tensors = {f"network.{name}": t for name, t in _all_tensors(self.network).items()}
        tensors.update(optimizer_tensors(self.optimizer))
        tensors.update(self.average.tensors() if self.average else {})
        tensors.update({"books.losses": self.losses, "books.correct": self.correct})
        books = {
            "history": self.history,
            "seconds": self._total_seconds(),
            "epoch_seconds": self.epoch_seconds,
            "images": self.images,
            "teacher_images": self._total_teacher_images(),
            "shown": self.shown,
            "precision": self.precision,
        }
        save_state(
            self.checkpoint, TrainState(self.identity, self.epoch, self.step, tensors, books)
        )

    def resume(self) -> None:
        """Take over the state of the checkpoint, if there is one."""
        state = load_state(self.checkpoint, self.identity) if self.checkpoint else None
        if state is None:
            return
        with torch.no_grad():
            for name, tensor in _all_tensors(self.network).items():
                tensor.copy_(state.tensors[f"network.{name}"])
        restore_optimizer(self.optimizer, state.tensors)
        if self.average is not None:
            self.average.restore(state.tensors)
        self.losses.copy_(state.tensors["books.losses"])
        self.correct.copy_(state.tensors["books.correct"])
        books = state.books
        self.epoch, self.step = state.epoch, state.step
        self.history = [dict(record) for record in books["history"]]
        self.seconds, self.epoch_seconds = books["seconds"], books["epoch_seconds"]
        self.images, self.shown = books["images"], books["shown"]
        self.teacher_images, self.precision = books["teacher_images"], books["precision"]

    def _total_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self._started

    def _total_teacher_images(self) -> int:
        here = self.teacher.images_forward - self._teacher_before if self.teacher else 0
        return self.teacher_images + here

    def finished_network(self) -> nn.Module:
        """The network as it is now (or its average), as the caller would have it."""
        network = fast_norm.remove(private_copy(self.network))
        if self.average is not None:
            self.average.write_to(network)
        place = next((p.device for p in self.model.parameters()), self.device)
        network = in_memory_order(network.to(place), torch.contiguous_format)
        flags = {name: module.training for name, module in self.model.named_modules()}
        for name, module in network.named_modules():
            module.training = flags[name]
        return network

    def result(self, resumed: int) -> TrainResult:
        """What `train` returns."""
        return TrainResult(
            model=self.finished_network(),
            history=self.history,
            seconds=self._total_seconds(),
            images_forward=self.images,
            images_backward=self.images,
            images_teacher=self._total_teacher_images(),
            precision=self.precision,
            device=str(self.device),
            epochs_resumed=resumed,
        )


def _all_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that are not in the state dict."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _check_finite(model: nn.Module) -> None:
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{name} of {type(model).__name__} holds NaN or infinite values. Load intact "
                "weights before training."
            )
