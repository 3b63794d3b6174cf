"""Fine-tuning by PyTorch Lightning 2.6. Runs in a minute on one core.

pip install 'lightning==2.6.*'
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

import randprune as rp
from randprune.zoo.data import load_data
from randprune.zoo.models import build_model
from randprune.zoo.vision import torchvision

# Lightning imports torchvision, which PyPI's build refuses beside a CPU-only torch. This helps;
# leave it out where `import torchvision` works.
torchvision()
import lightning  # noqa: E402


class Classifier(lightning.LightningModule):
    """How a network is trained; the network itself is a plain module."""

    def __init__(self, network: nn.Module, lr: float = 0.05) -> None:
        super().__init__()
        self.network = network
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> dict[str, object]:
        """SGD with one cycle of the learning rate."""
        optimizer = torch.optim.SGD(self.network.parameters(), lr=self.lr, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def digits() -> tuple[Dataset, Dataset]:
    """Training and test samples: float32 images (1, 8, 8) in [0, 1] with their labels."""
    samples = load_data("digits").full_train
    everything = TensorDataset(samples.images / 255, samples.targets)
    train, test = random_split(everything, [0.8, 0.2], torch.Generator().manual_seed(0))
    return train, test


def fit(network: nn.Module, samples: Dataset, epochs: int) -> None:
    """Train a network in place."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # Lightning trains a module in the mode in which it is given.
    trainer.fit(Classifier(network.train()), DataLoader(samples, batch_size=64, shuffle=True))


def main(candidates: int = 20, epochs: int = 4) -> rp.PruneResult:
    """Train a small network, then prune it to half of its MACs: both times by Lightning."""
    torch.manual_seed(0)
    train, test = digits()
    network = build_model("randprune:digits_cnn")
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
        finetune=finetune,
    )


if __name__ == "__main__":
    print(main().summary())
