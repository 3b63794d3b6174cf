"""Fine-tuning by a trainer of your own: a plain loop, PyTorch Lightning, Hugging Face's Trainer.

    python examples/trainers.py plain
    python examples/trainers.py lightning       # pip install "lightning>=2.6"
    python examples/trainers.py transformers    # pip install transformers

`rp.prune(..., finetune=trainer)` calls the trainer once for each network that is compared, with a
module in training mode and the same random state. It trains the module in place; what it leaves
behind is checked and measured like all others.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import randprune as rp
from randprune.zoo import load_data

EPOCHS, LR = 3, 2e-3


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Images (N, 1, 8, 8) and labels, to train on and to test on."""
    data = load_data("digits")
    parts = (data.full_train, data.open_test("the example's own test set"))
    train, test = (
        TensorDataset(*(torch.cat(column) for column in zip(*part.batches(256), strict=True)))
        for part in parts
    )
    return train, test


def network() -> nn.Module:
    widths = [1, 24, 48, 48]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


def plain(train: TensorDataset, epochs: int = EPOCHS) -> Callable[[nn.Module], None]:
    def trainer(module: nn.Module) -> None:
        optimizer = torch.optim.AdamW(module.parameters(), lr=LR)
        for _ in range(epochs):
            for images, labels in DataLoader(train, 64, shuffle=True, drop_last=True):
                optimizer.zero_grad()
                F.cross_entropy(module(images), labels).backward()
                optimizer.step()

    return trainer


def lightning(train: TensorDataset) -> Callable[[nn.Module], None]:
    import lightning as L

    class Task(L.LightningModule):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            images, labels = batch
            return F.cross_entropy(self.module(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.module.parameters(), lr=LR)

    def trainer(module: nn.Module) -> None:
        loop = L.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        loop.fit(Task(module), DataLoader(train, 64, shuffle=True, drop_last=True))

    return trainer


def transformers(train: TensorDataset) -> Callable[[nn.Module], None]:
    from transformers import Trainer, TrainingArguments

    class WithLoss(nn.Module):
        """What their Trainer wants: a dict with a loss."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.module(pixel_values)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def collate(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        images, labels = zip(*samples, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.stack(labels)}

    def trainer(module: nn.Module) -> None:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, num_train_epochs=EPOCHS, learning_rate=LR,
                per_device_train_batch_size=64, save_strategy="no", report_to=[], use_cpu=True,
                disable_tqdm=True, remove_unused_columns=False, dataloader_drop_last=True,
            )  # fmt: skip
            Trainer(
                model=WithLoss(module), args=arguments, train_dataset=train, data_collator=collate
            ).train()

    return trainer


TRAINERS = {"plain": plain, "lightning": lightning, "transformers": transformers}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trainer", choices=TRAINERS)
    torch.manual_seed(0)
    train, test = digits()
    chosen = TRAINERS[parser.parse_args().trainer](train)
    dense = network()
    plain(train, epochs=8)(dense)
    print(rp.prune(dense, {"train": train, "test": test}, budget=0.3, finetune=chosen))


if __name__ == "__main__":
    main()
