"""What a runtime is: something that makes a network ready to run, and times single operators.

Other packages add theirs by an entry point in the group ``randprune.runtimes``: the runtime's name,
and a class without parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from randprune.cost import FloatArray
from randprune.latency.operators import Call
from randprune.registry import Registry


class Runner(Protocol):
    """A network that is ready to run."""

    def clock(self, loops: int) -> float:
        """Milliseconds a batch, over `loops` batches in a row."""
        ...

    def fastest(self, runs: int) -> float:
        """Milliseconds of a batch on a quiet machine, from `runs` batches.

        Where the runtime profiles: the sum over all kernels of each one's fastest run, which other
        processes hardly disturb. Elsewhere the fastest batch.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """Runs networks.

    Attributes:
        name: as it is registered.
        absorbs: operators that cost nothing behind a convolution or a linear layer, because the
            runtime computes them within it: batch norms ("batch_norm") and activations.
        profiles: whether single kernels are timed inside of a run.
    """

    name: ClassVar[str]
    absorbs: ClassVar[frozenset[str]]
    profiles: ClassVar[bool]

    def version(self) -> str:
        """Its version; times of different versions are never mixed.

        Raises:
            InvalidInputError: it is not installed; says how to install it.
        """
        ...

    def prepare(self, network: nn.Module, inputs: tuple[Any, ...], threads: int) -> Runner:
        """A network that is ready to run on inputs of this shape; it is not modified.

        Raises:
            UnsupportedModelError: the runtime cannot run it.
        """
        ...

    def operators_ms(self, calls: Sequence[Call], threads: int) -> FloatArray:
        """Milliseconds that each layer takes alone, the fastest of a few runs, float64 (N,)."""
        ...


runtimes: Registry[Runtime] = Registry("runtime", "randprune.runtimes")
