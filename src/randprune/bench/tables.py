"""A run's records as CSV: every result with all that belongs to it, never only a mean."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from randprune.atomic import write_file
from randprune.bench.records import BenchRun, Result
from randprune.store import Accuracy

RESULTS_FILE = "results.csv"

_COLUMNS = (
    "row", "method", "criterion", "draw", "epochs", "training", "status", "test", "test_before",
    "search_before", "proxy", "macs", "params", "candidates", "images_forward", "images_backward",
    "macs_spent", "seconds", "widths", "error",
)  # fmt: skip


def write_results(run: BenchRun, folder: Path) -> Path:
    """Write `results.csv`, one line a result; accuracies are shares. The file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(map(_line, run.results))
    return write_file(folder / RESULTS_FILE, text.getvalue().encode())


def _line(result: Result) -> list[object]:
    made, total = result.proposal, result.total
    return [
        result.row,
        made.method,
        made.criterion,
        made.draw,
        result.epochs,
        result.training,
        result.status,
        _share(result.test),
        _share(made.test),
        _share(made.search),
        _plain(made.proxy),
        _plain(made.macs),
        _plain(made.params),
        total.candidates,
        total.images_forward,
        total.images_backward,
        total.macs,
        total.seconds,
        " ".join(map(str, made.widths)),
        result.error,
    ]


def _share(accuracy: Accuracy | None) -> object:
    return "" if accuracy is None else accuracy.share


def _plain(value: float | None) -> object:
    return "" if value is None else value
