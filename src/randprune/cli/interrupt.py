"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Long enough for the callback to have returned, too short for a person to notice.
_AGAIN_SECONDS = 0.05


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Within the block, a KeyboardInterrupt that Python drops is raised again.

    Python runs the handler of a signal between any two instructions of the main thread. Where these
    belong to a weak reference's callback or a destructor - torch's tensors have many of both - the
    exception cannot leave them: the interpreter prints it as ignored and the job goes on.
    """
    ignored = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs, /) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            ignored(dropped)
            return
        # Not from here: the hook itself is called where nothing can be raised.
        again = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = ignored
