"""What a shell needs of the command: help that is there at once, and names to complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash")


@pytest.mark.parametrize("arguments", [["--help"], ["prune", "--help"], ["--version"]])
def test_help_waits_for_no_library_of_numbers(arguments: list[str]) -> None:
    """None of the large imports, on which the time to the first line hangs."""
    code = (
        "import sys\n"
        f"sys.argv = ['randprune', *{arguments!r}]\n"
        "from randprune.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'accelerate', 'torchvision', 'jinja2'}\n"
        "print('loaded:', *sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path with the command, as an installation makes it."""
    command = tmp_path / "randprune"
    command.write_text(f"#!{sys.executable}\nfrom randprune.cli import main\nmain()\n")
    command.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.skipif(BASH is None, reason="no bash on this machine")
def test_bash_completes_commands_and_options(path: str) -> None:
    script = (
        'eval "$(randprune --show-completion bash)"\n'
        "complete -p randprune\n"
        'complete_line() { COMP_WORDS=(randprune "$@"); COMP_CWORD=$#; COMPREPLY=();'
        ' _randprune_completion randprune; echo "${COMPREPLY[@]}"; }\n'
        "complete_line pru\n"
        "complete_line prune --budg\n"
    )
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", script],
        env={**os.environ, "PATH": path, "SHELL": BASH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1:] == ["prune", "--budget"], done.stderr


def test_zsh_gets_options_with_their_help(path: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(tmp_path / "randprune")],
        env={
            **os.environ,
            "_RANDPRUNE_COMPLETE": "complete_zsh",
            "_TYPER_COMPLETE_ARGS": "randprune prune --budg",
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("_arguments")
    assert '"--budget":"Share of the dense network' in done.stdout
