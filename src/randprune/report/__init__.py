"""Reports: a run's records as one self-contained HTML page, CSV tables and PNG figures.

    paths = write_report("out", "out")        # also while the job that writes out/ is running

A report is data (`document.py`: sections of tables, charts and texts) before it is files. Pruning
jobs (`run/`) and benchmarks (`bench/`) each have one object with their statistics and one function
that makes a report of them; all else is shared.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from randprune.report.document import Report as Report
    from randprune.report.kinds import (
        open_run as open_run,
        report_of as report_of,
        write_report as write_report,
    )
    from randprune.report.run.records import RunRecord as RunRecord
    from randprune.report.write import ReportPaths as ReportPaths

# Imported when first used: commands format numbers long before they need a report.
_HOMES = {
    "Report": "document",
    "ReportPaths": "write",
    "RunRecord": "run.records",
    "open_run": "kinds",
    "report_of": "kinds",
    "write_report": "kinds",
}

__all__ = [*_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
