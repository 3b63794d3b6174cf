"""Terminals and pipes that are not what a job expects: the work is done all the same."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from randprune.cli.streams import Lenient

# A command that is quick, since it loads no torch: it works a while, tells of it, and is done.
# (A raw text: on an ASCII command line the interpreter reads no other characters.)
STAND_IN = r"""
import sys
from pathlib import Path
from randprune.cli import app
from randprune.cli.console import messages, output
from randprune.cli.progress import Lines

def job(args, **_):
    lines = Lines()
    lines.start("search", 2, 0, "Searching")
    lines.finish("search")
    Path(args[-1]).write_text("finished")
    for _ in range(5000):
        output().print("50.0\u00a0% \u00b1 0.5\u00a0% of the MACs")
    messages().print("\u2713 Report written")

app.app = job
code = app.main(["prune", "-o", sys.argv[1]])
Path(sys.argv[1] + ".code").write_text(str(code))
sys.exit(code)
"""


def shell(script: str, file: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The stand-in, run as "$@" by a shell script that does something to its streams."""
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-c", STAND_IN, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_an_ascii_terminal(tmp_path: Path) -> None:
    odd = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = shell('"$@"', tmp_path / "out", **odd)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "50.0 % +/- 0.5 % of the MACs"
    assert done.stderr.isascii()
    assert done.stderr.splitlines()[-1].endswith("Report written")


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ('"$@" >&-', 0, ""),
        ('"$@" 2>&-', 0, ""),
        ('"$@" >&- 2>&- <&-', 0, ""),
        ('"$@" >/dev/full', 9, "Standard output could not be written: No space left on device."),
        ('"$@" 2>/dev/full', 0, ""),
        ('"$@" >/dev/full 2>&1', 9, ""),
        ('"$@" | head -n 1', 0, ""),
        ('"$@" 2>&1 | true', 0, ""),
    ],
)
def test_a_job_does_not_end_with_its_terminal(
    tmp_path: Path, script: str, code: int, told: str
) -> None:
    if "/dev/full" in script and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = shell(script, tmp_path / "out")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "out").read_text() == "finished"
    assert (tmp_path / "out.code").read_text() == str(code)


def test_a_whole_job_on_an_ascii_terminal_of_40_columns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "randprune", "prune", "attacked:Digits", "--data", "digits",
         "-n", "1", "--finalists", "1", "--recovery", "none", "--calibration", "32",
         "--search-images", "64", "--set", "finalists.recovery=",
         "--set", "output.latency_seconds=0", "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "LC_ALL": "C",
             "PYTHONUTF8": "0", "COLUMNS": "40", "LINES": "10",
             "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert " % of the MACs" in done.stdout
    assert (tmp_path / "out" / "pruned.safetensors").exists()


def test_what_an_encoding_lacks_is_replaced() -> None:
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = Lenient(below)
    assert stream.write("50 % ± 0.5 % … ü\n") == 17
    stream.flush()
    assert below.buffer.getvalue() == b"50 % +/- 0.5 % ... ?\n"  # type: ignore[attr-defined]
    assert stream.problem is None


def test_a_closed_stream_is_remembered_and_not_raised() -> None:
    below = io.StringIO()
    stream = Lenient(below)
    below.close()
    stream.write("x")
    stream.flush()
    assert stream.problem is not None
    assert not stream.isatty()
