"""Reports: a run's records as one self-contained HTML page, CSV tables and PNG figures.

    paths = write_report("out", "out")        # also while the job that writes out/ is running

`table.py`, `chart.py` and `html.py` know nothing of runs: a report of another kind describes its
tables, charts and sections as data and calls `write_page`.
"""

from randprune.report.open import open_run
from randprune.report.page import build_page, headline, summary
from randprune.report.records import RunRecord
from randprune.report.write import ReportPaths, write_page, write_report

__all__ = [
    "ReportPaths",
    "RunRecord",
    "build_page",
    "headline",
    "open_run",
    "summary",
    "write_page",
    "write_report",
]
