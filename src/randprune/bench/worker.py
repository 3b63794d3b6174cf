"""A process that does units: python -m randprune.bench.worker, started by `randprune.bench.pool`.

It reads one JSON document a line from standard input, first what to work on, then one unit at a
time, and answers on standard output: shares done, then the outcome or the error. It ends when its
input ends, so also when the process that started it dies, whatever it is doing then.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from randprune.bench.execute import execute
from randprune.bench.lab import Lab
from randprune.bench.recipe import BenchRecipe
from randprune.bench.settings import make_lab
from randprune.bench.units import Unit
from randprune.errors import RandpruneError, StorageError
from randprune.store.codec import encode


def main() -> None:
    """Serve until the input ends."""
    # Ctrl-C reaches the whole group of processes; the one that started this one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what plug-ins print must not mix with the answers
    asked: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    lab = _lab(asked.get())
    while True:
        _serve(lab, asked.get(), answers)


def _listen(asked: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        asked.put(json.loads(line))
    os._exit(0)


def _lab(start: Mapping[str, Any]) -> Lab:
    recipe = BenchRecipe.parse(start["recipe"], "the recipe of this run")
    return make_lab(recipe, Path(start["work"]), start["device"])


def _serve(lab: Lab, asked: Mapping[str, Any], answers: TextIO) -> None:
    import torch

    torch.set_num_threads(asked["threads"])
    unit = Unit(**asked["unit"])

    def answer(**document: object) -> None:
        answers.write(encode(document) + "\n")

    try:
        outcome = execute(lab, unit, lambda share: answer(share=share))
    except (StorageError, MemoryError) as error:
        answer(fatal=type(error).__name__, text=str(error))
    except Exception as error:
        traceback.print_exc()
        known = isinstance(error, RandpruneError)
        answer(failure=type(error).__name__, text=str(error), known=known)
    else:
        answer(outcome=outcome)


if __name__ == "__main__":
    main()
