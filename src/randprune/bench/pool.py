"""Who does the units: several processes that share the machine, or this process itself.

Several small networks are trained side by side, on one core each, instead of one after the other on
all cores (benchmarks/finetune_sharing.py compares the ways). The processes keep no records: they
send what they found to the one that started them, which alone writes.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from pydantic import TypeAdapter

import randprune.errors
from randprune.bench.execute import execute
from randprune.bench.lab import Lab
from randprune.bench.recipe import BenchRecipe
from randprune.bench.units import Outcome, Unit
from randprune.errors import RandpruneError, StorageError
from randprune.store.codec import encode

# A unit whose process dies is taken up again, so many times in all.
_ATTEMPTS = 3
_LAST_WORDS = 5
_COMMAND = [sys.executable, "-m", "randprune.bench.worker"]
_OUTCOME = TypeAdapter(Outcome)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a unit has no outcome."""

    error: str


Advance = Callable[[Unit, float], None]
"""Receives the share of a unit that is done."""


class Pool(Protocol):
    """Does units, in any order."""

    def run(
        self, units: Sequence[Unit], advance: Advance
    ) -> Iterator[tuple[Unit, Outcome | Failure]]:
        """Each unit with what came of it, as they finish.

        Raises:
            StorageError: results cannot be kept, so that the run cannot go on.
        """
        ...

    def close(self) -> None:
        """Stop all work."""
        ...


class InProcess:
    """Does one unit after the other in this process, with all threads that torch uses here."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def run(
        self, units: Sequence[Unit], advance: Advance
    ) -> Iterator[tuple[Unit, Outcome | Failure]]:
        """See `Pool`."""
        for unit in units:
            outcome: Outcome | Failure
            try:
                outcome = execute(self._lab, unit, partial(advance, unit))
            except (StorageError, MemoryError):
                raise
            except Exception as error:
                outcome = Failure(f"{type(error).__name__}: {error}")
            yield unit, outcome

    def close(self) -> None:
        """Nothing."""


class Processes:
    """Up to `count` processes at work side by side.

    Args:
        recipe: what they work on.
        work: the folder for what units leave to each other.
        count: how many; each uses one thread; a unit that is alone uses
            as many as torch uses here.
        device: where networks are evaluated and trained; None: the GPU if there is one.
    """

    def __init__(self, recipe: BenchRecipe, work: Path, count: int, device: str | None) -> None:
        self._start = encode(
            {"recipe": recipe.document(), "work": str(work.resolve()), "device": device}
        )
        self._work = work
        self._count = count
        self._messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._made = 0
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, Unit] = {}

    def run(
        self, units: Sequence[Unit], advance: Advance
    ) -> Iterator[tuple[Unit, Outcome | Failure]]:
        """See `Pool`. A unit whose process dies is given to another one."""
        waiting = deque(units)
        attempts = dict.fromkeys(units, 0)
        threads = min(self._count, torch.get_num_threads()) if len(units) == 1 else 1
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                worker = self._idle.pop() if self._idle else self._new()
                unit = waiting.popleft()
                attempts[unit] += 1
                self._busy[worker] = unit
                worker.ask(encode({"unit": asdict(unit), "threads": threads}))
            worker, message = self._messages.get()
            unit_or_none = self._busy.get(worker)
            if unit_or_none is None:  # an idle one was killed
                worker.stop()
                self._idle = [w for w in self._idle if w is not worker]
                continue
            unit = unit_or_none
            if message is not None and "share" in message:
                advance(unit, message["share"])
                continue
            del self._busy[worker]
            if message is None:
                worker.stop()
                if attempts[unit] < _ATTEMPTS:
                    waiting.appendleft(unit)
                else:
                    yield unit, Failure(worker.last_words(attempts[unit]))
                continue
            self._idle.append(worker)
            if "fatal" in message:
                raise _error(message["fatal"], message["text"])
            if "failure" in message:
                yield unit, Failure(f"{message['failure']}: {message['text']}")
            else:
                yield unit, _OUTCOME.validate_python(message["outcome"])

    def close(self) -> None:
        """Stop all processes, whatever they do."""
        for worker in [*self._idle, *self._busy]:
            worker.stop()
        self._idle, self._busy = [], {}

    def _new(self) -> _Worker:
        log = self._work / f"worker-{self._made}.log"
        self._made += 1
        worker = _Worker(log, self._messages)
        worker.ask(self._start)
        return worker


class _Worker:
    """One process, and the thread that passes its answers on."""

    def __init__(
        self, log: Path, messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        self._log = log
        # The child finds the modules that this process finds, also plug-ins of a script's folder.
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": path},
                text=True,
                encoding="utf-8",
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked = self._process.stdin
        thread = threading.Thread(
            target=self._pass_on, args=(self._process.stdout, messages), daemon=True
        )
        thread.start()

    def ask(self, line: str) -> None:
        """Send one line; a process that has died is noticed by its missing answer."""
        try:
            self._asked.write(line + "\n")
            self._asked.flush()
        except OSError:
            pass

    def _pass_on(
        self, answers: IO[str], messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]]
    ) -> None:
        for line in answers:
            try:
                messages.put((self, json.loads(line)))
            except ValueError:
                self._process.kill()  # cut off as it died, or nothing that this version understands
                break
        answers.close()
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


def _error(name: str, text: str) -> Exception:
    """The error that a process could not go on with, as if it had been raised here."""
    kind = getattr(randprune.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, RandpruneError):
        return kind(text)
    return MemoryError(text)


def workers_of(recipe: BenchRecipe, device: str) -> int:
    """How many processes work side by side; 0: none but this one."""
    if recipe.output.workers is not None:
        return recipe.output.workers
    return 1 if device.startswith("cuda") else _cores()


def make_pool(lab: Lab, device: str | None) -> Pool:
    """The pool that a recipe asks for."""
    count = workers_of(lab.recipe, lab.device)
    if count == 0:
        return InProcess(lab)
    return Processes(lab.recipe, lab.work, count, device)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return torch.get_num_threads()
