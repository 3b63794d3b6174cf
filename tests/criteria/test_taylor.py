"""Taylor expansion against explicit gates and plain backward passes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from criteria_networks import Chain, Residual, group_of, images, traced

import randprune as rp
from randprune.criteria import passes
from randprune.criteria.taylor import Taylor


def batches(count=7, size=3):
    pictures, labels = images(count)
    return list(zip(pictures.split(size), labels.split(size), strict=True))


def gradients(model, names, data):
    """Per batch the gradients of the mean cross-entropy, by the module's own backward pass."""
    model = copy.deepcopy(model)
    for pictures, labels in data:
        model.zero_grad()
        F.cross_entropy(model(pictures), labels).backward()
        yield [model.get_parameter(name).grad.clone() for name in names]


def test_gates_after_batch_norm_and_whole_filters_elsewhere():
    model, space = traced(Chain)
    scores = rp.score(model, space, "taylor", batches())
    names = ["norm.weight", "two.weight", "two.bias", "three.weight"]
    wanted_one, wanted_two = [0.0] * 5, [0.0] * 4
    scale, filters = model.norm.weight.detach(), model.two.weight.detach()
    for gamma, two, _, _ in gradients(model, names, batches()):
        for j in range(5):
            wanted_one[j] += float(scale[j] * gamma[j]) ** 2
        for j in range(4):
            wanted_two[j] += float((filters[j] * two[j]).sum()) ** 2
    assert scores[group_of(space, "one.weight", 0)[0]].tolist() == pytest.approx(
        wanted_one, rel=1e-4
    )
    assert scores[group_of(space, "two.weight", 0)[0]].tolist() == pytest.approx(
        wanted_two, rel=1e-4
    )


def test_with_beta_the_score_is_the_squared_gradient_by_a_real_gate():
    model, space = traced(Chain)
    number, _ = group_of(space, "one.weight", 0)
    wanted = torch.zeros(5)
    for pictures, labels in batches():
        gate = torch.ones(5, requires_grad=True)
        maps = torch.relu(model.norm(model.one(pictures)) * gate[:, None, None])
        logits = model.three(torch.tanh(model.two(maps)).flatten(1))
        (found,) = torch.autograd.grad(F.cross_entropy(logits, labels), gate)
        wanted += found.square()
    scores = rp.score(model, space, Taylor(beta=True), batches())[number]
    assert torch.allclose(scores.float(), wanted, rtol=1e-4)


def test_coupled_filters_add_up_after_squaring_and_tied_ones_before():
    model, space = traced(Residual)
    number, slot = group_of(space, "one.weight", 0)
    wanted = [0.0] * 3
    for found in gradients(model, ["norm_one.weight", "norm_two.weight"], batches()):
        gammas = (model.norm_one.weight.detach(), model.norm_two.weight.detach())
        for j, places in enumerate(slot.index.tolist()):
            for gamma, gradient in zip(gammas, found, strict=True):
                wanted[j] += sum(float(gamma[p] * gradient[p]) for p in places) ** 2
    scores = rp.score(model, space, "taylor", batches())
    assert scores[number].tolist() == pytest.approx(wanted, rel=1e-4)


def test_first_order_change_of_the_loss():
    """For one batch and a small gate change, sqrt(score) is the slope of the loss."""
    model, space = traced(Chain)
    number, _ = group_of(space, "two.weight", 0)
    pictures, labels = images(8)
    model, pictures = model.double(), pictures.double()
    slope = []
    for j in range(4):
        losses = []
        for step in (-1e-4, 1e-4):
            changed = copy.deepcopy(model)
            with torch.no_grad():
                changed.two.weight[j] *= 1.0 + step
                losses.append(float(F.cross_entropy(changed(pictures), labels)))
        slope.append((losses[1] - losses[0]) / 2e-4)
    space = rp.trace(model, torch.zeros(1, 3, 6, 6, dtype=torch.float64))
    scores = rp.score(model, space, "taylor", [(pictures, labels)])[number]
    assert scores.sqrt().tolist() == pytest.approx([abs(s) for s in slope], rel=1e-5)


def test_batches_in_pieces_give_the_same_gradients(monkeypatch):
    model, space = traced(Residual)
    whole = rp.score(model, space, "taylor", batches())
    monkeypatch.setattr(passes, "KEPT_BYTES", 1)
    for a, b in zip(whole, rp.score(model, space, "taylor", batches()), strict=True):
        assert torch.allclose(a, b, rtol=1e-4)


def test_frozen_parameters_are_gates_too():
    model, space = traced(Chain)
    wanted = rp.score(model, space, "taylor", batches())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for a, b in zip(wanted, rp.score(model, space, "taylor", batches()), strict=True):
        assert torch.equal(a, b)
