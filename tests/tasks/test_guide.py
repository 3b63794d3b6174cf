"""The Python blocks of the guide to tasks run, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "tasks.md"


def test_the_guide_runs() -> None:
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    found = names["found"]
    assert found.distance(names["small"]) <= found.best.distance * 1.01
    assert names["result"].value(stage="finetuned") > 0.0
