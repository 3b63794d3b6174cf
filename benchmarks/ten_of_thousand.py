"""What accuracy among 1,000 classes says where all images are of ten of them.

    python benchmarks/ten_of_thousand.py run --data ../shared/data   # minutes a network
    python benchmarks/ten_of_thousand.py page        # docs/results/ten-of-thousand.md

The networks are those of the records of `benchmarks/untrained.py` (seed 0, the default command):
the same widths, channels, calibration images and repair, made again, and judged on the same 500
test images by several measures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from untrained import ROWS, made_again, opened

RECORD = Path("docs/results/ten-of-thousand.json")
PAGE = Path("docs/results/ten-of-thousand.md")
NAMES = ("lite0-70", "squeezenet-70")


def run(data: Path) -> None:
    found = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for name in NAMES:
        if name not in found:
            found[name] = measured(name, data)
            RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Each network of a run by all measures."""
    dense, data = opened(name, folder, 0)
    test = list(data.open_test("measures of the same networks").batches(100))
    labels = torch.cat([batch[1] for batch in test])
    reference = logits(dense, test)
    found = {"dense": judged(reference, reference, labels)}
    for role, small in made_again(name, 0, dense, data):
        found[role] = judged(logits(small.eval(), test), reference, labels)
        print(name, role, found[role], flush=True)
    return found


@torch.no_grad()
def logits(network: nn.Module, test: list[Any]) -> Tensor:
    return torch.cat([network(batch[0]) for batch in test])


def judged(z: Tensor, dense: Tensor, labels: Tensor) -> dict[str, float]:
    classes = labels.unique()
    ten = classes[z[:, classes].argmax(1)]
    kl = F.kl_div(z.log_softmax(1), dense.log_softmax(1), log_target=True, reduction="none")
    return {
        "top1_of_1000": float((z.argmax(1) == labels).float().mean()),
        "top1_of_10": float((ten == labels).float().mean()),
        "same_answer_as_dense": float((z.argmax(1) == dense.argmax(1)).float().mean()),
        "kl_to_dense": float(kl.sum(1).mean()),
        "cross_entropy": float(F.cross_entropy(z, labels)),
    }


def page() -> str:
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = [HEAD]
    for name, networks in found.items():
        for role, values in networks.items():
            cells = [f"{100 * values[k]:.1f} %" for k in list(values)[:3]]
            cells += [f"{values[k]:.3f}" for k in list(values)[3:]]
            lines.append(f"| {ROWS[name].title} | {role} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


HEAD = """# Ten classes of a thousand

[Networks that nobody trained](untrained.md) judges EfficientNet-Lite0 and SqueezeNet by the answer
among 1,000 classes, on images of ten of them, and calibrates on images of these ten. A network that
forgets the other 990 classes gains by this measure. So the same networks (70 % of the MACs, no
training, seed 0 of the default command) by others, on the same 500 test images:

```
python benchmarks/ten_of_thousand.py run --data ../shared/data
python benchmarks/ten_of_thousand.py page
```

| data | network | right among 1,000 | among the 10 | same answer as dense | KL to dense, nats \
| cross-entropy, nats |
|---|---|--:|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    if given.step == "run":
        run(given.data)
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
