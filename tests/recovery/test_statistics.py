"""Moments against sums over every window; what is kept of wide layers; files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from repairable import Bare, Chain, Concat, Grouped, build, images, traced
from torch import Tensor, nn

from randprune.errors import ArtifactError, DataError
from randprune.recovery.collect import collect_moments
from randprune.recovery.statistics import Moments
from randprune.tensor_file import read_with_head, write_tensors

EVERYWHERE = 10_000


def windows(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """All windows of a convolution, (rows, columns), by `torch.nn.functional.unfold`."""
    columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1]).double()


def test_moments_are_those_of_every_window() -> None:
    network = build(Chain)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = images(30)
    moments = collect_moments(network, traced(network), x.split(8), positions=EVERYWHERE)
    assert moments.images == 30
    assert list(moments.layers) == ["b.weight", "c.weight", "head.weight"]
    with torch.no_grad():
        a = F.relu(network.a_norm(network.a(x)))
        b = F.relu(network.b_norm(network.b(a)))
        head = F.relu(network.c(b)).mean((2, 3)).double()
    for name, rows in [
        ("b.weight", windows(a, network.b)),
        ("c.weight", windows(b, network.c)),
        ("head.weight", head),
    ]:
        site = moments.site(moments.layers[name])
        assert site.rows == len(rows)
        assert not site.per_channel
        torch.testing.assert_close(site.mean[0], rows.mean(0), rtol=1e-5, atol=1e-6)
        expected = torch.cov(rows.T, correction=0).float()
        torch.testing.assert_close(site.covariance[0], expected, rtol=1e-4, atol=1e-5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_grouped_layers_have_one_matrix_a_group() -> None:
    network = build(Grouped)
    x = images(10)
    moments = collect_moments(network, traced(network), [x], positions=EVERYWHERE)
    with torch.no_grad():
        rows = windows(F.relu(network.norm(network.a(x))), network.b)
    site = moments.site(moments.layers["b.weight"])
    assert site.covariance.shape == (2, 36, 36)
    for group in range(2):
        part = rows[:, 36 * group : 36 * group + 36]
        expected = torch.cov(part.T, correction=0).float()
        torch.testing.assert_close(site.covariance[group], expected, rtol=1e-4, atol=1e-5)


def test_sampled_places_are_those_that_the_seed_draws() -> None:
    """Moments of exactly the drawn windows: eight places a batch, the same for all its images."""
    network, x = build(Bare), images(60)
    space = traced(network)
    few = collect_moments(network, space, x.split(20), positions=8, seed=1)
    site = few.site(few.layers["b.weight"])
    assert site.rows == 60 * 8
    generator = torch.Generator().manual_seed(1)
    drawn = []
    with torch.no_grad():
        for part in x.split(20):
            places = torch.randperm(64, generator=generator)[:8]
            every = windows(F.relu(network.a(part)), network.b).reshape(20, 64, -1)
            drawn.append(every[:, places].flatten(0, 1))
    rows = torch.cat(drawn)
    torch.testing.assert_close(site.mean[0], rows.mean(0), rtol=1e-5, atol=1e-6)
    expected = torch.cov(rows.T, correction=0).float()
    torch.testing.assert_close(site.covariance[0], expected, rtol=1e-4, atol=1e-5)
    pairs = [(part, None) for part in x.split(20)]
    again = collect_moments(network, space, pairs, positions=8, seed=1)
    assert torch.equal(again.site(again.layers["b.weight"]).covariance, site.covariance)
    other = collect_moments(network, space, pairs, positions=8, seed=2)
    assert not torch.equal(other.site(other.layers["b.weight"]).covariance, site.covariance)


def test_wide_layers_fall_back_to_channels_then_to_nothing() -> None:
    network, x = build(Concat), images(10)
    space = traced(network)
    moments = collect_moments(network, space, [x], positions=EVERYWHERE, full_columns=100)
    site = moments.site(moments.layers["both.weight"])
    assert site.per_channel
    with torch.no_grad():
        joined = torch.cat([F.relu(network.a(x)), x, F.relu(network.b(x))], dim=1)
    rows = joined.permute(0, 2, 3, 1).reshape(-1, 17).double()
    torch.testing.assert_close(
        site.covariance[0], torch.cov(rows.T, correction=0).float(), rtol=1e-4, atol=1e-5
    )
    # 153 columns take 187 kB as float64; 1 MiB holds them, 0 MiB nothing at all.
    kept = collect_moments(network, space, [x], limit_mib=1)
    assert not kept.site(kept.layers["both.weight"]).per_channel
    assert collect_moments(network, space, [x], limit_mib=0).layers == {}


def test_columns_and_matrix_agree_on_their_order() -> None:
    network, x = build(Chain), images(4)
    moments = collect_moments(network, traced(network), [x])
    layer = moments.layers["b.weight"]
    columns = moments.columns(layer, torch.tensor([1, 4]).numpy())
    assert columns.tolist() == [*range(9, 18), *range(36, 45)]
    weight = network.b.weight
    matrix = moments.matrix(layer, weight)
    assert torch.equal(matrix[0, :, columns].float(), weight[:, [1, 4]].flatten(1))
    assert torch.equal(moments.weight(layer, matrix, weight.shape).float(), weight)


def test_files_hold_everything(tmp_path: Path) -> None:
    network = build(Chain)
    moments = collect_moments(network, traced(network), [images(4)], full_columns=60)
    again = Moments.load(moments.save(tmp_path / "moments.safetensors"))
    assert again.layers == dict(moments.layers)
    assert again.shapes == dict(moments.shapes)
    assert (again.images, again.fingerprint) == (moments.images, moments.fingerprint)
    for name, site in moments.sites.items():
        assert torch.equal(again.sites[name].mean, site.mean)
        assert torch.equal(again.sites[name].covariance, site.covariance)
        assert (again.sites[name].rows, again.sites[name].per_channel) == (
            site.rows, site.per_channel
        )  # fmt: skip


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "moments.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="no second moments"):
        Moments.load(path)
    with pytest.raises(ArtifactError, match="no second moments"):
        Moments.load(tmp_path / "missing.safetensors")


def flat_geometry(head: dict[str, Any]) -> None:
    """The first layout of these files: a layer's geometry beside its other fields."""
    for layer in head["layers"]:
        layer.update(layer.pop("geometry"))


