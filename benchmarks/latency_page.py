"""docs/results/latency.md from what `benchmarks/latency.py` has measured.

    python benchmarks/latency_page.py docs/results/latency

Reads every .json file of the folder, and writes FOLDER.md beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

HEAD = """# The latency table against truth

What `--metric latency` believes, and what networks take. {hardware}. Other work ran on the same
cores while this was measured: every number is a share of the dense network's latency, which was
measured beside it, from the fastest run of each kernel (ONNX Runtime) or the fastest run.

```
python benchmarks/latency.py docs/results/latency/NAME.json NETWORK
python benchmarks/latency_page.py docs/results/latency
```

## Predicted against measured

Random configurations at 30, 50 and 70 % of the MACs, widths in multiples of the step, none of which
the table was fitted on; batch of 1, one thread. Errors are those of the share of the dense latency.
"Its own" is what the cost says of itself: the median error on its twelve networks, each left out.

| network | runtime | step | rows | median error | within 10 % | mean | Kendall's tau | its own |
|---|---|--:|--:|--:|--:|--:|--:|--:|
"""

ASKED = """
## Asked against achieved

Random configurations that the table puts at half of the latency (± 1 %), not searched and not
chosen by measurement, as finalists of a job are.

| network | runtime | rows | measured share | speed-up | farthest from 0.5 |
|---|---|--:|--:|--:|--:|
"""

SPEED = """
## What it costs

| network | runtime | built first | again | a million configurations | noise |
|---|---|--:|--:|--:|--:|
"""

TAIL = """
Noise: how much longer than at its fastest the dense network took in half of its measurements while
the table was built. All measurements: docs/results/latency/*.json.
"""


def main() -> None:
    folder = Path(sys.argv[1])
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    hardware = found[0]["provenance"]
    cpu = hardware["cpu"]
    features = ", ".join(f for f in cpu["features"] if f.startswith("avx512")) or "no AVX-512"
    versions = ", ".join(sorted({f"{d['runtime']} {d['version']}" for d in found}))
    text = HEAD.format(
        hardware=f"{cpu['model']} ({features}), {cpu['cores']} cores, {versions}, "
        f"torch {hardware['versions']['torch']}, {hardware['time'][:10]}"
    )
    text += "".join(_predicted(one) for one in found)
    text += "".join(f"\n{one['network']}: {one['note']}\n" for one in found if "note" in one)
    text += ASKED + "".join(_asked(one) for one in found)
    text += SPEED + "".join(_speed(one) for one in found) + TAIL
    folder.with_suffix(".md").write_text(text)


def _name(one: dict[str, Any]) -> str:
    return f"| {one['network'].rpartition(':')[2]}, {one['size']} | {one['runtime']} "


def _predicted(one: dict[str, Any]) -> str:
    rows = [row for row in one["rows"] if row["metric"] == "macs"]
    told, true = (np.array([row[key] for row in rows]) for key in ("predicted", "measured"))
    error = told / true - 1.0
    tau = kendalltau(told, true).statistic
    own = float(np.median(one["own_errors"]))
    return (
        f"{_name(one)}| {one['step']} | {len(rows)} | {np.median(abs(error)):.1%} "
        f"| {(abs(error) <= 0.1).mean():.0%} | {error.mean():+.1%} | {tau:.2f} | {own:.1%} |\n"
    )


def _asked(one: dict[str, Any]) -> str:
    shares = np.array([row["measured"] for row in one["rows"] if row["metric"] == "latency"])
    if not len(shares):
        return f"{_name(one)}| 0 | - | - | - |\n"
    farthest = shares[np.argmax(abs(shares - 0.5))]
    return (
        f"{_name(one)}| {len(shares)} | {shares.mean():.3f} | {1 / shares.mean():.2f}x "
        f"| {farthest:.3f} |\n"
    )


def _speed(one: dict[str, Any]) -> str:
    return (
        f"{_name(one)}| {one['first_seconds']:.0f} s | {one['second_seconds']:.1f} s "
        f"| {one['million_seconds']:.1f} s | {one['spread']:.0%} |\n"
    )


if __name__ == "__main__":
    main()
