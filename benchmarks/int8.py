"""Pruned, quantised, both: four files of each network, judged and timed in ONNX Runtime.

    python benchmarks/untrained.py run --data ../shared/data --work runs/untrained   # the networks
    python benchmarks/int8.py run --work runs/untrained
    python benchmarks/int8.py page              # docs/results/int8.md from the record

Each row is `randprune export --int8` on the network that one command of `benchmarks/untrained.py`
has left, of the first seed that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import randprune
from untrained import ROWS

RECORD = Path("docs/results/int8.json")
PAGE = Path("docs/results/int8.md")
NAMES = ("resnet20-50", "resnet56-50", "lite0-70-loss", "squeezenet-70")


def run(work: Path) -> None:
    found = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    source = str(Path(randprune.__file__).resolve().parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    for name in NAMES:
        files = sorted(work.glob(f"{name}-default-*/pruned.safetensors"))
        if name in found or not files:
            continue
        file = files[0].relative_to(work)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "randprune", "export", str(file)]
            command += ["-o", f"{folder}/small.onnx", "--int8", "--json"]
            made = subprocess.run(
                command, cwd=work, env=environment, check=True, capture_output=True, text=True
            )
        found[name] = {"run": file.parent.name, "arms": json.loads(made.stdout)["arms"]}
        print(name, found[name], flush=True)
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def page() -> str:
    lines = [HEAD]
    for name, made in json.loads(RECORD.read_text(encoding="utf-8")).items():
        row = ROWS[name]
        for arm in made["arms"]:
            lines.append(
                f"| {row.title}, {row.budget:.0%} | {arm['name']} | {100 * arm['value']:.2f} % | "
                f"{arm['images']:,} | {arm['size_bytes'] / 1e6:.2f} MB | "
                f"{arm['milliseconds']:.3g} | {arm['speedup']:.2f} x |"
            )
    return "\n".join(lines) + "\n"


HEAD = """# Pruned, quantised, both

```
python benchmarks/untrained.py run --data ../shared/data --work runs/untrained
python benchmarks/int8.py run --work runs/untrained
python benchmarks/int8.py page
```

`randprune export --int8` on the networks of [untrained.md](untrained.md), one seed each: quantised
on 256 calibration images, without training. ONNX Runtime, one thread, batch of 1; a file's time
is the sum of its kernels' fastest runs, files in turn, on a machine with other work. Accuracy on
the search images, which networks of CIFAR-10 were trained on: it compares the four files and is no
test accuracy. Networks were pruned to a share of the MACs, not of the time.

| network, share of the MACs | file | search accuracy | images | size | ms | speed-up |
|---|---|--:|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--work", type=Path, default=Path("runs/untrained"))
    given = parser.parse_args()
    if given.step == "page":
        PAGE.write_text(page(), encoding="utf-8")
    else:
        run(given.work)


if __name__ == "__main__":
    main()
