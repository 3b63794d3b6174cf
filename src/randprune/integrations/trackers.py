"""The numbers of a job in an experiment tracker as well: TensorBoard, MLflow and others.

    with tracking(["tensorboard"], "runs/half/track") as tracked:
        result = rp.prune(model, data, out="runs/half", progress=tracked)
        tracked.log_result(result)

Trackers are those of accelerate, which need packages of their own. The records of the output folder
stay what counts: a tracker that fails is left out, and the job goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from randprune.atomic import checked_path
from randprune.errors import InvalidInputError, quoted
from randprune.jobs import Progress, PruneResult
from randprune.jobs.progress import checked
from randprune.training.placement import make_accelerator

__all__ = ["Tracked", "tracking"]


class Tracked:
    """Progress that trackers are told, beside whoever else is.

    Args:
        trackers: of accelerate, started.
        progress: is told, too.
    """

    def __init__(self, trackers: Sequence[Any], progress: Progress) -> None:
        self._trackers = list(trackers)
        self._progress = progress

    def start(self, phase: str, total: int, done: int, text: str) -> None:
        """A phase begins."""
        self._progress.start(phase, total, done, text)

    def advance(self, phase: str, done: int, metrics: Mapping[str, float]) -> None:
        """Steps are complete: each metric is logged as "phase/metric" at this step."""
        self._progress.advance(phase, done, metrics)
        if metrics:
            values = {f"{phase}/{name}": float(value) for name, value in metrics.items()}
            self._each(lambda tracker: tracker.log(values, step=done))

    def finish(self, phase: str) -> None:
        """The phase is complete."""
        self._progress.finish(phase)

    def log_result(self, result: PruneResult, name: str = "test") -> None:
        """Log what each network has on the test set as "test/role/stage", and its costs.

        Args:
            result: of the job; of several seeds the first.
            name: stands in the place of "test", such as a budget's.
        """
        values: dict[str, float] = {}
        for row in result.networks:
            where = f"{row.role}/{row.stage}"
            if row.test is not None:
                values.setdefault(f"{name}/{where}", row.test.share)
            if row.macs is not None:
                values.setdefault(f"{name}_macs/{where}", row.macs)
        self._each(lambda tracker: tracker.log(values, step=0))

    def close(self) -> None:
        """End the trackers' runs."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, act: Callable[[Any], Any]) -> None:
        for tracker in list(self._trackers):
            try:
                act(tracker)
            except Exception as error:  # whatever a stranger's server or disk raises
                self._trackers.remove(tracker)
                text = f"The tracker {tracker.name} failed and is told no more: {error}"
                warnings.warn(text, RuntimeWarning, stacklevel=3)


@contextmanager
def tracking(
    names: Sequence[str],
    folder: str | Path,
    *,
    run_name: str = "randprune",
    progress: Progress | None = None,
    device: str | None = None,
) -> Iterator[Tracked]:
    """Start trackers; within the block they are told, and afterwards they are closed.

    Args:
        names: what accelerate calls them, such as "tensorboard" or "mlflow".
        folder: for those that write files.
        run_name: what the run is called there.
        progress: is told, too; default: as for any job.
        device: on which the job trains; as given to the job.

    Raises:
        InvalidInputError: a tracker that accelerate does not know, whose package is missing, or
            that cannot start.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise InvalidInputError(
                f"No tracker is called {quoted(name)}. Those of accelerate are "
                f"{', '.join(sorted(LOGGER_TYPE_TO_CLASS))}."
            )
        if name not in available:
            raise InvalidInputError(
                f"The tracker {name!r} needs its package, which is not installed: pip install "
                f"{name.replace('_', '-')}."
            )
    place = checked_path(folder, "folder")
    shown = checked(progress)
    # Trackers ask accelerate which process they are in, which it knows once it has a device.
    make_accelerator(device, every_parameter_used=True)
    started = []
    for name in dict.fromkeys(names):
        kind = LOGGER_TYPE_TO_CLASS[name]
        where = {"logging_dir": place} if kind.requires_logging_directory else {}
        try:
            tracker = kind(run_name, **where)
            tracker.start()
        except Exception as error:  # whatever a stranger's server or disk raises
            raise InvalidInputError(
                f"The tracker {name!r} cannot start: {type(error).__name__}: {error}. Leave it "
                "out, or set up what it needs."
            ) from error
        started.append(tracker)
    tracked = Tracked(started, shown)
    try:
        yield tracked
    finally:
        tracked.close()
