"""Accuracy of one candidate after the other on data that was prepared once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError, quoted
from randprune.evaluate.allocator import keep_freed_memory
from randprune.evaluate.choose import choose_engine
from randprune.evaluate.engine import Choice, Engine, Precision, pick_device, synchronize
from randprune.evaluate.inference import inference_copy, prepared
from randprune.graph.call import network_inputs
from randprune.graph.trees import map_tensors, named_leaves
from randprune.tasks.classification import logits_of
from randprune.tasks.targets import target_of
from randprune.zoo.splits import Samples, is_split

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


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A batch, and the network's inputs of it in the engine's dtype and order."""

    inputs: tuple[Any, ...]
    batch: Any


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """Evaluates networks on one split: data prepared once, folded networks, one engine.

    Args:
        split: the samples; read at the first evaluation, kept where they fit.
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

    split: Samples
    precision: Precision = "auto"
    device: str | None = None
    engine: Engine | None = None
    batch_size: int | None = None
    choice: Choice = "rules"
    memory_bytes: int = 2 << 30
    _held: dict[str, Engine | tuple[_Prepared, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.split) == 0:
            raise DataError("The split holds no images, so nothing can be evaluated.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InvalidInputError(
                "The 'precision' parameter of Evaluator must be 'auto', 'float32' or 'bfloat16'. "
                f"Got {quoted(self.precision)} instead."
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
        total, seen = len(self.split), 0
        look_every = _LOOK_EVERY.get(torch.device(engine.device).type, 1)
        correct = torch.zeros((), dtype=torch.int64, device=engine.device)
        loss = torch.zeros((), dtype=torch.float64, device=engine.device)
        finite: list[Tensor] = []
        for index, (outputs, batch) in enumerate(self.outputs(model)):
            with torch.inference_mode():
                logits, labels = self._checked(outputs, name), target_of(batch)
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
        parts = [self._checked(outputs, name) for outputs, _ in self.outputs(model)]
        # Tensors made in inference mode cannot be used in autograd later; a copy can.
        logits = torch.cat(parts).cpu().clone()
        _check_finite(torch.isfinite(logits).all(dim=1), name, engine.dtype)
        return logits

    def outputs(self, model: nn.Module) -> Iterator[tuple[Any, Any]]:
        """What `model` gives for each batch, float32 on the engine's device, with the batch.

        Raises:
            InvalidInputError: the network returns no floating-point tensor, or a batch lacks what
                its forward needs.
        """
        engine = self.engine_for(model)
        network = self._network(model, engine)
        for held in self._batches(model, engine):
            # The mode must not stay on in between, where the caller has its say.
            with torch.inference_mode():
                found = map_tensors(
                    lambda x: x.float() if x.is_floating_point() else x, network(*held.inputs)
                )
            yield found, held.batch

    def batches(self, model: nn.Module) -> Iterator[Any]:
        """The batches that `outputs` gives beside what networks like `model` make of them."""
        yield from (held.batch for held in self._batches(model, self.engine_for(model)))

    def _network(self, model: nn.Module, engine: Engine) -> nn.Module:
        keep_freed_memory()
        first = next(iter(self._batches(model, engine)))
        return inference_copy(
            model,
            first.inputs,
            dtype=engine.torch_dtype,
            device=engine.device,
            channels_last=engine.channels_last,
        ).network

    def _checked(self, output: object, name: str) -> Tensor:
        logits = logits_of(output, name).float()
        classes = self.split.num_classes if is_split(self.split) else 0
        if logits.shape[1] < classes:
            raise InvalidInputError(
                f"{name} returns {logits.shape[1]} logits per image, the split has "
                f"{classes} classes. Use a network with as many outputs as classes."
            )
        return logits

    def _batches(self, model: nn.Module, engine: Engine) -> Iterator[_Prepared]:
        """All batches, prepared; kept where they fit into memory."""
        held = self._held.get("batches")
        if isinstance(held, tuple):
            yield from held
            return
        kept: list[_Prepared] = []
        size = 0
        for batch in self.split.batches(engine.batch_size):
            made = _prepare(model, batch, engine)
            size += sum(leaf.nbytes for _, leaf in named_leaves(made.inputs))
            if size <= self.memory_bytes:
                kept.append(made)
            else:
                kept.clear()
            yield made
        if size <= self.memory_bytes:
            synchronize(engine.device)
            self._held["batches"] = tuple(kept)


def _prepare(model: nn.Module, batch: Any, engine: Engine) -> _Prepared:
    place = torch.device(engine.device)
    inputs = network_inputs(model, batch)
    inputs = prepared(inputs, place, engine.torch_dtype, engine.memory_format)
    if isinstance(batch, tuple | list) and isinstance(batch[0], Tensor):
        batch = (inputs[0], *batch[1:])  # the same images are not held twice
    return _Prepared(inputs, map_tensors(lambda x: x.to(place, non_blocking=True), batch))


def _check_finite(finite: Tensor, name: str, dtype: str) -> None:
    bad = ~finite
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise DataError(
            f"{name} gives logits that are not finite for {int(bad.sum())} of {len(bad)} images "
            f"(first: image {first}), in {dtype}. Check its weights and batch-norm statistics, or "
            "evaluate with precision='float32'."
        )
