"""A network of transformers, pruned and fine-tuned by the Hugging Face Trainer, in a minute.

pip install 'transformers==5.*' accelerate
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, random_split

import randprune as rp
from randprune.zoo.data import load_data
from randprune.zoo.vision import torchvision

# transformers imports torchvision, which PyPI's build refuses beside a CPU-only torch. This helps;
# leave it out where `import torchvision` works.
torchvision()
from transformers import (  # noqa: E402
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
)


class Digits(Dataset):
    """Samples as Hugging Face has them: dicts of what the network's `forward` names."""

    def __init__(self) -> None:
        samples = load_data("digits").full_train
        self.images = samples.images / 255  # float32 (N, 1, 8, 8)
        self.labels = samples.targets

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def untrained() -> nn.Module:
    """A small ResNet of transformers, with random weights."""
    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=10,
        )
    )


def fit(network: nn.Module, samples: Dataset, epochs: int) -> None:
    """Train a network in place."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model=network, args=arguments, train_dataset=samples).train()


def main(candidates: int = 20, epochs: int = 4) -> rp.PruneResult:
    """Train a small network, then prune it to half of its MACs: both times by their Trainer."""
    torch.manual_seed(0)
    train, test = random_split(Digits(), [0.8, 0.2], torch.Generator().manual_seed(0))
    network = untrained()
    fit(network, train, epochs)

    def finetune(small: nn.Module) -> nn.Module:
        """Called for each network that is compared, with a copy in training mode on the CPU."""
        fit(small, train, epochs)
        return small

    return rp.prune(
        network.cpu().eval(),
        {"train": train, "test": test},
        budget=0.5,
        candidates=candidates,
        task="classification",
        finetune=finetune,
    )


if __name__ == "__main__":
    print(main().summary())
