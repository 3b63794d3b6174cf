"""The fair benchmark: every criterion and method beside the random baseline, under one protocol."""

from randprune.bench.methods.base import Method, Task
from randprune.bench.recipe import BenchRecipe
from randprune.bench.records import BenchRun, DenseRecord, MethodInfo, Protocol
from randprune.bench.results import Proposal, Result, Spent, Training
from randprune.bench.run import run_bench

__all__ = [
    "BenchRecipe",
    "BenchRun",
    "DenseRecord",
    "Method",
    "MethodInfo",
    "Proposal",
    "Protocol",
    "Result",
    "Spent",
    "Task",
    "Training",
    "run_bench",
]
