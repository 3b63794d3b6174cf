"""Does a repaired network stay ahead after fine-tuning? The same search for a recipe for each arm.

    python benchmarks/finetune_recipes.py arms  --run runs/resnet56-half --out runs/recipes
    python benchmarks/finetune_recipes.py pilot --out runs/recipes [--images 16384] [--shard 0/2]
    python benchmarks/finetune_recipes.py final --out runs/recipes --epochs 1,3 --seeds 3
    python benchmarks/finetune_recipes.py table --out runs/recipes

`arms` makes the networks to start from, all at the same share of the MACs, from a finished run of
`randprune prune` (which names the network, its weights, the images and the winner):

    uniform        uniform widths, L1, only cut
    uniform, LS    the same channels, least squares and batch norm from the calibration images
    winner, cut    the widths and channels of the run's winner, only cut
    winner         the run's winner with its repair

`pilot` trains every arm with every recipe of the grid on a part of the training images and judges
it by the first half of the test images: the dense network knows all training images by heart, so
that on those a recipe would win by changing nothing. `final` takes each arm's best recipe, trains
on all training images with several seeds, and counts the second half. Each result is a
line of results.jsonl; what is there is not computed again, so several processes may share the
work (`--shard`), and an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import randprune as rp
from randprune.evaluate import Evaluator
from randprune.evaluate.engine import Engine
from randprune.lineage import plan_of
from randprune.recovery import recover
from randprune.training import Teacher, TrainRecipe, train
from randprune.zoo import Data, build_model, load_data, load_weights

GRID = {
    "lr": (0.003, 0.01, 0.03),
    "distill_weight": (0.0, 0.9),
}
BASE = {"batch_size": 128, "weight_decay": 5e-4, "warmup_epochs": 0.1, "distill_temperature": 2.0}


class Study:
    """The folder of one study: its job, its arms, its results."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.job = json.loads((out / "job.json").read_text(encoding="utf-8"))
        self.dense = load_weights(build_model(self.job["model"]), self.job["weights"])
        self.teacher = Teacher(self.dense)

    def data(self) -> Data:
        """The images, divided as in the run."""
        return load_data(self.job["data"], calibration=self.job["calibration"],
                         search=self.job["search"])  # fmt: skip

    def arm(self, name: str) -> torch.nn.Module:
        """A network to start from."""
        return rp.load(self.out / f"{name}.safetensors", model=self.job["model"])

    def results(self, stage: str) -> list[dict[str, Any]]:
        """The finished trainings of one stage."""
        path = self.out / "results.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [row for row in map(json.loads, lines) if row["stage"] == stage]

    def add(self, row: dict[str, Any]) -> None:
        """Append one result; several processes may."""
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def make_arms(arguments: argparse.Namespace) -> None:
    """Write the arms of a finished run."""
    recipe = rp.PruneRecipe.load(arguments.run / "recipe.toml")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    job = {"model": recipe.model.spec, "weights": recipe.model.weights, "data": recipe.data.spec,
           "calibration": recipe.data.calibration, "search": recipe.data.search}  # fmt: skip
    (out / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
    study = Study(out)
    data = study.data()
    dense = study.dense
    space = rp.trace(dense, torch.zeros(1, *data.fit.image_shape))
    budget = rp.Budget(recipe.budget.metric, recipe.budget.ratio, recipe.budget.tolerance)
    widths = rp.UniformSearch().ask(space, budget, 1, np.random.default_rng(0))[0]
    uniform = rp.select(space, rp.score(dense, space, "l1"), widths)
    winner = rp.load(arguments.run / "pruned.safetensors", model=recipe.model.spec)
    kept = plan_of(winner).steps[-1].selection
    arms = {
        "uniform": rp.cut(dense, space, uniform),
        "uniform, LS": recover(rp.cut(dense, space, uniform), dense, space, uniform,
                               "least_squares+bn", data.calibration),
        "winner, cut": rp.cut(dense, space, kept),
        "winner": winner,
    }  # fmt: skip
    judge = test_half(data, second=True)
    for name, network in arms.items():
        rp.save(network, out / f"{name}.safetensors")
        study.add({"stage": "arms", "arm": name, "accuracy": judge.accuracy(network).top1,
                   "macs": float(space.cost("macs")(network_widths(network)))})  # fmt: skip


def network_widths(network: torch.nn.Module) -> Any:
    """The widths that a cut network was cut to."""
    return plan_of(network).steps[-1].selection.widths


def exact(split: Any) -> Evaluator:
    """Accuracy on a split in float32."""
    return Evaluator(split, precision="float32", engine=Engine(batch_size=256))


def test_half(data: Data, second: bool) -> Evaluator:
    """The half of the test images that recipes are chosen by, or the one that is reported."""
    images = data.open_test("final accuracies" if second else "choice of recipes")
    middle = len(images) // 2
    return exact(images.subset(range(middle, len(images)) if second else range(middle)))


def run_pilots(arguments: argparse.Namespace) -> None:
    """Every arm with every recipe, on a part of the training images."""
    study = Study(arguments.out)
    data = study.data()
    part = data.fit.subset(range(min(arguments.images, len(data.fit))))
    judge = test_half(data, second=False)
    recipes = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    tasks = [(arm, recipe) for recipe in recipes for arm in arguments.arms.split("/")]
    for arm, recipe in shard(tasks, arguments.shard):
        key = {"stage": "pilot", "arm": arm, **recipe, "images": len(part)}
        if not any(key.items() <= row.items() for row in study.results("pilot")):
            study.add({**key, **trained(study, arm, recipe, part, judge, epochs=1, seed=0)})


def run_finals(arguments: argparse.Namespace) -> None:
    """Each arm's best recipe, on all training images and several seeds; then the test images."""
    study = Study(arguments.out)
    data = study.data()
    tasks = itertools.product(range(arguments.seeds), map(int, arguments.epochs.split(",")),
                              arguments.arms.split("/"))  # fmt: skip
    values = map(float, arguments.recipe.split(",")) if arguments.recipe else ()
    given = dict(zip(GRID, values, strict=False))
    judge = None
    for seed, epochs, arm in shard(list(tasks), arguments.shard):
        recipe = given or best_recipe(study, arm)
        key = {"stage": "final", "arm": arm, "epochs": epochs, "seed": seed, **recipe}
        if any(key.items() <= row.items() for row in study.results("final")):
            continue
        judge = judge or test_half(data, second=True)
        row = trained(study, arm, recipe, data.full_train, judge, epochs=epochs, seed=seed)
        study.add({**key, **row})


def best_recipe(study: Study, arm: str) -> dict[str, Any]:
    """The recipe whose pilot was best, for this arm."""
    pilots = [row for row in study.results("pilot") if row["arm"] == arm]
    best = max(pilots, key=lambda row: row["accuracy"])
    return {key: best[key] for key in GRID}


def trained(study: Study, arm: str, recipe: dict[str, Any], images: Any, judge: Evaluator, *,
            epochs: int, seed: int) -> dict[str, Any]:  # fmt: skip
    """Accuracy after one training, with its time."""
    started = time.perf_counter()
    plan = TrainRecipe(**{**BASE, **recipe}, epochs=epochs, seed=seed)
    teacher = study.teacher if plan.distill_weight else None
    result = train(study.arm(arm), images, plan, teacher=teacher)
    seconds = time.perf_counter() - started
    accuracy = judge.accuracy(result.model).top1
    return {"accuracy": accuracy, "seconds": round(seconds, 1)}


def shard(tasks: list[Any], which: str) -> list[Any]:
    """The tasks of process I of N, from "I/N"."""
    index, count = map(int, which.split("/"))
    return tasks[index::count]


def print_table(arguments: argparse.Namespace) -> None:
    """Markdown tables of all results."""
    study = Study(arguments.out)
    before = {row["arm"]: row for row in study.results("arms")}
    print("| arm | MACs | before training |\n|---|---|---|")
    for arm, row in before.items():
        print(f"| {arm} | {row['macs'] / 1e6:.1f} M | {row['accuracy']:.2%} |")
    pilots = study.results("pilot")
    print("\nPilots: accuracy on the first half of the test images\n")
    recipes = sorted({tuple(row[key] for key in GRID) for row in pilots})
    arms = list(dict.fromkeys(row["arm"] for row in pilots))
    print("| " + " | ".join([*GRID, *arms]) + " |\n" + "|---" * (len(GRID) + len(arms)) + "|")
    for recipe in recipes:
        same = [row for row in pilots if tuple(row[key] for key in GRID) == recipe]
        accuracy = {row["arm"]: f"{row['accuracy']:.2%}" for row in same}
        found = [accuracy.get(arm, "") for arm in arms]
        print("| " + " | ".join([*map(str, recipe), *found]) + " |")
    print("\nFinal: accuracy on the second half of the test images, mean and all seeds\n")
    print("| arm | epochs | recipe | mean | seeds |\n|---|---|---|---|---|")
    finals = study.results("final")
    keys = ("epochs", "arm", *GRID)
    for which in sorted({tuple(row[key] for key in keys) for row in finals}):
        rows = [row for row in finals if tuple(row[key] for key in keys) == which]
        epochs, arm = which[:2]
        values = [row["accuracy"] for row in sorted(rows, key=lambda row: row["seed"])]
        recipe = ", ".join(f"{key} {rows[0][key]:g}" for key in GRID)
        each = ", ".join(f"{value:.2%}" for value in values)
        print(f"| {arm} | {epochs} | {recipe} | {statistics.mean(values):.2%} | {each} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = {"arms": make_arms, "pilot": run_pilots, "final": run_finals, "table": print_table}
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--out", type=Path, required=True, help="the study's folder")
    parser.add_argument("--run", type=Path, help="arms: a finished run of `randprune prune`")
    parser.add_argument("--arms", default="uniform/uniform, LS/winner, cut/winner",
                        help="pilot and final: which, separated by /")  # fmt: skip
    parser.add_argument("--images", type=int, default=16384, help="pilot: training images")
    parser.add_argument("--epochs", default="1,3", help="final: lengths")
    parser.add_argument("--recipe", help="final: LR,DISTILL_WEIGHT instead of the best")
    parser.add_argument("--seeds", type=int, default=3, help="final: trainings of each")
    parser.add_argument("--shard", default="0/1", help="this process's share, I/N")
    arguments = parser.parse_args()
    stages[arguments.stage](arguments)


if __name__ == "__main__":
    main()
