"""Every error that randprune raises on purpose.

Each class is a `RandpruneError` *and* the builtin a caller would expect, so that both
``except RandpruneError`` and ``except ValueError`` work. A message says what failed, where,
with which values, and the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONGEST = 120  # characters of a value in a message

__all__ = [
    "ArtifactError",
    "DataError",
    "InfeasibleBudgetError",
    "InvalidInputError",
    "MemoryLimitError",
    "RandpruneError",
    "StorageError",
    "TrainerError",
    "UnsupportedModelError",
    "VerificationError",
    "WeightsError",
]


class RandpruneError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class InvalidInputError(RandpruneError, ValueError):
    """An argument, a recipe, a name or a file that cannot mean what was intended."""

    exit_code = 2


class UnsupportedModelError(RandpruneError, ValueError):
    """A network, or a part of it, that cannot be traced (strict mode: cannot be pruned)."""

    exit_code = 3


class InfeasibleBudgetError(RandpruneError, ValueError):
    """No configuration meets the budget; the message gives the reachable range."""

    exit_code = 4


class VerificationError(RandpruneError, AssertionError):
    """A cut network does not compute what the masked dense network computes."""

    exit_code = 5


class DataError(RandpruneError, ValueError):
    """Images, labels or statistics that are missing, empty, mislabelled or not finite."""

    exit_code = 6


class WeightsError(RandpruneError, ValueError):
    """Weights that do not fit the network, are not finite, or cannot be read safely."""

    exit_code = 7


class ArtifactError(RandpruneError, ValueError):
    """A pruned-network file that is corrupt, truncated, or belongs to another network."""

    exit_code = 8


class TrainerError(RandpruneError, RuntimeError):
    """A trainer of the caller's own that failed; `networks` are those found so far, by role."""

    exit_code = 12

    def __init__(self, message: str, networks: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.networks = dict(networks)


class MemoryLimitError(RandpruneError, MemoryError):
    """Memory that does not suffice for a batch, on the processor or on a GPU."""

    exit_code = 11


class StorageError(RandpruneError, OSError):
    """An output folder or a record file that cannot be written."""

    exit_code = 9


def quoted(value: object) -> str:
    """How a message names a value that was given: one line, of moderate length, without addresses.

    An array is named by its shape, an object without a text of its own by its type.
    """
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{kind} of shape {tuple(value.shape)}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever a stranger's __repr__ raises
        return f"an object of type {kind}"
    if " at 0x" in text:
        text = f"an object of type {kind}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
