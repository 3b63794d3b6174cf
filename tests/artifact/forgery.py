"""Forged artefacts: files whose header says anything, under a checksum that is right.

`signed` writes a header with valid fingerprints and digest, as a stranger could. `mutated` draws
changes of a sound header; `outcome` says how loading the result ends.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from torch import nn

import randprune as rp
from randprune.lineage import named_tensors
from randprune.space import ChannelGroup, Space, _slot_from_json
from randprune.zoo.models import build_model

Header = dict[str, Any]
Tensors = dict[str, torch.Tensor]


class Tied(nn.Module):
    """One convolution under two names, a norm without tensors, no bias here and there."""

    def __init__(self, shared: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.bare = nn.GroupNorm(8, 8, affine=False)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = self.a if shared else nn.Conv2d(8, 8, 3, padding=1)
        self.wise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.bare(torch.relu(self.norm(self.stem(images))))
        hidden = self.wise(self.b(torch.relu(self.a(hidden))))
        return self.head(torch.relu(hidden).mean((2, 3)))


def plain() -> nn.Module:
    """The same with two convolutions."""
    return Tied(shared=False)


class Literal(nn.Module):
    """A forward with constants: cut only in its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(images)).view(-1, 4 * 4))


@dataclass(frozen=True)
class Sound:
    """A file that loads: its header and tensors, what `load` needs besides, and its outputs."""

    header: Header
    tensors: Tensors
    model: Callable[[], nn.Module] | None
    images: torch.Tensor
    outputs: torch.Tensor


def every_second(space: Space) -> rp.Selection:
    kept = tuple(np.arange(0, width, 2) for width in space.widths.tolist())
    return rp.Selection(kept, space.fingerprint)


def read(path: Path) -> tuple[Header, Tensors]:
    """Header, without its digest, and tensors of a file."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    document = json.loads(content[8 : 8 + size])["__metadata__"]["randprune"]
    header = json.loads(document)
    del header["digest"]
    return header, safetensors.torch.load(content)


def signed(path: Path, header: Header, tensors: Tensors) -> Path:
    """The file of this header, its fingerprints and its digest computed anew where possible."""
    header = copy.deepcopy(header)
    try:
        for step in header["cuts"]:
            for key in {"space", "wide"} & step.keys():
                step[key]["fingerprint"] = _fingerprint(step[key])
            if "selection" in step:
                step["selection"]["fingerprint"] = step["space"]["fingerprint"]
        if header["cuts"]:
            header["fingerprint"] = header["cuts"][0]["space"]["fingerprint"]
    except Exception:  # the forged part is no space: leave it as it is
        pass
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    document = json.dumps({**header, "digest": digest.hexdigest()})
    path.write_bytes(safetensors.torch.save(tensors, {"randprune": document}))
    return path


def _fingerprint(space: Header) -> str:
    places = sum(run[2] for g in space["groups"] for slot in g["slots"] for run in slot["index"])
    if places > 100_000:
        raise ValueError("too many to be made here")
    groups = tuple(
        ChannelGroup(
            g["name"], g["width"], tuple(_slot_from_json(s, g["width"]) for s in g["slots"])
        )
        for g in space["groups"]
    )
    return Space(groups, (), {}).fingerprint


@functools.cache
def sound_files(folder: Path) -> dict[str, Sound]:
    """One file of each kind: named, cut twice (odd tensors), cut in the graph, widened, dense."""
    torch.manual_seed(1)
    found = {}

    def keep(
        kind: str,
        network: nn.Module,
        images: torch.Tensor,
        architecture: Any = None,
        **options: Any,
    ) -> None:
        path = rp.save(network, folder / f"{kind}.safetensors", **options)
        with torch.no_grad():
            outputs = network.eval()(images)
        found[kind] = Sound(*read(path), architecture, images, outputs)

    digits = torch.rand(2, 1, 8, 8)
    network = build_model("randprune:digits_cnn", num_classes=4).eval()
    space = rp.trace(network, digits)
    small = rp.cut(network, space, every_second(space))
    options = {"num_classes": 4}
    keep("named", small, digits, model="randprune:digits_cnn", options=options)

    images = torch.rand(2, 3, 6, 6)
    network = Tied().eval()
    space = rp.trace(network, images)
    once = rp.cut(network, space, every_second(space))
    once.stem.bias = nn.Parameter(torch.rand(once.stem.out_channels))
    space = rp.trace(once, images)
    twice = rp.cut(once, space, every_second(space)).to(memory_format=torch.channels_last)
    twice.head.register_parameter("scale", nn.Parameter(torch.rand(3)))
    keep("twice", twice, images, Tied)

    network = Literal().eval()
    space = rp.trace(network, images, as_graph=True)
    keep("graph", rp.cut(network, space, every_second(space)), images, Literal)

    network = plain().eval()
    wide = rp.widen(network, rp.trace(network, images), 1.5)
    space = rp.widening_of(wide).wide
    keep("widened", rp.cut(wide, space, every_second(space)), images, plain)

    keep("dense", network, images, plain)
    return found


# ------------------------------------------------------------------ mutations

VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "training", "forward", "first.weight", "\x1b[2J", "os:system"),
    *(0, 1, -1, 2, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, float("nan"), float("inf")),
    *([], {}, [0], [1, 2, 3], [[0, 1, 2**40]], {"a": 1}, [[]], [None]),
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a document, itself left out."""
    if not isinstance(value, dict | list):
        return []
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, child in inside:
        found += [(*here, key), *places(child, (*here, key))]
    return found


