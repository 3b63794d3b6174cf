"""A search of 100 candidates, beside the same made of Torch-Pruning's parts.

    pip install --no-deps torch-pruning==1.6.1
    python benchmarks/search_speed.py run --data ../shared/data
    python benchmarks/search_speed.py page      # docs/results/search-speed.md from the record

ResNet-56 on CIFAR-10 at half of the MACs. One candidate of each arm in turn, so that the load of
the machine is the same for all of them; one thread. A candidate is drawn within the budget (49.5
to 50.5 % of the MACs), built, repaired and ranked:

- ours: random widths, L1, least squares, KL on 2,000 search images (the default's number), or on
  500 of them; and both again with a race for five places (`--race`);
- peer: a ratio for every layer, Torch-Pruning on a copy of the network and its own count of MACs,
  all ratios raised or lowered by bisection until the count lies within the budget (drawing anew
  would take some 40 draws); batch-norm statistics measured on the same 2,000 calibration images;
  accuracy on the same 2,000 search images in float32.

What both need once (our trace and moments) is timed apart. The best candidate of each arm is tested
as it was ranked: no finalists, no other repair.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from measures import correct
from randprune.criteria import criteria
from randprune.jobs.candidates import Repaired
from randprune.jobs.opening import open_trained
from randprune.jobs.race import Race
from randprune.jobs.ranking import MINUS_KL, scores_of
from randprune.jobs.seeds import Seeds
from randprune.recipe import PruneRecipe
from randprune.strategies import RandomSearch
from randprune.zoo import Split, build_model, load_data, load_weights

RECORD = Path("docs/results/search-speed.json")
PAGE = Path("docs/results/search-speed.md")
CANDIDATES = 100
IMAGES = 2000
FEW = 500
PLACES = 5
WITHIN = (0.495, 0.505)


def run(folder: Path, work: Path) -> None:
    torch.set_num_threads(1)
    spec, weights = "randprune:resnet56", folder / "weights/cifar10_resnet56.safetensors"
    dense = load_weights(build_model(spec), weights).eval()
    data = load_data(f"npz:{folder / 'cifar10'}", seed=0)
    recipe = PruneRecipe.parse({"search": {"images": IMAGES}})
    ours = open_trained(
        recipe, dense, data, rules=recipe.search, seeds=Seeds("0"), work=work / "work"
    )
    begun = time.process_time()
    maker = Repaired(ours, ours.scores(criteria.create("l1")), "least_squares")
    ours.moments()
    judge = ours.quick_judge
    small = open_trained(
        recipe,
        dense,
        data,
        rules=recipe.search.model_copy(update={"images": FEW}),
        seeds=Seeds("0"),
        work=work / "few",
    )
    few = small.quick_judge
    ours.repaired(*_first(ours, maker), "least_squares")  # inverses, which all candidates share
    once = time.process_time() - begun
    races = Race("kl", IMAGES, PLACES), Race("kl", FEW, PLACES)
    peer = Peer(dense, data.calibration, ours.ranking_images)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    for number in range(CANDIDATES):
        row: dict[str, Any] = {}
        start = time.perf_counter()
        widths = RandomSearch().ask(ours.space, ours.budget, 1, rng)[0]
        network = maker.make(widths).network
        made = time.perf_counter() - start
        start = time.perf_counter()
        quality = judge.quality(network)
        row["ours"] = made + time.perf_counter() - start
        start = time.perf_counter()
        quick = few.quality(network)
        row["ours_few"] = made + time.perf_counter() - start
        row["made"] = made
        row["kl"], row["kl_few"] = -quality.scores["kl"], -quick.scores["kl"]
        for name, of_race, images in (("race", races[0], judge), ("race_few", races[1], few)):
            runner = of_race.runner()
            start = time.perf_counter()
            seen = images.quality(network, "", runner.goes_on)
            row[name] = made + time.perf_counter() - start
            scores = scores_of(seen) | runner.end(seen)
            of_race.enter(scores)
            row[f"{name}_kl"], row[f"{name}_images"] = -scores[MINUS_KL], seen.samples
        found, other = peer.candidate(rng)
        row |= found
        rows.append(row)
        for arm, value, of_arm in (
            ("ours", -row["kl"], network),
            ("ours_few", -row["kl_few"], network),
            ("race", -row["race_kl"], network),
            ("race_few", -row["race_few_kl"], network),
            ("peer", row["accuracy"], other),
        ):
            if arm not in kept or value > kept[arm][0]:
                kept[arm] = value, of_arm
        print(number, {k: round(v, 3) for k, v in row.items()}, flush=True)
    test = data.open_test("winners of two searches")
    document = {
        "once_seconds": once,
        "candidates": rows,
        "images": len(test),
        "correct": {arm: correct(network, test) for arm, (_, network) in kept.items()},
        "dense": correct(dense, test),
    }
    RECORD.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _first(session: Any, maker: Repaired) -> tuple[nn.Module, Any]:
    widths = RandomSearch().ask(session.space, session.budget, 1, np.random.default_rng(9))[0]
    made = maker.make(widths)
    return made.network, made.selection


class Peer:
    """The other arm: everything that it does is one call of a library or a plain loop."""

    def __init__(self, dense: nn.Module, calibration: Split, ranking: Split) -> None:
        import torch_pruning

        self.tp = torch_pruning
        self.dense = dense
        self.calibration = [x for x, _ in calibration.batches(128)]
        self.ranking = ranking
        self.example = self.calibration[0][:1]
        self.macs, _ = torch_pruning.utils.count_ops_and_params(dense, self.example)
        self.convolutions = [n for n, m in dense.named_modules() if isinstance(m, nn.Conv2d)]

    def candidate(self, rng: np.random.Generator) -> tuple[dict[str, float], nn.Module]:
        start, draws = time.perf_counter(), 0
        kept = {n: rng.uniform(0.1, 1.0) for n in self.convolutions}
        low, high = -1.0, 1.0
        while True:
            draws += 1
            begun = time.perf_counter()
            network, macs = self.pruned(kept, (low + high) / 2)
            if WITHIN[0] <= macs / self.macs <= WITHIN[1] or high - low < 1e-4:
                break
            too_much = macs / self.macs > WITHIN[1]
            low, high = (low, (low + high) / 2) if too_much else ((low + high) / 2, high)
        last = time.perf_counter() - begun
        drawn = time.perf_counter() - start
        start = time.perf_counter()
        self.recalibrate(network)
        accuracy = correct(network, self.ranking) / len(self.ranking)
        rest = time.perf_counter() - start
        found = {"peer": drawn + rest, "peer_one_draw": last + rest, "draws": draws}
        return {**found, "accuracy": accuracy}, network

    def pruned(self, kept: dict[str, float], more: float) -> tuple[nn.Module, float]:
        network = copy.deepcopy(self.dense)
        modules = dict(network.named_modules())
        ratios = {modules[n]: 1 - min(max(k + more, 0.1), 1.0) for n, k in kept.items()}
        head = next(m for m in modules.values() if isinstance(m, nn.Linear))
        self.tp.pruner.BasePruner(
            network,
            self.example,
            importance=self.tp.importance.MagnitudeImportance(p=1),
            pruning_ratio_dict=ratios,
            ignored_layers=[head],
        ).step()
        macs, _ = self.tp.utils.count_ops_and_params(network, self.example)
        return network, macs

    @torch.no_grad()
    def recalibrate(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        network.train()
        for images in self.calibration:
            network(images)
        network.eval()


def page() -> str:
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = found["candidates"]

    def times(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows])

    lines = [HEAD]
    share = {k: 100 * v / found["images"] for k, v in found["correct"].items()}
    for name, arm, text in (
        ("ours", "ours", "ours, KL on 2,000 images"),
        ("race", "race", "ours, a race over 2,000 images"),
        ("ours_few", "ours_few", "ours, KL on 500 images"),
        ("race_few", "race_few", "ours, a race over 500 images"),
        ("peer", "peer", "peer, bisected to the budget"),
        ("peer_one_draw", "peer", "peer, as if its first network fitted"),
    ):
        seconds = times(name)
        ratios = [times(peer).sum() / seconds.sum() for peer in ("peer", "peer_one_draw")]
        beside = " | ".join("" if arm == "peer" else f"{ratio:.1f} x" for ratio in ratios)
        lines.append(
            f"| {text} | {np.median(seconds):.2f} ({np.quantile(seconds, 0.05):.2f}-"
            f"{np.quantile(seconds, 0.95):.2f}) | {seconds.sum():.0f} | {beside} | "
            f"{share[arm]:.2f} |"
        )
    made = times("made")
    lines.append(
        f"\nOf ours, {np.median(made):.3f} s a candidate are drawing, building and repairing; the "
        f"rest is the evaluation. The peer built {times('draws').mean():.1f} networks for each "
        f"that fitted. Once before: trace, moments and inverses, {found['once_seconds']:.0f} s of "
        f"processor time. Dense: {100 * found['dense'] / found['images']:.2f} %."
    )
    few = np.array([row["kl_few"] for row in rows]).argsort().argsort()
    all_ = np.array([row["kl"] for row in rows]).argsort().argsort()
    lines.append(
        f"\nRanks by 500 and by 2,000 images: Spearman's rho {np.corrcoef(few, all_)[0, 1]:.3f} "
        f"over {len(rows)} candidates."
    )
    for name, images in (("race", IMAGES), ("race_few", FEW)):
        seen = np.array([row[f"{name}_images"] for row in rows])
        key = "kl" if name == "race" else "kl_few"
        order = np.argsort([row[key] for row in rows])[:PLACES]
        lines.append(
            f"\nThe race over {images:,} images looked at {seen.mean():,.0f} a candidate; of the "
            f"{PLACES} best by all of them {int((seen[order] == images).sum())} saw all."
        )
    return "\n".join(lines) + "\n"


HEAD = """# A search of 100 candidates

```
pip install --no-deps torch-pruning==1.6.1
python benchmarks/search_speed.py run --data ../shared/data
python benchmarks/search_speed.py page
```

ResNet-56, CIFAR-10, half of the MACs, one thread, other work on the same cores; arms in turn,
candidate by candidate. Seconds a candidate: median (5 to 95 %), and all together. Ratios are of the
peer's whole time to ours. The winner of each arm is tested as it was ranked, on 10,000 images. What
each arm does: `benchmarks/search_speed.py`.

| arm | seconds a candidate | all | peer / ours | peer with one network / ours | winner, % |
|---|--:|--:|--:|--:|--:|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "page"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/search-speed"))
    given = parser.parse_args()
    if given.step == "page":
        PAGE.write_text(page(), encoding="utf-8")
    else:
        run(given.data, given.work)


if __name__ == "__main__":
    main()
