"""Which channels, at the same widths: criteria, and exchanges after the elimination.

    python benchmarks/selection.py run --data ../shared/data
    python benchmarks/selection.py page         # docs/results/selection.md from the records

For each of the same configurations (uniform widths and random ones at half of the MACs), every way
of choosing channels gets the same repair, layer after layer, and is judged by the divergence from
the dense network's outputs and by the right answers, on 2,000 search images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import randprune as rp
from randprune.recovery import DenseStatistics, recover
from randprune.recovery.swaps import swap_channels
from randprune.strategies import RandomSearch, strategies
from randprune.zoo import build_model, load_data, load_weights

FOLDER = Path("docs/results/selection")
PAGE = Path("docs/results/selection.md")
NETWORKS = {"resnet20": "ResNet-20, CIFAR-10", "resnet56": "ResNet-56, CIFAR-10"}
CRITERIA = ("reconstruction", "gates", "taylor", "l1", "random")
SWAPPED = "reconstruction, exchanged"
REPAIR = "least_squares+sequential"
CONFIGURATIONS = 4
IMAGES = 2000


def run(name: str, folder: Path) -> None:
    record = FOLDER / f"{name}.json"
    if record.exists():
        return
    weights = folder / f"weights/cifar10_{name}.safetensors"
    dense = load_weights(build_model(f"randprune:{name}"), weights).eval()
    data = load_data(f"npz:{folder / 'cifar10'}", seed=0)
    calibration = list(data.calibration.batches(128))
    search = data.search.subset(np.arange(IMAGES))
    images, labels = (torch.cat(part) for part in zip(*search.batches(200), strict=True))
    space = rp.trace(dense, images[:1])
    shared = DenseStatistics(dense, space)
    scores, seconds = {}, {}
    for criterion in CRITERIA:
        begun = time.process_time()
        scores[criterion] = rp.score(dense, space, criterion, calibration, seed=0, shared=shared)
        seconds[criterion] = round(time.process_time() - begun, 1)
    reference = outputs(dense, images).log_softmax(1)
    rng, budget = np.random.default_rng(0), rp.Budget("macs", 0.5)
    rows = [strategies.create("uniform").ask(space, budget, 1, rng)[0]]
    rows += list(RandomSearch().ask(space, budget, CONFIGURATIONS - 1, rng))
    found: list[dict[str, Any]] = []
    for number, widths in enumerate(rows):
        chosen = {c: rp.select(space, s, widths) for c, s in scores.items()}
        begun = time.process_time()
        chosen[SWAPPED] = swap_channels(
            space, chosen["reconstruction"], shared.inverses(), shared.reference, swaps=100
        )
        swapping = time.process_time() - begun
        for criterion, selection in chosen.items():
            small = rp.cut(dense, space, selection)
            recover(small, dense, space, selection, REPAIR, calibration, shared=shared)
            z = outputs(small, images)
            kl = (reference.exp() * (reference - z.log_softmax(1))).sum(1).mean()
            found.append(
                {
                    "configuration": number,
                    "criterion": criterion,
                    "kl": float(kl),
                    "correct": int((z.argmax(1) == labels).sum()),
                    "exchanged": exchanged(chosen["reconstruction"], selection),
                    "seconds": round(swapping, 2) if criterion == SWAPPED else seconds[criterion],
                }
            )
            print(name, found[-1], flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {"network": name, "images": IMAGES, "channels": int(space.widths.sum())}
    record.write_text(json.dumps({**document, "found": found}, indent=1) + "\n", encoding="utf-8")


def exchanged(one: rp.Selection, other: rp.Selection) -> int:
    """How many channels of one selection are not in the other."""
    return sum(len(np.setdiff1d(a, b)) for a, b in zip(one, other, strict=True))


@torch.inference_mode()
def outputs(network: torch.nn.Module, images: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(x) for x in images.split(200)])


def page() -> str:
    lines = [HEAD]
    for name, title in NETWORKS.items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        found, images = document["found"], document["images"]
        lines += [
            f"\n## {title}\n",
            "| channels by | KL, uniform | right, uniform | KL, random | right, random "
            "| channels unlike `reconstruction` | seconds of one core |",
            "|---|--:|--:|--:|--:|--:|--:|",
        ]
        for criterion in ("reconstruction", SWAPPED, *CRITERIA[1:]):
            of = [f for f in found if f["criterion"] == criterion]
            uniform = [f for f in of if f["configuration"] == 0]
            random = [f for f in of if f["configuration"] > 0]
            cells = []
            for some in (uniform, random):
                cells.append(f"{np.mean([f['kl'] for f in some]):.4f}")
                cells.append(f"{100 * np.mean([f['correct'] for f in some]) / images:.2f} %")
            unlike = np.mean([f["exchanged"] for f in of])
            cells += [f"{unlike:.0f}", f"{np.mean([f['seconds'] for f in of]):.1f}"]
            lines.append(f"| {criterion} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


HEAD = """# Which channels, at the same widths

```
python benchmarks/selection.py run --data ../shared/data
python benchmarks/selection.py page
```

Half of the MACs, no training; uniform widths, and the means of three random configurations. All get
the same repair, layer after layer, and are judged on the same 2,000 search images, which the dense
networks were trained on. One seed. *Exchanged*: after the greedy elimination one kept and one cut
channel of a group change places, the best pair first, until no pair lowers the error of the layers
behind (the second half of OSSCAR). *gates*: trained for half of the MACs with frozen weights
(AutoBot). Seconds: of the criterion, with what it collects first; of exchanges, a configuration.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    if given.step == "page":
        PAGE.write_text(page(), encoding="utf-8")
        return
    for name in given.networks.split(","):
        run(name, given.data)


if __name__ == "__main__":
    main()