@st.composite
def mutated(draw: Callable[[Any], Any], header: Header) -> Header:
    """The header with one to three changes anywhere."""
    header = copy.deepcopy(header)
    for _ in range(draw(st.integers(1, 3))):
        # A part first, so that the long lists of places do not get all of the attention.
        top = draw(st.sampled_from(sorted(header)))
        paths = [(top,), *places(header[top], (top,))]
        path = paths[draw(st.integers(0, len(paths) - 1))]
        owner = functools.reduce(lambda value, key: value[key], path[:-1], header)
        _change(draw, header, owner, path[-1])
        if not header:
            break
    return header


def _change(draw: Callable[[Any], Any], header: Header, owner: Any, key: Any) -> None:
    old = owner[key]
    way = draw(st.sampled_from(("replace", "delete", "near", "copy", "extend", "rename")))
    if way == "delete":
        del owner[key]
    elif way == "near" and type(old) is int:
        owner[key] = old + draw(st.sampled_from((-2, -1, 1, 2, 1000)))
    elif way == "near" and isinstance(old, str):
        owner[key] = draw(st.sampled_from((old + "x", old[:-1], old.upper(), f"a.{old}")))
    elif way == "copy":
        paths = places(header)
        path = paths[draw(st.integers(0, len(paths) - 1))]
        other = functools.reduce(lambda value, step: value[step], path, header)
        owner[key] = copy.deepcopy(other)
    elif way == "extend" and isinstance(old, list):
        old.append(copy.deepcopy(old[-1]) if old else 0)
    elif way == "extend" and isinstance(old, dict):
        new = draw(st.sampled_from(("forward", "", "training", "a.b", "weights")))
        old[new] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    elif way == "rename" and isinstance(owner, dict):
        del owner[key]
        owner[draw(st.sampled_from(("forward", "", "stem.bias", "head.weight", "x")))] = old
    else:
        owner[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))


def outcome(path: Path, sound: Sound, header: Header) -> str:
    """How loading ends: "refused" or "equal network"; raises where it is neither.

    Equal: the tensors that the file holds under the names that it gives them, in a network whose
    outputs are those of the sound file's (unless the file ties tensors in another way).
    """
    message = ""
    try:
        network = rp.load(path, sound.model)
    except rp.ArtifactError as error:
        message = str(error)
    if message:
        assert "\x1b" not in message, "an escape sequence reaches the terminal"
        return "refused"
    aliases = header["aliases"]
    expected = {**sound.tensors, **{name: sound.tensors[old] for name, old in aliases.items()}}
    got = named_tensors(network)
    assert got.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in got.items())
    with torch.no_grad():
        outputs = network(sound.images)
    assert outputs.shape == sound.outputs.shape
    if aliases == sound.header["aliases"]:
        torch.testing.assert_close(outputs, sound.outputs)
    assert not network.training
    return "equal network"
