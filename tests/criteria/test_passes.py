"""One pass for all observers: what it feeds, what it costs, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from criteria_networks import SIZE, Chain, Residual, images, traced
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import randprune as rp
from randprune.criteria import score_all
from randprune.criteria.base import criteria
from randprune.criteria.chip import Chip
from randprune.criteria.kl import KL
from randprune.criteria.taylor import Taylor
from randprune.graph.sites import ChannelGraph
from randprune.recovery import DenseStatistics
from randprune.testing import seeded

DATA_DRIVEN = ("chip", "empirical_sensitivity", "kl", "taylor")


@pytest.fixture(scope="module")
def chain():
    return traced(Chain)


@pytest.fixture
def runs(monkeypatch):
    """Batch sizes that went through a network's graph."""
    seen = []
    plain = ChannelGraph.run

    def counted(self, pictures, **options):
        seen.append(len(pictures))
        return plain(self, pictures, **options)

    monkeypatch.setattr(ChannelGraph, "run", counted)
    return seen


def close(a, b):
    return all(torch.allclose(x.double(), y.double(), rtol=1e-4) for x, y in zip(a, b, strict=True))


def test_all_criteria_share_one_pass_and_one_export(chain, runs, monkeypatch):
    exports = []
    plain = ChannelGraph.__init__
    monkeypatch.setattr(
        ChannelGraph,
        "__init__",
        lambda self, *arguments: exports.append(1) or plain(self, *arguments),
    )
    model, space = chain
    data = images(10)
    names = ("l1", "random", *DATA_DRIVEN)
    together = score_all(model, space, names, data, batch_size=4)
    assert runs == [4, 4, 2]
    assert len(exports) == 1
    assert list(together) == list(names)
    for name in names:
        assert close(together[name], rp.score(model, space, name, data, batch_size=4))


def test_shared_statistics_save_the_second_pass(chain, runs):
    model, space = chain
    shared = DenseStatistics(model, space)
    for _ in range(2):
        rp.score(model, space, "chip", images(), shared=shared)
    assert runs == [6]
    rp.score(model, space, Chip(images=3), images(), shared=shared)
    assert runs == [6, 3], "other options are another request"


def test_shared_statistics_belong_to_one_network_and_one_state_of_it():
    model, space = traced(Chain)
    shared = DenseStatistics(model, space)
    rp.score(model, space, "l1", shared=shared)
    with torch.no_grad():
        model.one.weight.mul_(2.0)
    with pytest.raises(rp.InvalidInputError, match="before its weights were changed"):
        rp.score(model, space, "l1", shared=shared)
    other, _ = traced(Chain)
    with pytest.raises(rp.InvalidInputError, match="another network"):
        rp.score(other, space, "l1", shared=shared)


def test_only_images_that_somebody_wants_are_run(chain, runs):
    model, space = chain
    rp.score(model, space, Chip(images=2), images(8), batch_size=4)
    assert runs == [1, 1]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 99])
def test_thinned_images_are_the_same_whatever_the_batches(chain, count):
    model, space = chain
    pictures, labels = images(8)
    kl = KL(images=count)
    whole = rp.score(model, space, kl, (pictures, labels), batch_size=8)
    assert close(whole, rp.score(model, space, kl, (pictures, labels), batch_size=3))


def test_every_kind_of_data_gives_the_same_scores(chain):
    model, space = chain
    pictures, labels = images(6)
    batches = list(zip(pictures.split(4), labels.split(4), strict=True))

    class Split:
        def __len__(self):
            return 6

        def batches(self, batch_size):
            return iter(batches)

    loader = DataLoader(TensorDataset(pictures, labels), batch_size=4)
    wanted = rp.score(model, space, "chip", (pictures, labels), batch_size=4)
    for data in (batches, tuple(batches), iter(batches), Split(), loader):
        assert close(rp.score(model, space, "chip", data), wanted)


def test_pieces_of_a_batch_reach_those_who_want_them(chain, monkeypatch):
    """Taylor's pass goes through in pieces, and CHIP gets its images from them."""
    from randprune.criteria import passes

    model, space = chain
    data = images(8)
    chosen = [Taylor(), Chip(images=3)]
    wanted = [rp.score(model, space, c, data) for c in chosen]
    monkeypatch.setattr(passes, "KEPT_BYTES", 3 * ChannelGraph(model, space).bytes_per_image)
    found = score_all(model, space, chosen, data)
    for criterion, scores in zip(chosen, wanted, strict=True):
        assert close(found[criterion.name], scores)


def test_one_that_fails_leaves_the_others_alone():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3)
            self.up = nn.ConvTranspose2d(4, 5, 2)

        def forward(self, pictures):
            return self.up(torch.relu(self.one(pictures))).mean(dim=(2, 3))

    model, space = traced(Transposed)
    shared = DenseStatistics(model, space)
    with pytest.raises(rp.UnsupportedModelError, match="cannot look into up"):
        score_all(model, space, ["empirical_sensitivity", "chip"], images(), shared=shared)
    found = rp.score(model, space, "chip", images(), shared=shared)
    assert close(found, rp.score(model, space, "chip", images()))
    with pytest.raises(rp.UnsupportedModelError, match="cannot look into up"):
        rp.score(model, space, "empirical_sensitivity", images(), shared=shared)


