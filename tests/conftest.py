"""Shared fixtures: one thread per worker, and the real data where it is at hand."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from randprune.training import fast_norm

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real images and weights; the test is skipped where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not at hand (no folder {folder.name!r} beside the project)")
    return folder


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal, here and in processes started from here.

    A shell's background jobs, and all that they start, ignore it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line in this process: (exit code, standard output, standard error)."""

    def run_command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        from randprune.cli import main

        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_command


@pytest.fixture
def every_norm_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path also at the widths of networks that were not cut."""
    monkeypatch.setattr(fast_norm, "_LANES", 1 << 30)
    monkeypatch.setattr(fast_norm, "_ROW", 1 << 30)
