"""The network to learn from: folded, in inference mode, and asked only once for the same images."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from randprune.errors import DataError, InvalidInputError
from randprune.evaluate.inference import inference_copy
from randprune.tasks.classification import logits_of
from randprune.training.precision import resolve_precision
from randprune.training.recipe import TrainPrecision, TrainRecipe
from randprune.training.state import weights_digest


class Teacher:
    """A network in inference mode that gives logits for distillation.

    Batch norms are folded and the precision is that of the hardware. Several runs over the same
    augmented batches (same seed and data: a fair comparison of methods) may share one teacher: it
    remembers its logits by the content of the batch, so that each batch is computed once.

    Args:
        network: the dense network; copied, not modified.
        precision: "auto" is bfloat16 where the hardware has it.
        channels_last: memory order of the copy and of the images it is given.
        remember_bytes: logits are remembered up to this size; 0 remembers none. Batches on a GPU
            are not remembered: there, computing is cheaper than looking up.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: TrainPrecision = "auto",
        channels_last: bool = True,
        remember_bytes: int = 256 << 20,
    ) -> None:
        self.network = network
        self.precision = precision
        self.channels_last = channels_last
        self.remember_bytes = remember_bytes
        self.images_forward = 0
        self._digest = ""
        self._copy: nn.Module | None = None
        self._dtype = torch.float32
        self._memory: dict[bytes, Tensor] = {}
        self._memory_bytes = 0

    @property
    def digest(self) -> str:
        """Hash of the teacher's weights."""
        if not self._digest:
            self._digest = weights_digest(self.network)
        return self._digest

    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 (B, K) of images (B, C, H, W), on their device, without gradient.

        Raises:
            DataError: logits that are not finite.
        """
        key = self._key(images)
        if key is not None and key in self._memory:
            return self._memory[key].float()
        logits = self._forward(images)
        if key is not None and self._memory_bytes + logits.nbytes <= self.remember_bytes:
            self._memory[key] = logits
            self._memory_bytes += logits.nbytes
        return logits.float()

    def _forward(self, images: Tensor) -> Tensor:
        # Not inference_mode: its tensors could not be used in the student's autograd graph.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            first = self._copy is None
            if self._copy is None:
                precision = resolve_precision(self.precision, images.device)
                self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
                self._copy = inference_copy(
                    self.network,
                    images,
                    dtype=self._dtype,
                    device=images.device,
                    channels_last=self.channels_last,
                ).network
            output = self._copy(images.to(self._dtype))
            logits = logits_of(output, f"The teacher {type(self.network).__name__}")
        if first and not bool(torch.isfinite(logits).all()):
            raise DataError(
                f"The teacher {type(self.network).__name__} gives logits that are not finite in "
                f"{self._dtype}. Check its weights, or use precision='float32'."
            )
        self.images_forward += len(images)
        return logits

    def _key(self, images: Tensor) -> bytes | None:
        if self.remember_bytes == 0 or images.device.type != "cpu":
            return None
        order = images.permute(0, 2, 3, 1) if self.channels_last else images
        digest = hashlib.sha256(repr(tuple(order.shape)).encode())
        digest.update(order.contiguous().numpy().data)
        return digest.digest()


def as_teacher(teacher: nn.Module | Teacher | None, recipe: TrainRecipe) -> Teacher | None:
    """The teacher that the recipe asks for, None where it asks for none.

    Raises:
        InvalidInputError: a distillation weight without a teacher.
    """
    if recipe.distill_weight == 0.0:
        return None
    if teacher is None:
        raise InvalidInputError(
            f"The recipe has distill_weight={recipe.distill_weight:g}, which needs a teacher. Pass "
            "teacher=the dense network, or set distill_weight=0."
        )
    if isinstance(teacher, Teacher):
        return teacher
    # No other run will ask for the same batches, and one run never sees a batch twice.
    return Teacher(
        teacher,
        precision=recipe.precision,
        channels_last=recipe.channels_last,
        remember_bytes=0,
    )
