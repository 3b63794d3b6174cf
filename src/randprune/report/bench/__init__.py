"""The report of a benchmark: one page, CSV and LaTeX tables, PNG figures.

paths = write_bench_report(BenchRun.load("runs/f1"), "runs/f1")
"""

from randprune.report.bench.write import bench_summary, leaderboard_of, write_bench_report

__all__ = ["bench_summary", "leaderboard_of", "write_bench_report"]
