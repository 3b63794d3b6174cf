"""The fair benchmark: every criterion and method beside the random baseline, under one protocol."""

from randprune.bench.keys import ProposalKey, Row, TrainingKey
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
    "ProposalKey",
    "Protocol",
    "Result",
    "Row",
    "Spent",
    "Task",
    "Training",
    "TrainingKey",
    "run_bench",
]
