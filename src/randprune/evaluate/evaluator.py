"""Accuracy of one candidate after the other on data that was prepared once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError
from randprune.evaluate.allocator import keep_freed_memory
from randprune.evaluate.choose import choose_engine
from randprune.evaluate.engine import Choice, Engine, Precision, pick_device, synchronize
from randprune.evaluate.inference import inference_copy, logits_of
from randprune.zoo.splits import Batch, Split

# On a GPU every look at the running count stops the queue of kernels, so look less often.
_LOOK_EVERY = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well one network does on a split.

    Attributes:
        top1: share of the `n` images seen whose highest logit is that of their label.
        loss: mean cross-entropy of the images seen, in nats.
        correct: how many of them were right.
        n: images seen; fewer than `total` where the network could no longer reach the floor.
        total: images in the split.
        seconds: wall time, with the preparation of the network.
        dtype: what it was computed in.
    """

    top1: float
    loss: float
    correct: int
    n: int
    total: int
    seconds: float
    dtype: str

    @property
    def complete(self) -> bool:
        """Whether all images were seen."""
        return self.n == self.total

    @property
    def ceiling(self) -> float:
        """The highest top-1 on the whole split that the images seen still allow."""
        return (self.correct + self.total - self.n) / self.total


@dataclass(slots=True, eq=False)
class _Prepared:
    """The split's images in the engine's dtype and order, cut into batches."""

    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """Evaluates networks on one split: data prepared once, folded networks, one engine.

    Args:
        split: the images; read at the first evaluation, kept where they fit.
        precision: "auto" is for ranking (bfloat16 where it is clearly faster here), "float32" for
            every number that is reported.
        device: default: the GPU if there is one.
        engine: how to run; default: chosen with the first network, then kept.
        batch_size: images a batch where no engine is given; see `choose_engine`.
        choice: by rules, which give the same bits on every machine of a kind, or by measuring;
            see `choose_engine`.
        memory_bytes: images are kept prepared up to this size, and read anew for each network
            above it.

    Raises:
        DataError: the split is empty.
        InvalidInputError: precision or device are unknown here or contradict the engine.
    """

    split: Split
    precision: Precision = "auto"
    device: str | None = None
    engine: Engine | None = None
    batch_size: int | None = None
    choice: Choice = "rules"
    memory_bytes: int = 2 << 30
    _held: dict[str, Engine | _Prepared] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.split) == 0:
            raise DataError("The split holds no images, so nothing can be evaluated.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InvalidInputError(
                "The 'precision' parameter of Evaluator must be 'auto', 'float32' or 'bfloat16'. "
                f"Got {self.precision!r} instead."
            )
        if self.engine is not None:
            pick_device(self.engine.device)
            if self.precision not in ("auto", self.engine.dtype):
                raise InvalidInputError(
                    f"The 'engine' parameter of Evaluator runs in {self.engine.dtype}, the "
                    f"'precision' parameter asks for {self.precision!r}. Give one of them."
                )

    def engine_for(self, model: nn.Module) -> Engine:
        """The engine in use: the given one, or the one chosen with the first network."""
        if self.engine is not None:
            return self.engine
        held = self._held.get("engine")
        if not isinstance(held, Engine):
            held = choose_engine(
                model,
                self.split,
                precision=self.precision,
                device=self.device,
                batch_size=self.batch_size,
                choice=self.choice,
            )
            self._held["engine"] = held
        return held

    def accuracy(
        self, model: nn.Module, *, floor: float | None = None, name: str = ""
    ) -> Evaluation:
        """Top-1 and loss of `model`, which is not modified.

        Args:
            model: maps images (B, C, H, W) to logits (B, K) with K at least the number of classes.
            floor: stop as soon as the network cannot reach this top-1 on the whole split, even if
                it is right on all images to come. Exact: a network that reaches the floor is never
                stopped.
            name: what messages call the network; default: its class.

        Raises:
            DataError: logits that are not finite.
            InvalidInputError: outputs that are no logits for these classes.
        """
        start = time.perf_counter()
        engine, name = self.engine_for(model), name or type(model).__name__
        network = self._network(model, engine)
        total, seen = len(self.split), 0
        look_every = _LOOK_EVERY.get(torch.device(engine.device).type, 1)
        correct = torch.zeros((), dtype=torch.int64, device=engine.device)
        loss = torch.zeros((), dtype=torch.float64, device=engine.device)
        finite: list[Tensor] = []
        with torch.inference_mode():
            for index, (images, labels) in enumerate(self._batches(engine)):
                logits = self._checked(network(images), name)
                seen += len(labels)
                correct += (logits.argmax(dim=1) == labels).sum()
                loss += F.cross_entropy(logits, labels, reduction="sum").double()
                finite.append(torch.isfinite(logits).all(dim=1))
                look = floor is not None and index % look_every == look_every - 1
                if look and (int(correct) + total - seen) / total < floor:  # type: ignore[operator]
                    break
        _check_finite(torch.cat(finite), name, engine.dtype)
        right = int(correct)
        return Evaluation(
            top1=right / seen,
            loss=float(loss) / seen,
            correct=right,
            n=seen,
            total=total,
            seconds=time.perf_counter() - start,
            dtype=engine.dtype,
        )

    def logits(self, model: nn.Module, *, name: str = "") -> Tensor:
        """Logits of `model` on the whole split in its order, float32 (N, K), on the CPU.

        Raises:
            DataError: logits that are not finite.
            InvalidInputError: outputs that are no logits for these classes.
        """
        engine, name = self.engine_for(model), name or type(model).__name__
        network = self._network(model, engine)
        with torch.inference_mode():
            parts = [self._checked(network(x), name) for x, _ in self._batches(engine)]
        # Tensors made in inference mode cannot be used in autograd later; a copy can.
        logits = torch.cat(parts).cpu().clone()
        _check_finite(torch.isfinite(logits).all(dim=1), name, engine.dtype)
        return logits

    def _network(self, model: nn.Module, engine: Engine) -> nn.Module:
        keep_freed_memory()
        images, _ = next(iter(self._batches(engine)))
        return inference_copy(
            model,
            images,
            dtype=engine.torch_dtype,
            device=engine.device,
            channels_last=engine.channels_last,
        ).network

    def _checked(self, output: object, name: str) -> Tensor:
        logits = logits_of(output, name).float()
        if logits.shape[1] < self.split.num_classes:
            raise InvalidInputError(
                f"{name} returns {logits.shape[1]} logits per image, the split has "
                f"{self.split.num_classes} classes. Use a network with as many outputs as classes."
            )
        return logits

    def _batches(self, engine: Engine) -> Iterator[Batch]:
        if self._bytes(engine) > self.memory_bytes:
            for images, labels in self.split.batches(engine.batch_size):
                yield _prepare(images, engine), labels.to(engine.device, non_blocking=True)
            return
        held = self._held.get("images")
        if not isinstance(held, _Prepared):
            held = _Prepared(
                tuple(
                    (_prepare(images, engine), labels.to(engine.device))
                    for images, labels in self.split.batches(engine.batch_size)
                )
            )
            synchronize(engine.device)
            self._held["images"] = held
        yield from held.batches

    def _bytes(self, engine: Engine) -> int:
        channels, height, width = self.split.image_shape
        return len(self.split) * channels * height * width * engine.torch_dtype.itemsize


def _prepare(images: Tensor, engine: Engine) -> Tensor:
    images = images.to(engine.device, engine.torch_dtype, non_blocking=True)
    return images.contiguous(memory_format=engine.memory_format)


def _check_finite(finite: Tensor, name: str, dtype: str) -> None:
    bad = ~finite
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise DataError(
            f"{name} gives logits that are not finite for {int(bad.sum())} of {len(bad)} images "
            f"(first: image {first}), in {dtype}. Check its weights and batch-norm statistics, or "
            "evaluate with precision='float32'."
        )
