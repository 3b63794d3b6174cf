"""Several processes at work side by side, on this machine.

Several small networks are trained side by side, on one core each, instead of one after the other on
all cores (benchmarks/finetune_sharing.py compares the ways).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, TextIO, TypeAlias, assert_never

import torch

from randprune.executors.base import Advance, Failure, O, U, Work
from randprune.executors.serve import (
    ANSWERS,
    QUESTIONS,
    Answer,
    Asked,
    Fatal,
    Found,
    Opening,
    Question,
    Share,
)
from randprune.store.codec import Json, encode

# A unit whose process dies is taken up again, so many times in all.
_ATTEMPTS = 3
_LAST_WORDS = 5
_COMMAND = (sys.executable, "-m", "randprune.executors.serve")


class Processes(Generic[U, O]):
    """Up to `count` processes; see `Executor`. A unit whose process dies goes to another one.

    Args:
        work: what they do.
        document: opens it, in each process.
        count: how many; each uses one thread; a unit that is alone uses as many as torch uses here.
        logs: the folder for what processes print, a file each.
    """

    def __init__(self, work: Work[U, O], document: Json, count: int, logs: Path) -> None:
        self._work = work
        self._document = document
        self._count = count
        self._logs = logs
        self._messages: _Messages = queue.Queue()
        self._made = 0
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, U] = {}

    def run(
        self, units: Sequence[U], advance: Advance[U], *, total: int | None = None
    ) -> Iterator[tuple[U, O | Failure]]:
        """See `Executor`."""
        waiting = deque(units)
        attempts = dict.fromkeys(units, 0)
        single = (len(units) if total is None else total) == 1
        threads = min(self._count, torch.get_num_threads()) if single else 1
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                worker = self._idle.pop() if self._idle else self._new()
                unit = waiting.popleft()
                attempts[unit] += 1
                self._busy[worker] = unit
                worker.ask(Asked(self._work.units.document(unit), threads))
            worker, message = self._messages.get()
            if worker not in self._busy:  # an idle one was killed
                worker.stop()
                self._idle = [w for w in self._idle if w is not worker]
                continue
            unit = self._busy[worker]
            if isinstance(message, Share):
                advance(unit, message.share)
                continue
            del self._busy[worker]
            match message:
                case None:
                    worker.stop()
                    if attempts[unit] < _ATTEMPTS:
                        waiting.appendleft(unit)
                    else:
                        yield unit, Failure(worker.last_words(attempts[unit]))
                case Found(outcome):
                    self._idle.append(worker)
                    yield unit, self._work.outcomes.value(outcome)
                case Failure():
                    self._idle.append(worker)
                    yield unit, message
                case Fatal():
                    self._idle.append(worker)
                    raise message.error
                case _:
                    assert_never(message)

    def close(self) -> None:
        """Stop all processes, whatever they do."""
        for worker in [*self._idle, *self._busy]:
            worker.stop()
        self._idle, self._busy = [], {}

    def _new(self) -> _Worker:
        worker = _Worker(self._logs / f"worker-{self._made}.log", self._messages)
        self._made += 1
        worker.ask(Opening(self._work.module, self._work.name, self._document))
        return worker


class _Worker:
    """One process; what it answers goes to `messages`, and None when it has ended."""

    def __init__(self, log: Path, messages: _Messages) -> None:
        self._log = log
        # The modules that this process finds, also plug-ins of a script's folder.
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        reads, asked = os.pipe()
        answers, writes = os.pipe()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=reads,
                stdout=writes,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path},
            )
        os.close(reads)
        os.close(writes)
        self._asked = os.fdopen(asked, "w", encoding="utf-8")
        spoken = os.fdopen(answers, encoding="utf-8")
        thread = threading.Thread(target=self._pass_on, args=(spoken, messages), daemon=True)
        thread.start()

    def ask(self, question: Question) -> None:
        """Send one question; a process that has died is noticed by its missing answer."""
        with contextlib.suppress(OSError):
            self._asked.write(encode(QUESTIONS.document(question)) + "\n")
            self._asked.flush()

    def _pass_on(self, answers: TextIO, messages: _Messages) -> None:
        with answers:
            for line in answers:
                try:
                    messages.put((self, ANSWERS.value(json.loads(line))))
                except ValueError:  # cut off as it died, or nothing that this version understands
                    self._process.kill()
                    break
        self._process.wait()
        messages.put((self, None))

    def last_words(self, attempts: int) -> str:
        """How the process ended, with the end of what it printed."""
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        tail = " | ".join(text.splitlines()[-_LAST_WORDS:])
        return f"Its process died {attempts} times, at last by {how}. {tail}".strip()

    def stop(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._asked.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_Messages: TypeAlias = "queue.Queue[tuple[_Worker, Answer | None]]"
