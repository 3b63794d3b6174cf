"""The engine that rules choose beside the fastest of all that can be chosen, in processor time.

    python benchmarks/engine_rules.py [--networks randprune:resnet56,timm:efficientnet_lite0,...]

Processor time of one thread, the best of three rounds: other load hardly disturbs it. All engines
run the same folded network on the same images. The speed of the rules' engine is given as a share
of the fastest engine in its precision, and of all.
"""

from __future__ import annotations

import argparse
import time

import torch

from randprune.evaluate import Engine, inference_copy
from randprune.evaluate.rules import batch_of, fast_bfloat16
from randprune.zoo.models import build_model

NETWORKS = (
    "randprune:resnet20,randprune:resnet56,timm:efficientnet_lite0,torchvision:squeezenet1_1,"
    "torchvision:mobilenet_v2,torchvision:resnet50"
)
SIZES = (4, 8, 16, 32, 64, 128, 256)
ROUNDS = 3


def grid(spec: str) -> tuple[dict[Engine, float], int]:
    """Images a second of each engine, and the size of the images."""
    size = 32 if spec.startswith("randprune:") else 224
    images = torch.randn(256 if size == 32 else 64, 3, size, size)
    model = build_model(spec).eval()
    engines = [
        Engine("cpu", dtype, last, batch)
        for dtype in ("float32", "bfloat16")
        for last in (True, False)
        for batch in SIZES
        if batch <= len(images)
    ]
    best: dict[Engine, float] = {}
    for _ in range(ROUNDS):
        for engine in engines:
            network = inference_copy(
                model, images[:4], dtype=engine.torch_dtype, channels_last=engine.channels_last
            ).network
            batch = images.to(engine.torch_dtype).contiguous(memory_format=engine.memory_format)
            count = min(len(images), max(engine.batch_size, 64))
            with torch.inference_mode():
                network(batch[: engine.batch_size])
                start = time.process_time()
                for first in range(0, count, engine.batch_size):
                    network(batch[first : first + engine.batch_size])
            speed = count / (time.process_time() - start)
            best[engine] = max(best.get(engine, 0.0), speed)
    return best, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=NETWORKS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"bfloat16 for ranking here: {fast_bfloat16('cpu')}")
    for spec in arguments.networks.split(","):
        speeds, size = grid(spec)
        fastest = max(speeds.values())
        for dtype in ("float32", "bfloat16"):
            ruled = Engine("cpu", dtype, True, batch_of(size * size, dtype, "cpu"))
            own = max(s for e, s in speeds.items() if e.dtype == dtype)
            speed = speeds[ruled]
            print(
                f"{spec:28} {dtype:9} batch {ruled.batch_size:3}: {speed:6.0f} images/s, "
                f"{speed / own:.2f} of the best {dtype}, {speed / fastest:.2f} of the best of all",
                flush=True,
            )


if __name__ == "__main__":
    main()
