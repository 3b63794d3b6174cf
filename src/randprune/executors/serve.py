"""The other end of `Processes`: a process that does units until its input ends.

It reads one JSON document a line from standard input, first what to open, then one `Asked` at a
time, and answers on standard output: `Share`s, then `Found`, a `Failure` or a `Fatal`. Its input
ends when the process that started it closes it or dies; then it ends too, whatever it is doing.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any, TypeAlias

from randprune.executors.base import FATAL, Do, Failure, Tell, Wire, Work
from randprune.store.codec import Json, encode


@dataclass(frozen=True, slots=True)
class Opening:
    """What to work on: a `Work` by its place, and the document that opens it."""

    module: str
    name: str
    document: Json


@dataclass(frozen=True, slots=True)
class Asked:
    """One unit to do, with so many threads."""

    unit: Json
    threads: int


@dataclass(frozen=True, slots=True)
class Share:
    """So much of the unit is done."""

    share: float


@dataclass(frozen=True, slots=True)
class Found:
    """What came of the unit."""

    outcome: Json


@dataclass(frozen=True, slots=True)
class Fatal:
    """An error of one of the `FATAL` kinds, by its number among them."""

    kind: int
    text: str

    @property
    def error(self) -> Exception:
        """The error, to be raised where the unit was asked for."""
        return FATAL[self.kind](self.text)


Question: TypeAlias = Opening | Asked
Answer: TypeAlias = Share | Found | Failure | Fatal
QUESTIONS: Wire[Any] = Wire(Opening, Asked)
ANSWERS: Wire[Any] = Wire(Share, Found, Failure, Fatal)


def answered(
    work: Work[Any, Any], do: Do[Any, Any], asked: Asked, tell: Tell
) -> Found | Failure | Fatal:
    """Do a unit with the threads asked for; what came of it, or why nothing did."""
    import torch

    torch.set_num_threads(asked.threads)
    try:
        outcome = do(work.units.value(asked.unit), tell)
        return Found(work.outcomes.document(outcome))
    except FATAL as error:
        kind = next(n for n, known in enumerate(FATAL) if isinstance(error, known))
        return Fatal(kind, str(error))
    except Exception as error:
        traceback.print_exc()
        return Failure(f"{type(error).__name__}: {error}")


def opened(opening: Opening) -> tuple[Work[Any, Any], Do[Any, Any]]:
    """The work that an opening names, ready to be done here."""
    work: Work[Any, Any] = getattr(importlib.import_module(opening.module), opening.name)
    return work, work.open(opening.document)


def main() -> None:
    """Serve until the input ends."""
    # Ctrl-C reaches the whole group of processes; the one that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what plug-ins print must not mix with the answers
    asked: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    work, do = opened(asked.get())

    def answer(message: Answer) -> None:
        answers.write(encode(ANSWERS.document(message)) + "\n")

    while True:
        answer(answered(work, do, asked.get(), lambda share: answer(Share(share))))


def _listen(asked: queue.Queue[Any]) -> None:
    for line in sys.stdin:
        asked.put(QUESTIONS.value(json.loads(line)))
    os._exit(0)


if __name__ == "__main__":
    main()