def test_networks_that_fix_their_batch_size():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 5)

        def forward(self, pictures):
            return self.head(torch.relu(self.one(pictures)).mean(dim=(2, 3)).reshape(6, -1))

    model = seeded(Fixed).eval()
    space = rp.trace(model, torch.zeros(6, 3, SIZE, SIZE))
    pictures, labels = images(12)
    for name in ("taylor", "chip"):
        found = rp.score(model, space, name, (pictures, labels), batch_size=6)
        assert found[0].shape == (4,)
    few = rp.score(model, space, Chip(images=2), (pictures, labels), batch_size=6)
    with torch.no_grad():
        maps = torch.relu(model.one(pictures[[5, 11]])).mean(dim=(2, 3)).double()
    whole = maps.norm(dim=1)
    for j in range(4):
        without = maps.clone()
        without[:, j] = 0.0
        assert float(few[0][j]) == pytest.approx(
            float((whole - without.norm(dim=1)).mean()), rel=1e-4
        )
    with pytest.raises(rp.InvalidInputError, match="does not run on the example inputs"):
        rp.score(model, space, "chip", (pictures, labels), batch_size=4)


@pytest.mark.parametrize("name", [*DATA_DRIVEN, "reconstruction"])
class TestRefusals:
    def test_no_data(self, chain, name):
        with pytest.raises(rp.DataError, match=f"{name}' needs .*: give `data`"):
            rp.score(*chain, name)

    def test_empty_data(self, chain, name):
        for data in ([], (torch.zeros(0, 3, SIZE, SIZE), torch.zeros(0, dtype=torch.int64))):
            with pytest.raises(rp.DataError, match=r"no images|No calibration images"):
                rp.score(*chain, name, data)

    def test_images_that_are_not_finite(self, chain, name):
        pictures, labels = images()
        pictures[2] = float("nan")
        with pytest.raises(rp.DataError, match=r"NaN or infinite|not finite"):
            rp.score(*chain, name, (pictures, labels))

    def test_images_that_are_not_normalised(self, chain, name):
        pictures, labels = images()
        with pytest.raises(rp.DataError, match=r"holds torch.uint8 images. Give them normalised"):
            rp.score(*chain, name, [(pictures.to(torch.uint8), labels)])

    def test_batches_without_labels(self, chain, name):
        pictures, labels = images()
        with pytest.raises(rp.DataError, match=r"Batch 0 .* is Tensor, not a pair"):
            rp.score(*chain, name, [pictures])
        with pytest.raises(rp.DataError, match="6 images but 5 labels"):
            rp.score(*chain, name, (pictures, labels[:5]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2, 3, 4, 5]), r"within 0\.\.4.* Got 0\.\.5"),
        (torch.tensor([0, 1, -1, 3, 4, 4]), r"within 0\.\.4.* Got -1\.\.4"),
        (torch.zeros(6), "int64 labels of shape"),
        (torch.zeros(6, 2, dtype=torch.int64), "int64 labels of shape"),
    ],
)
def test_labels_that_the_loss_cannot_take(chain, labels, message):
    with pytest.raises(rp.DataError, match=message):
        rp.score(*chain, "taylor", (images()[0], labels))
    assert len(rp.score(*chain, "kl", (images()[0], labels))) == 2, "others need no labels"


def test_a_loss_that_is_not_finite(chain):
    model, space = traced(Chain)
    with torch.no_grad():
        model.three.bias.fill_(float("inf"))
    with pytest.raises(rp.DataError, match="outputs are NaN or infinite on images 0 to 5"):
        rp.score(model, space, "taylor", images())


def test_outputs_that_are_no_logits():
    class Scalar(Chain):
        def forward(self, pictures):
            return super().forward(pictures).sum(dim=1)

    model, space = traced(Scalar)
    for name in ("kl", "taylor"):
        with pytest.raises(rp.DataError, match=r"need one row of logits per image"):
            rp.score(model, space, name, images())


def test_two_inputs_are_refused_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 5)

        def forward(self, left, right):
            return self.head(torch.relu(self.one(left + right)).mean(dim=(2, 3)))

    model = seeded(Two).eval()
    example = torch.zeros(1, 3, SIZE, SIZE)
    space = rp.trace(model, (example, example))
    with pytest.raises(rp.UnsupportedModelError, match="traced with 2 input tensors"):
        rp.score(model, space, "taylor", images())


def test_names_must_differ(chain):
    with pytest.raises(rp.InvalidInputError, match=r"different names\. Got chip, chip"):
        score_all(*chain, [Chip(), Chip(images=3)], images())


def test_all_of_this_package_are_registered():
    assert {*DATA_DRIVEN, "bn_scale", "geometric_median", "l1", "l2", "lamp", "random"} <= set(
        criteria.names()
    )


def test_a_model_on_half_of_its_layers_in_training_scores_as_in_evaluation():
    model, space = traced(Residual)
    wanted = rp.score(model, space, "taylor", images())
    model.train()
    model.two.eval()
    assert close(rp.score(model, space, "taylor", images()), wanted)
