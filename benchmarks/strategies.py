"""Search strategies at equal compute: as many candidates, the same statistics, seed by seed.

    python benchmarks/strategies.py run --data ../shared/data --work runs/strategies
    python benchmarks/strategies.py run --rows resnet20-50 --seeds 0,1
    python benchmarks/strategies.py page        # docs/results/strategies.md from the records

Of each seed, all strategies share the calibration images, the channels' ranks, the tables, the
quick repair (least squares) and the images that rank. Each evaluates as many candidates, uniform
widths first; its best one is repaired as finalists are, and tested. What differs is only which
configurations are proposed. Tables are charged to the strategies that read them: they get as many
candidates fewer as the tables' passes are worth in multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from measures import correct, interval
from randprune.criteria import criteria
from randprune.jobs.candidates import Repaired
from randprune.jobs.opening import open_trained
from randprune.jobs.search_loop import create_strategy, search, uniform_row
from randprune.jobs.seeds import Seeds
from randprune.recipe import PruneRecipe
from randprune.space import IntArray
from untrained import ROWS, opened

FOLDER = Path("docs/results/strategies")
PAGE = Path("docs/results/strategies.md")
STRATEGIES = ("random", "evolution", "lagrangian", "spdy")
NEEDS_TABLES = ("lagrangian", "spdy")
CANDIDATES = 60
RANKING = 500
TEST = 2000
FINAL = "least_squares+sequential"


def run(name: str, seed: int, folder: Path, work: Path) -> None:
    """All strategies of one network and one seed, and their record."""
    record = FOLDER / f"{name}-{seed}.json"
    if record.exists():
        return
    row = ROWS[name]
    dense, data = opened(name, folder, seed)
    recipe = PruneRecipe.parse(
        {
            "seed": seed,
            "budget": {"ratio": row.budget},
            "search": {"images": RANKING, "candidates": CANDIDATES},
        }
    )
    session = open_trained(
        recipe,
        dense,
        data,
        rules=recipe.search,
        seeds=Seeds(str(seed)),
        work=work / f"{name}-{seed}" / "work",
    )
    begun = time.process_time()
    scores = session.scores(criteria.create("reconstruction"))
    session.tables()
    shared_seconds = time.process_time() - begun
    quick, final = (Repaired(session, scores, r) for r in ("least_squares", FINAL))
    judge = session.quick_judge
    test = data.open_test("strategies at equal compute")
    test = test.subset(np.arange(min(TEST, len(test))))
    uniform = uniform_row(session)
    # What one candidate sends through a network of the budget's size.
    per_candidate = session.macs() * row.budget * len(session.ranking_images)
    tables = session.macs() * session.table_passes / per_candidate
    found: dict[str, Any] = {}
    known: dict[tuple[int, ...], float] = {}

    def evaluate(rows: IntArray) -> list[float]:
        values = []
        for widths in rows:
            key = tuple(widths.tolist())
            if key not in known:
                quality = judge.quality(quick.make(widths).network)
                known[key] = quality.scores["kl"]
            values.append(known[key])
        return values

    for strategy in STRATEGIES:
        count = CANDIDATES - round(tables) if strategy in NEEDS_TABLES else CANDIDATES
        section = recipe.search.model_copy(
            update={"strategy": strategy, "round_to": session.step, "options": {}}
        )
        made = create_strategy(section, session.tables)
        begun = time.process_time()
        rng = np.random.default_rng(seed)
        searched = search(made, session.space, session.budget, count, rng, evaluate, uniform)
        network = final.make(searched.widths[searched.best]).network
        found[strategy] = {
            "candidates": count,
            "kl": -float(searched.values[searched.best]),
            "widths": searched.widths[searched.best].tolist(),
            "cost": session.ratio(searched.widths[searched.best]),
            "correct": correct(network, test),
            "seconds": round(time.process_time() - begun, 1),
        }
        print(name, seed, strategy, found[strategy], flush=True)
    if uniform is not None:
        found["uniform"] = {
            "candidates": 1,
            "kl": -known[tuple(uniform[0].tolist())],
            "widths": uniform[0].tolist(),
            "cost": session.ratio(uniform[0]),
            "correct": correct(final.make(uniform[0]).network, test),
        }
    document = {
        "row": name,
        "seed": seed,
        "table_candidates": round(tables, 1),
        "shared_seconds": round(shared_seconds, 1),
        "images": len(test),
        "dense": correct(dense, test),
        "strategies": found,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def page() -> str:
    """The table, from the records."""
    lines = [HEAD]
    for name in ROWS:
        records = [json.loads(p.read_text(encoding="utf-8")) for p in FOLDER.glob(f"{name}-?.json")]
        if not records:
            continue
        images = records[0]["images"]
        dense = np.mean([100 * r["dense"] / r["images"] for r in records])
        charged = records[0]["table_candidates"]
        lines += [
            f"\n## {ROWS[name].title}, {ROWS[name].budget:.0%} of the MACs\n",
            f"{len(records)} seed{'s' * (len(records) > 1)}, {images:,} test images, "
            f"dense {dense:.2f} %. The tables count as {charged:g} candidates.\n",
            "| strategy | candidates | KL on the search images | test accuracy | minus random, KL "
            "| minus random, points |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for strategy in (*STRATEGIES, "uniform"):
            runs = [r["strategies"].get(strategy) for r in records]
            if None in runs:
                continue
            other = [r["strategies"]["random"] for r in records]
            kl = np.array([r["kl"] for r in runs])
            top = np.array([100 * r["correct"] / images for r in runs])
            less = kl - [r["kl"] for r in other]
            more = top - [100 * r["correct"] / images for r in other]
            beside = ["", ""] if strategy == "random" else [interval(less, 4), interval(more, 2)]
            lines.append(
                f"| {strategy} | {runs[0]['candidates']} | {kl.mean():.4f} | {top.mean():.2f} | "
                f"{beside[0]} | {beside[1]} |"
            )
    return "\n".join(lines) + "\n"


HEAD = """# Search strategies at equal compute

```
python benchmarks/strategies.py run --data ../shared/data --work runs/strategies
python benchmarks/strategies.py page
```

Of each seed, all strategies share the calibration images, the channels' ranks (`reconstruction`),
the tables, the quick repair (least squares) and the 500 images that rank; uniform widths are the
first candidate of each. The best one by KL gets the finalists' repair
(`least_squares+sequential`), without finalists beside it, and is tested. Random search evaluates 60
candidates; who reads the tables evaluates as many fewer as these are worth in multiply-adds (all
passes counted as whole ones, which is more than they are). In brackets: Student's 95 % interval of
the paired difference from random search over the seeds, without the error of the test images.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_run = commands.add_parser("run", help="measure what has no record yet")
    of_run.add_argument("--rows", default="resnet20-50,resnet56-50,lite0-70")
    of_run.add_argument("--seeds", default="0,1,2,3,4")
    of_run.add_argument("--data", type=Path, default=Path("../shared/data"))
    of_run.add_argument("--work", type=Path, default=Path("runs/strategies"))
    commands.add_parser("page", help=f"write {PAGE}")
    given = parser.parse_args()
    if given.command == "page":
        PAGE.write_text(page(), encoding="utf-8")
        return
    for seed in given.seeds.split(","):
        for row in given.rows.split(","):
            run(row, int(seed), given.data, given.work)


if __name__ == "__main__":
    main()
