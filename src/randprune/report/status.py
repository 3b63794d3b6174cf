"""What every page says of the state of its run, above everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from randprune.report.document import Text, Tone
from randprune.report.format import number, often
from randprune.report.reproduce import versions_used
from randprune.store import Openings, RunStatus, Session

STATUS: Mapping[RunStatus, tuple[str, Tone]] = {
    "finished": ("finished", "good"),
    "running": ("still running", "busy"),
    "interrupted": ("interrupted", "warn"),
    "failed": ("failed", "bad"),
}
"""A run's status as a word and its tone."""


def status_notices(status: RunStatus, error: str) -> tuple[Text, ...]:
    """What a reader has to know of a run that has not finished."""
    said = {
        "running": "This run is still at work. The page shows what was recorded when it was "
        "written; write it again for more.",
        "interrupted": "This run was interrupted before its end. The page shows what was recorded "
        "until then; the same command continues it where it stopped.",
        "failed": f"This run failed: {error}",
    }
    return (Text(said[status], STATUS[status][1]),) if status in said else ()


def early_reading_notices(before_final: int) -> tuple[Text, ...]:
    """That the test set was read too early, where it was."""
    if not before_final:
        return ()
    return (
        Text(
            f"The test set was read {often(before_final)} before the final evaluation: its "
            "accuracy is not that of unseen images.",
            "bad",
        ),
    )


def shared_openings(openings: Openings) -> str:
    """How often the runs of a folder have opened these test images, as a last sentence."""
    if not openings.times:
        return ""
    runs = "1 run" if openings.runs == 1 else f"{number(openings.runs)} runs"
    return f" These test images were opened {often(openings.times)} by {runs} of this folder."


def versions_notices(sessions: Sequence[Session]) -> tuple[Text, ...]:
    """That a run was made with several versions, where it was."""
    if len(versions_used(sessions)) < 2:
        return ()
    return (Text("The sessions of this run used different versions; see Reproduce.", "warn"),)
