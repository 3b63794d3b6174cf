"""Provenance tells how a result was made, and nothing about who made it or where."""

import getpass
import json
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from randprune.provenance import command_line, portable, provenance


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tells_versions_hardware_command_and_time(folder: Path) -> None:
    found = provenance(["/usr/local/bin/randprune", "prune", "--out", str(folder / "out")])

    assert found["command"] == "randprune prune --out out"
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy"} <= found["versions"].keys()
    assert found["cpu"]["cores"] >= 1
    assert found["cpu"]["model"]
    assert found["memory_bytes"] > 1 << 27
    assert found["time"].endswith("Z")
    assert found["git"] is None
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("loaded", [(), ("timm",), ("timm", "torchvision")])
def test_lists_only_the_model_libraries_that_are_loaded(
    loaded: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("timm", "torchvision"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in loaded:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    expected = {"python", "randprune", "torch", "numpy", *loaded}
    assert set(provenance([])["versions"]) == expected


def test_names_neither_host_nor_user_nor_machine_paths(folder: Path) -> None:
    secret = folder / "home" / "somebody" / "weights.safetensors"
    argv = [str(secret), f"--weights={secret}", "--data", "npz:/home/somebody/cifar", "~/x/y"]
    text = json.dumps(provenance(argv))

    assert str(folder) not in text
    assert "somebody/cifar" not in text
    assert "~" not in text
    if len(socket.gethostname()) > 3:
        assert socket.gethostname() not in text
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--budget=0.5", "--budget=0.5"),
        ("npz:/data/cifar10", "npz:.../cifar10"),
        ("npz:/data/cifar10/", "npz:.../cifar10"),
        ("../shared/data", "../shared/data"),
        ("--weights=/a/b.safetensors,/c/d.pt", "--weights=.../b.safetensors,.../d.pt"),
        (r"--out=C:\Users\me\out", "--out=.../out"),
        ("torchvision:resnet50", "torchvision:resnet50"),
        ("cannot read '/root/x/y.npz' (1/2)", "cannot read '.../y.npz' (1/2)"),
        ("~/runs/a", ".../a"),
        ("step 3 / 4, 1/2", "step 3 / 4, 1/2"),
    ],
)
def test_absolute_paths_keep_only_their_last_part(folder: Path, text: str, expected: str) -> None:
    assert portable(text) == expected


def test_paths_below_the_working_directory_become_relative(folder: Path) -> None:
    assert portable(f"--out={folder}/a/b") == "--out=a/b"


def test_command_line_quotes_and_names_the_program() -> None:
    assert command_line(["/x/bin/randprune", "a b", ""]) == "randprune 'a b' ''"
    assert command_line(["/x/randprune/__main__.py", "demo"]) == "python -m randprune demo"
    assert command_line([]) == ""


def test_finds_the_commit_of_the_working_directory(folder: Path) -> None:
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (
        ["git", "init", "-q"],
        [*git, "commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run(command, check=True, timeout=30)
    found = provenance([])["git"]
    assert len(found["commit"]) == 40
    assert found["dirty"] is False

    (folder / "file").write_text("x")
    subprocess.run(["git", "add", "file"], check=True, timeout=30)
    assert provenance([])["git"] == {"commit": found["commit"], "dirty": True}
