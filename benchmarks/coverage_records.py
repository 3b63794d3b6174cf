"""The records of the coverage sweep: read, and judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERIFY_LIMIT = 1e-4


def load_records(path: Path) -> list[dict[str, Any]]:
    """The records of earlier runs."""
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def failures(record: dict[str, Any]) -> list[str]:
    """What is wrong with a record; empty where everything held."""
    found = [record["error"]] if "error" in record else []
    for mode in ("module", "graph"):
        result = record.get(mode)
        if result is None:
            continue
        if "error" in result:
            found.append(f"{mode}: {result['error']}")
            continue
        if not result["verify_error"] <= VERIFY_LIMIT:
            found.append(f"{mode}: relative error {result['verify_error']:.1e}")
        if result["cost_error"] != 0:
            found.append(f"{mode}: the cost is off by {result['cost_error']:g}")
    return found