@pytest.mark.parametrize(
    "change",
    [
        flat_geometry,
        lambda head: head.pop("shapes"),
        lambda head: head.pop("images"),
        lambda head: head.pop("fingerprint"),
        lambda head: head.update(shapes=[1]),
        lambda head: head.update(layers={"conv": 1}),
        lambda head: head.update(sites={name: [1] for name in head["sites"]}),
        lambda head: head.update(sites=3),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path: Path, change: Any) -> None:
    network = build(Chain)
    path = tmp_path / "moments.safetensors"
    collect_moments(network, traced(network), [images(4)]).save(path)
    head, tensors = read_with_head(path)
    change(head)
    write_tensors(path, tensors, head)
    with pytest.raises(ArtifactError, match=r"no second moments that can be read.*again"):
        Moments.load(path)


def test_files_without_a_checksum_or_with_another_bit_are_refused(tmp_path: Path) -> None:
    network = build(Chain)
    path = tmp_path / "moments.safetensors"
    collect_moments(network, traced(network), [images(4)]).save(path)
    head, tensors = read_with_head(path)
    content = path.read_bytes()
    for place in (len(content) - 1, content.index(b"images")):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ArtifactError, match="no second moments"):
            Moments.load(path)
    path.write_bytes(safetensors.torch.save(tensors, {"moments": json.dumps(head)}))
    with pytest.raises(ArtifactError, match=r"no second moments.*checksum"):
        Moments.load(path)


def test_bad_data_is_refused() -> None:
    network = build(Chain)
    space = traced(network)
    with pytest.raises(DataError, match="empty"):
        collect_moments(network, space, [])
    broken = images(4)
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        collect_moments(network, space, [broken])
