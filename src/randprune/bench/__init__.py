"""The fair benchmark: every criterion and method beside the random baseline, under one protocol."""

from randprune.bench.records import (
    BenchRun,
    DenseRecord,
    MethodInfo,
    Proposal,
    Protocol,
    Result,
    Spent,
    Training,
)

__all__ = [
    "BenchRun",
    "DenseRecord",
    "MethodInfo",
    "Proposal",
    "Protocol",
    "Result",
    "Spent",
    "Training",
]
