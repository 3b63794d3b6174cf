"""Fine-tuning by a loop of your own, in plain PyTorch. Runs in a minute on one core."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

import randprune as rp
from randprune.zoo.data import load_data
from randprune.zoo.models import build_model


def digits() -> tuple[Dataset, Dataset]:
    """Training and test samples: float32 images (1, 8, 8) in [0, 1] with their labels."""
    samples = load_data("digits").full_train
    everything = TensorDataset(samples.images / 255, samples.targets)
    train, test = random_split(everything, [0.8, 0.2], torch.Generator().manual_seed(0))
    return train, test


def fit(network: nn.Module, samples: Dataset, epochs: int) -> None:
    """Train a network in place."""
    loader = DataLoader(samples, batch_size=64, shuffle=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, epochs * len(loader))
    network.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()


def main(candidates: int = 20, epochs: int = 4) -> rp.PruneResult:
    """Train a small network, then prune it to half of its MACs: both times with the same loop."""
    torch.manual_seed(0)
    train, test = digits()
    network = build_model("randprune:digits_cnn")
    fit(network, train, epochs)

    def finetune(small: nn.Module) -> nn.Module:
        """Called for each network that is compared, with a copy in training mode on the CPU."""
        fit(small, train, epochs)
        return small

    return rp.prune(
        network.eval(),
        {"train": train, "test": test},
        budget=0.5,
        candidates=candidates,
        finetune=finetune,
    )


if __name__ == "__main__":
    print(main().summary())
