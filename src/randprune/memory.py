"""Memory that does not suffice, said in one sentence with the next step.

Libraries tell it in many ways: NumPy by a MemoryError, torch by RuntimeErrors of several texts, and
oneDNN, which runs convolutions on a CPU, by "could not create a primitive".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from randprune.errors import MemoryLimitError, RandpruneError

_TEXTS = (
    "could not create a primitive",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "cannot allocate memory",
)


@contextmanager
def memory_errors(*keys: str) -> Iterator[None]:
    """Within the block, what tells that memory does not suffice becomes a `MemoryLimitError`.

    Args:
        keys: of the recipe, which make batches smaller.
    """
    try:
        yield
    except RandpruneError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_about_memory(error):
            raise
        named = f" ({', '.join(keys)})" if keys else ""
        example = f", as in --set {keys[0]}=8, which calibration follows" if keys else ""
        reason = (str(error).splitlines() or [""])[0][:200].strip().rstrip(".")
        raise MemoryLimitError(
            f"There is not enough memory: {reason or type(error).__name__}. Use smaller "
            f"batches{named}{example}, smaller images, or a machine with more memory."
        ) from error


def is_about_memory(error: BaseException) -> bool:
    """Whether an error of a library tells that memory does not suffice."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(known in text for known in _TEXTS)
