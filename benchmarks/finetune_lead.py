"""What is left of the search's lead after training: the same fine-tuning of winner and control.

    python benchmarks/finetune_lead.py run --data ../shared/data --work runs/finetune-lead
    python benchmarks/finetune_lead.py page     # docs/results/finetune-lead.md from the records

The networks are those of the records of `benchmarks/untrained.py` (ResNet-20, half of the MACs, the
default command): the same widths, channels, calibration images and repair, made again. Each is
trained for several lengths, with a schedule of its own for each length, with and without
distillation from the dense network; seeds are those of the runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from measures import correct, interval
from randprune.training import Teacher, TrainRecipe, train
from untrained import made_again, opened

FOLDER = Path("docs/results/finetune-lead")
PAGE = Path("docs/results/finetune-lead.md")
ROW = "resnet20-50"
ROLES = ("searched", "uniform")
DISTILL = (0.0, 0.9)


def run(seed: int, lengths: list[int], folder: Path, work: Path) -> None:
    wanted = [(e, d) for e in lengths for d in DISTILL]
    path = FOLDER / f"{ROW}-{seed}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"found": []}
    done = {(f["role"], f["epochs"], f["distill"]) for f in record["found"]}
    if all((role, *length) in done for role in ROLES for length in wanted):
        return
    dense, data = opened(ROW, folder, seed)
    test = data.open_test("fine-tuned networks")
    teacher = Teacher(dense)
    for role, small in made_again(ROW, seed, dense, data):
        for epochs, weight in [(0, 0.0), *wanted]:
            if (role, epochs, weight) in done:
                continue
            recipe = TrainRecipe(epochs=epochs, lr=0.01, distill_weight=weight, seed=seed)
            network_after = small
            if epochs:
                name = work / f"{ROW}-{seed}-{role}-{epochs}-{weight}"
                name.parent.mkdir(parents=True, exist_ok=True)
                result = train(
                    small,
                    data.full_train,
                    recipe,
                    teacher=teacher if weight else None,
                    checkpoint=name,
                )
                network_after = result.model
            found = {
                "role": role,
                "epochs": epochs,
                "distill": weight,
                "correct": correct(network_after, test),
                "images": len(test),
            }
            record["found"].append(found)
            print(seed, found, flush=True)
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def page() -> str:
    records: dict[int, dict[tuple[str, int, float], float]] = {}
    for path in sorted(FOLDER.glob(f"{ROW}-*.json")):
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["found"]
        seed = int(path.stem.rpartition("-")[2])
        records[seed] = {
            (f["role"], f["epochs"], f["distill"]): 100 * f["correct"] / f["images"] for f in found
        }
    lines = [HEAD]
    for epochs, weight in sorted({key[1:] for of in records.values() for key in of}):
        both = [
            (of["searched", epochs, weight], of["uniform", epochs, weight])
            for of in records.values()
            if ("searched", epochs, weight) in of and ("uniform", epochs, weight) in of
        ]
        if not both:
            continue
        searched, uniform = np.array(both).T
        how = "none" if not epochs else f"{weight:g}" if weight else "no"
        lines.append(
            f"| {epochs} | {how} | {len(both)} | {searched.mean():.2f} | {uniform.mean():.2f} | "
            f"{interval(searched - uniform)} |"
        )
    return "\n".join(lines) + "\n"


HEAD = """# What training leaves of the lead

```
python benchmarks/untrained.py run --rows resnet20-50 --presets default --data ../shared/data
python benchmarks/finetune_lead.py run --data ../shared/data --work runs/finetune-lead
python benchmarks/finetune_lead.py page
```

ResNet-20, CIFAR-10, half of the MACs: the searched network and uniform widths of the default
command, both repaired alike, then trained alike (SGD, learning rate 0.01 along a cosine, batches of
128) on all 50,000 training images, for each length anew. With distillation 0.9 of the loss is the
divergence from the dense network's outputs at temperature 2. Test accuracy on 10,000 images, in per
cent, means over seeds; in brackets Student's 95 % interval of the paired difference.

| epochs | distillation | seeds | searched | uniform | searched - uniform |
|--:|---|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--epochs", default="1,3,12")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/finetune-lead"))
    given = parser.parse_args()
    if given.step == "page":
        PAGE.write_text(page(), encoding="utf-8")
        return
    lengths = [int(e) for e in given.epochs.split(",")]
    for seed in map(int, given.seeds.split(",")):
        run(seed, lengths, given.data, given.work)


if __name__ == "__main__":
    main()
