"""Stand-ins for what a torchvision without its compiled library lacks."""

import numpy as np
import torch

from randprune.zoo.vision import suppress_overlaps, torchvision


def test_suppression_is_the_greedy_one():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(700, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 1 + 12 * torch.rand(700, 2, generator=generator)], dim=1)
    scores = torch.rand(700, generator=generator)
    got = suppress_overlaps(boxes, scores, 0.4).tolist()
    kept: list[int] = []
    for index in np.argsort(-scores.numpy(), kind="stable").tolist():
        x1, y1, x2, y2 = boxes[index].double().tolist()
        for other in kept:
            a1, b1, a2, b2 = boxes[other].double().tolist()
            shared = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
            if shared / union > 0.4:
                break
        else:
            kept.append(index)
    assert got == kept
    assert 50 < len(kept) < 700


def test_torchvisions_own_function_runs():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert torchvision().ops.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert suppress_overlaps(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
