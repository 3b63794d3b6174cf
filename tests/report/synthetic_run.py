"""A made-up but realistic ResNet-56 run, recorded in a store at any point of its life."""

from __future__ import annotations

import numpy as np

from randprune.store import (
    Accuracy,
    ArtifactInfo,
    BudgetInfo,
    Candidate,
    CostEntry,
    FrozenInfo,
    GroupInfo,
    Latency,
    ModelInfo,
    NetworkRow,
    Reproduce,
    Run,
    SearchInfo,
    SpaceInfo,
    UseOfTestSet,
    Verification,
    Winner,
)

FULL = (16,) * 10 + (32,) * 10 + (64,) * 10
GROUPS = (
    "conv1",
    *(f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in range(9)),
    "stage2",
    "stage3",
)
MADE_WITH = {
    "time": "2026-11-21T01:51:36Z",
    "command": "randprune prune --model randprune:resnet56 --budget 0.5 --out out",
    "versions": {"python": "3.11.7", "randprune": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
    "platform": "Linux x86_64, glibc 2.36",
    "cpu": {"model": "Some CPU", "features": ["avx2", "amx_bf16"], "cores": 2, "threads": 2},
    "memory_bytes": 25_276_502_016,
    "gpus": [],
    "git": {"commit": "411db52f8cae5f5ac3a9db5e02ce06761b5aa13c", "dirty": True},
}
RECIPE = """seed = 0

[model]
name = "randprune:resnet56"
weights = "cifar10_resnet56.safetensors"

[search]
budget = 0.5
candidates = 100
criterion = "reconstruction"
recovery = "least_squares+bn"

[finetune]
epochs = 3
"""
DENSE_MACS, DENSE_PARAMS = 125_485_706.0, 853_018


def begin(run: Run, title: str = "ResNet-56") -> None:
    """What is known before the first candidate."""
    run.write(
        ModelInfo(
            title,
            name="randprune:resnet56",
            weights="cifar10_resnet56.safetensors",
            data="npz:cifar10",
            classes=10,
            input_shape=(3, 32, 32),
            images={"fit": 44_000, "calibration": 1000, "search": 5000, "test": 10_000},
        )
    )
    groups = tuple(GroupInfo(name, width) for name, width in zip(GROUPS, FULL, strict=True))
    run.write(
        SpaceInfo(
            "a4f9137be5a20d11",
            groups,
            (
                FrozenInfo("linear", 10, 10, "network output"),
                FrozenInfo("layer1.0.conv1", 3, 16, "constant padding in forward"),
            ),
            {"macs": DENSE_MACS, "params": DENSE_PARAMS},
            (0.012, 1.0),
        )
    )
    run.write(BudgetInfo("macs", 0.5, 0.005))
    run.write(
        SearchInfo(
            100, "random search", "reconstruction", "least squares + batch norm", 5000, 431, 0.232
        )
    )
    run.add_cost(CostEntry("trace", seconds=1.9))
    run.add_cost(CostEntry("calibrate", "calibrate", 0, 1000, 0, 1.25e11, 6.4))
    run.put_network(
        NetworkRow(
            "dense",
            "dense",
            "dense",
            test=Accuracy(9339, 10_000),
            search=Accuracy(5000, 5000),
            macs=DENSE_MACS,
            params=DENSE_PARAMS,
            size_bytes=3_450_112,
            latency=(_latency(0.0911, seed=1),),
        )
    )


def search(run: Run, count: int = 100) -> None:
    """`count` random candidates, and the controls once they are all there."""
    with run.transaction():  # one wait for the disk instead of a hundred
        _search(run, count)


def _search(run: Run, count: int) -> None:
    rng = np.random.default_rng(7)
    for i in range(count):
        ratios = np.clip(rng.normal(0.71, 0.17, len(FULL)), 0.1, 1)
        quality = 1 - float(np.mean((1 - ratios) ** 2)) * 1.7 + float(rng.normal(0, 0.022))
        failed = i == 13
        run.record_candidate(
            Candidate(
                i,
                np.maximum(1, np.round(ratios * FULL)).astype(int),  # type: ignore[arg-type]
                seed=1_000_000_007 * i,
                costs={
                    "macs": DENSE_MACS * float(rng.uniform(0.495, 0.505)),
                    "params": DENSE_PARAMS * float(rng.uniform(0.42, 0.6)),
                },
                scores={}
                if failed
                else {
                    "search_top1": round(min(quality, 0.93) * 5000) / 5000,
                    "proxy": -float(np.mean((1 - ratios) ** 2)) + float(rng.normal(0, 0.008)),
                },
                seconds={"select": 0.011, "recover": 0.058, "evaluate": 0.29},
                selection=f"{i:08x}",
                status="failed" if failed else "ok",
                error="the repaired weights are not finite" if failed else "",
            ),
            [CostEntry("search", f"random/{i}", 1, 5000, 0, 5000 * DENSE_MACS / 2, 0.37)],
        )
    if count < 100:
        return
    uniform = tuple(max(1, round(w * 0.71)) for w in FULL)
    for method, score in (("uniform", 0.8734), ("random_channels", 0.6428)):
        run.record_candidate(
            Candidate(
                0,
                uniform,
                method,
                costs={"macs": DENSE_MACS * 0.5012, "params": DENSE_PARAMS * 0.5},
                scores={"search_top1": score},
            )
        )
    best = max(run.candidates("searched"), key=lambda c: c.scores.get("search_top1", 0))
    run.write(Winner(best.index, "searched", (best.index,)))


def evaluate(run: Run, epochs: int = 3) -> None:
    """The chosen network and its controls, cut, verified, fine-tuned and tested."""
    rng = np.random.default_rng(3)
    winner = run.read(Winner)
    assert winner is not None
    chosen = run.candidate(winner.index)
    assert chosen is not None
    rows = (
        ("best random", "searched", 0.4994, (4413, 8967, 9217), chosen.widths, winner.index),
        ("uniform width", "uniform", 0.5012, (3941, 8741, 9164), (), None),
        ("random channels", "random_channels", 0.5012, (1187, 6391, 9023), (), None),
    )
    for k, (label, role, ratio, correct, kept, index) in enumerate(rows):
        for stage, right in zip(("cut", "repaired", "finetuned"), correct, strict=True):
            if stage == "finetuned" and epochs < 3:
                continue
            run.put_network(
                NetworkRow(
                    label,
                    role,
                    stage,  # type: ignore[arg-type]
                    test=Accuracy(right, 10_000),
                    macs=DENSE_MACS * ratio,
                    params=round(DENSE_PARAMS * (0.51 + 0.01 * k)),
                    size_bytes=1_791_240 + 20_000 * k,
                    latency=(_latency(0.0437 + 0.003 * k, seed=5 + k),)
                    if stage == "repaired"
                    else (),
                    widths=kept,
                    candidate=index,
                    recovery="" if stage == "cut" else "least squares + batch norm",
                    epochs=3 if stage == "finetuned" else None,
                )
            )
        for epoch in range(1, epochs + 1):
            run.record_epoch(
                label,
                epoch,
                {
                    "train_loss": 0.42 - 0.07 * epoch + 0.05 * k + float(rng.normal(0, 0.004)),
                    "search_top1": 0.955 + 0.009 * epoch - 0.008 * k,
                    "learning_rate": 0.01 / epoch,
                    "seconds": 41.3,
                },
                [
                    CostEntry(
                        "finetune",
                        f"finetune/{label}/{epoch}",
                        0,
                        50_000,
                        50_000,
                        3 * 50_000 * DENSE_MACS / 2,
                        41.3,
                    )
                ],
            )
    run.write(Verification(True, 3.1e-7, 1e-4))
    run.write(ArtifactInfo("small.safetensors", 1_791_240, "9f86d081884c7d659a2feaa0c55ad015"))
    run.write(UseOfTestSet(0, 10))
    run.write(Reproduce("randprune prune out/recipe.toml --out again", RECIPE))
    run.add_cost(CostEntry("test", "test", 0, 100_000, 0, 7e12, 31.0))


def _latency(median: float, seed: int) -> Latency:
    noise = np.random.default_rng(seed).lognormal(0, 0.03, 30)
    return Latency(tuple(median * noise), 64, "cpu", "float32", 2, interleaved=True)
