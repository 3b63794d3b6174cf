"""Ctrl-C where Python would drop it."""

from __future__ import annotations

import signal
import sys
import time
import weakref

import pytest

from randprune.cli.interrupt import kept_interrupts


class Watched:
    pass


def interrupted_in_a_callback() -> None:
    """Let Ctrl-C arrive while a weak reference's callback runs, then go on for a while."""
    watched = Watched()
    reference = weakref.ref(watched, lambda _: signal.raise_signal(signal.SIGINT))
    del watched
    assert reference() is None
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_a_callback_swallowed_is_raised_again() -> None:
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), kept_interrupts():
        interrupted_in_a_callback()
    assert sys.unraisablehook is before


def test_other_ignored_errors_are_told_as_before() -> None:
    told = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda dropped: told.append(dropped.exc_type)
    try:
        with kept_interrupts():
            watched = Watched()
            reference = weakref.ref(watched, lambda _: 1 / 0)
            del watched
            assert reference() is None
    finally:
        sys.unraisablehook = before
    assert told == [ZeroDivisionError]
