"""Where and with what a result was made: versions, hardware, source commit, command line.

Records and reports are passed on, so nothing here tells who ran a job or on which machine it ran:
no host name, no user name, no absolute path.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

_ALWAYS = ("randprune", "torch", "numpy")
_IF_LOADED = ("torchvision", "timm")

# What decides the speed of inference in bfloat16 and float32 on x86-64 and on Arm.
_CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
    "i8mm",
)

# An absolute path inside an argument: at its start, or after "=", ":", "," or a quote, as in
# "--out=/a/b" and "npz:/a/b". The drive form covers Windows.
_ABSOLUTE = re.compile(r"(^|[=:,\s'\"(])((?:[A-Za-z]:[\\/]|/(?=[^\s/])|~)[^\s,'\")]*)")
# The same between quotes, where a path may hold spaces.
_QUOTED = re.compile(r"(['\"])((?:[A-Za-z]:[\\/]|/)[^'\"\n]*)\1")
OUTSIDE = "..."
"""Stands for the folders above of a name that is not below the working directory."""


def provenance(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """What a result needs to be trusted and repeated, as a JSON-ready dict.

    Keys: "time" (ISO 8601, UTC), "command" (the command line, absolute paths shortened to their
    last part), "versions", "platform", "cpu" (model, features, cores, threads), "memory_bytes",
    "gpus" (names), "git" (commit of the working directory and whether it had changes; None outside
    a repository). Values that cannot be found are None or left out; nothing is ever raised.

    Args:
        argv: the command line; default `sys.argv`.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "command": command_line(sys.argv if argv is None else argv),
        "versions": _versions(),
        "platform": _platform(),
        "cpu": _cpu(),
        "memory_bytes": memory_bytes(),
        "gpus": _gpus(),
        "git": _git(),
    }


def command_line(argv: Sequence[str]) -> str:
    """`argv` as one line in which no absolute path of this machine is left."""
    if not argv:
        return ""
    program = Path(argv[0]).name
    if program == "__main__.py":  # python -m package
        program = f"python -m {Path(argv[0]).parent.name}"
    arguments = [portable(argument) for argument in argv[1:]]
    quoted = [f"'{a}'" if re.search(r"\s", a) or not a else a for a in arguments]
    return " ".join([program, *quoted])


def portable(text: str) -> str:
    """`text` with absolute paths made relative to the working directory or cut to their last part.

    A path below the working directory becomes relative to it (``/a/b/out`` -> ``out``), any other
    one keeps its last part (``/home/x/data`` -> ``.../data``).
    """
    text = _QUOTED.sub(lambda found: f"{found[1]}{shared_name(found[2])}{found[1]}", text)
    # Its name may hold spaces, at which other paths end.
    text = text.replace(f"{Path.cwd()}{os.sep}", "")
    return _ABSOLUTE.sub(lambda found: found[1] + shared_name(found[2]), text)


def is_absolute(path: str) -> bool:
    """Whether a path begins at the root, on a drive, or in somebody's home folder by name."""
    by_name = path.startswith("~") and path[1:2] not in ("", "/", "\\")
    return path.startswith("/") or by_name or re.match(r"[A-Za-z]:[\\/]", path) is not None


def shared_name(path: str) -> str:
    """An absolute path as others may read it: relative to the working directory, or its last part.

    (``/a/b/out`` -> ``out`` in ``/a/b``, ``.../out`` elsewhere.)
    """
    stripped = path.rstrip("/\\")
    if path.startswith("/"):
        # The working directory has no links in it, and the path may.
        for place in (stripped or "/", os.path.realpath(path)):
            try:
                return str(Path(place).relative_to(Path.cwd()))
            except (ValueError, OSError):
                pass
    last = re.split(r"[\\/]", stripped)[-1]
    return f"{OUTSIDE}/{last}" if last and not last.startswith("~") else OUTSIDE


def shared_names(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Plain data in which every absolute path is a name that others may read, and those by key.

    A text is a path where it is one as a whole, or behind "kind:", as in "npz:/data/cifar".
    """
    names: dict[str, str] = {}

    def shared(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {
                inner: shared(v, f"{key}.{inner}" if key else inner) for inner, v in value.items()
            }
        if isinstance(value, list | tuple):
            return [shared(inner, key) for inner in value]
        kind, colon, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
        if isinstance(value, str) and is_absolute(value):
            names[key] = shared_name(value)
        elif colon and is_absolute(rest):
            names[key] = f"{kind}:{shared_name(rest)}"
        else:
            return value
        return names[key]

    return shared(document, ""), names


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    names = (*_ALWAYS, *(name for name in _IF_LOADED if name in sys.modules))
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            module = sys.modules.get(name)
            if hasattr(module, "__version__"):
                versions[name] = str(getattr(module, "__version__", ""))
    return versions


def _platform() -> str:
    libc = " ".join(platform.libc_ver()).strip()
    parts = (f"{platform.system()} {platform.machine()}", libc)
    return ", ".join(part for part in parts if part)


def cpu_features() -> frozenset[str]:
    """What the processor can do, by the system's names of it; known on Linux only, else empty."""
    return _cpu_model()[1]


def _cpu() -> dict[str, Any]:
    model, flags = _cpu_model()
    torch = sys.modules.get("torch")
    return {
        "model": model,
        "features": [name for name in _CPU_FEATURES if name in flags],
        "cores": usable_cores(),
        "threads": None if torch is None else int(torch.get_num_threads()),
    }


@cache
def _cpu_model() -> tuple[str, frozenset[str]]:
    """Model name and feature flags; the flags are known on Linux only."""
    model, flags = "", frozenset[str]()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                if name == "model name" and not model:
                    model = " ".join(value.split())
                elif name in ("flags", "features") and not flags:
                    flags = frozenset(value.split())
                if model and flags:
                    break
    except OSError:
        pass
    return model or platform.processor() or platform.machine(), flags


def usable_cores() -> int:
    """Cores this process may run on, which is what a timing depends on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """The physical memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[str]:
    # Only where torch is loaded already: importing it would take longer than many jobs.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]


def _git() -> dict[str, Any] | None:
    commit = _run_git("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _run_git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _run_git(*arguments: str) -> str | None:
    # No optional locks: reading must not get in the way of a git command of the user's.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
