"""Random small networks out of all supported operations, as hypothesis draws them.

A network is a list of steps. A step reads one or two earlier feature maps (batch, channels, size,
size), owns its layers, and adds one or two new maps; every step says for which maps it is possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

Draw = Callable[[Any], Any]
Shape = tuple[int, int]
Run = Callable[..., Any]


@dataclass
class Plan:
    """What has been drawn so far: the shapes of all maps, and the layers by name."""

    draw: Draw
    shapes: list[Shape]
    layers: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    steps: list[tuple[Run, tuple[int, ...], tuple[str, ...]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # Maps with memory of their own, which steps may write into. The input is the caller's, and
    # torch refuses to write where `chunk` or `split` has handed out several views.
    writable: list[int] = field(default_factory=list)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def map(self, possible: Callable[[Shape], bool] = lambda shape: True) -> int | None:
        """The number of a map, recent ones preferred; None where none is possible."""
        fitting = [i for i, shape in enumerate(self.shapes) if possible(shape)][-4:]
        return self.draw(st.sampled_from(fitting[::-1])) if fitting else None

    def layer(self, module: nn.Module) -> str:
        name = f"{type(module).__name__.lower()}{len(self.layers)}"
        self.layers[name] = module
        return name

    def add(
        self, note: str, run: Run, sources: tuple[int, ...], shapes: list[Shape], *layers: str
    ) -> bool:
        self.notes.append(f"{note} {list(sources)} -> {shapes}")
        self.steps.append((run, sources, layers))
        self.shapes.extend(shapes)
        return True

    def own(self) -> bool:
        """Say that the last map has memory of its own."""
        self.writable.append(len(self.shapes) - 1)
        return True

    def target(self) -> int | None:
        """A map that may be written into, recent ones preferred."""
        return self.draw(st.sampled_from(self.writable[-4:][::-1])) if self.writable else None

    def divisor(self, *numbers: int) -> int:
        common = [d for d in range(1, min(numbers) + 1) if all(n % d == 0 for n in numbers)]
        return self.draw(st.sampled_from(common))


class RandomNetwork(nn.Module):
    """Runs the steps, then a classifier on the last map and a dense output on another one."""

    def __init__(self, plan: Plan, pool: bool, extra: int | None) -> None:
        super().__init__()
        self.steps, self.notes = plan.steps, plan.notes
        self.layers = plan.layers
        channels, size = plan.shapes[-1]
        self.pool = pool
        self.end = nn.Linear(channels if pool else channels * size * size, 3)
        self.extra_source = extra
        self.extra = None if extra is None else nn.Conv2d(plan.shapes[extra][0], 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        maps = [x]
        for run, sources, names in self.steps:
            found = run(*[maps[i] for i in sources], *[self.layers[name] for name in names])
            maps.extend(found if isinstance(found, tuple) else [found])
        last = maps[-1]
        logits = self.end((F.adaptive_avg_pool2d(last, 1) if self.pool else last).flatten(1))
        if self.extra is None:
            return logits
        return {"logits": logits, "dense": self.extra(maps[self.extra_source])}

    def extra_repr(self) -> str:
        return "\n".join(self.notes)


class Scale(nn.Module):
    """One factor a channel, as layer scale and scaled residuals have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma.view(1, -1, 1, 1)


# ------------------------------------------------------------------ steps


def convolution(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]
    out = plan.draw(st.integers(2, 9))
    kernel, stride = plan.pick(1, 3), plan.pick(1, 1, 2)
    groups = plan.divisor(channels, out)
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups)
    if plan.draw(st.booleans()):
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    shape = (out, (size - 1) // stride + 1)
    plan.add(f"conv g{groups}", lambda x, m: m(x), (source,), [shape], plan.layer(conv))
    return plan.own()


def depthwise(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]
    multiplier = plan.pick(1, 1, 2)
    conv = nn.Conv2d(channels, channels * multiplier, 3, 1, 1, groups=channels)
    shape = (channels * multiplier, size)
    plan.add("depthwise", lambda x, m: m(x), (source,), [shape], plan.layer(conv))
    return plan.own()


def transposed(plan: Plan) -> bool:
    source = plan.map(lambda s: s[1] <= 4)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    out = plan.draw(st.integers(2, 6))
    conv = nn.ConvTranspose2d(channels, out, 2, 2, groups=plan.divisor(channels, out))
    return plan.add("transposed", lambda x, m: m(x), (source,), [(out, 2 * size)], plan.layer(conv))


def other_dimensions(plan: Plan) -> bool:
    """A convolution over the pixels in a row, or over a volume of one slice."""
    source = plan.map()
    channels, size = plan.shapes[source]
    out = plan.draw(st.integers(2, 6))
    groups = plan.divisor(channels, out)

    def row(x, m):
        return m(x.flatten(2)).unflatten(2, x.shape[2:])

    def volume(x, m):
        return m(x.unsqueeze(2)).squeeze(2)

    run, conv = plan.pick(
        (row, lambda: nn.Conv1d(channels, out, 3, padding=1, groups=groups)),
        (row, lambda: nn.ConvTranspose1d(channels, out, 3, padding=1, groups=groups)),
        (volume, lambda: nn.Conv3d(channels, out, 3, padding=1, groups=groups)),
        (volume, lambda: nn.ConvTranspose3d(channels, out, 1, groups=groups)),
    )
    layer = plan.layer(conv())
    return plan.add(f"{layer} g{groups}", run, (source,), [(out, size)], layer)


def again(plan: Plan) -> bool:
    """A layer of an earlier step once more, where its sizes allow it."""
    for name, module in reversed(plan.layers.items()):
        if isinstance(module, nn.Conv2d) and module.in_channels == module.out_channels:
            source = plan.map(lambda s, m=module: s[0] == m.in_channels)
            if source is not None and module.stride == (1, 1):
                shape = plan.shapes[source]
                return plan.add("again", lambda x, m: F.relu(m(x)), (source,), [shape], name)
    return False


def normalise(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]
    norm = plan.pick(
        lambda: nn.BatchNorm2d(channels),
        lambda: nn.BatchNorm2d(channels, affine=False),
        lambda: nn.GroupNorm(plan.divisor(channels), channels, affine=plan.pick(True, False)),
        lambda: nn.InstanceNorm2d(channels) if size > 1 else nn.Identity(),
        lambda: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
        lambda: nn.PReLU(channels),
        lambda: Scale(channels),
    )()
    return plan.add(
        type(norm).__name__, lambda x, m: m(x), (source,), [(channels, size)], plan.layer(norm)
    )


def layer_norm(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]

    def run(x, m):
        return m(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    norm = plan.layer(nn.LayerNorm(channels))
    return plan.add("layer norm", run, (source,), [(channels, size)], norm)


def activation(plan: Plan) -> bool:
    source = plan.map()
    function = plan.pick(
        F.relu, F.gelu, F.silu, F.hardswish, torch.tanh, torch.sigmoid, torch.exp, torch.cos
    )
    bounded = lambda x: function(x.clamp(-4, 4))  # noqa: E731 - a step is a function
    plan.add(function.__name__, bounded, (source,), [plan.shapes[source]])
    return plan.own()


def resize(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]
    if size >= 2 and plan.draw(st.booleans()):
        pool = plan.pick(
            lambda x: F.max_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2), lambda x: x[..., ::2, ::2]
        )
        new = size // 2 if size % 2 == 0 else None
        if new is None:
            return False
        return plan.add("pool", pool, (source,), [(channels, new)])
    if size > 4:
        return False
    mode = plan.pick("nearest", "bilinear")
    return plan.add(
        mode,
        lambda x: F.interpolate(x, scale_factor=2, mode=mode),
        (source,),
        [(channels, 2 * size)],
    )


def activate_in_place(plan: Plan) -> bool:
    """An activation that writes over a map, which later steps may read too."""
    target = plan.target()
    if target is None:
        return False
    function = plan.pick(
        nn.ReLU(inplace=True),
        nn.ReLU6(inplace=True),
        F.relu_,
        lambda x: F.hardtanh(x, -0.5, 0.7, inplace=True),
        lambda x: F.leaky_relu(x, 0.2, inplace=True),
        lambda x: x.clamp_(-0.8, 0.8),
        lambda x: x.mul_(0.7),
        torch.tanh_,
    )
    return plan.add("in place", function, (target,), [plan.shapes[target]])


def normalise_in_place(plan: Plan) -> bool:
    """Batch norm with an activation in place behind it, as most networks write it."""
    source = plan.map()
    channels, _ = plan.shapes[source]
    norm = plan.layer(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
    plan.add("norm, relu in place", lambda x, m: m(x), (source,), [plan.shapes[source]], norm)
    return plan.own()


def add_in_place(plan: Plan) -> bool:
    """A sum that is written over its first summand; the result's readers and others' see it."""
    target = plan.target()
    if target is None:
        return False
    shape = plan.shapes[target]
    other = plan.map(lambda s: s == shape)

    def add(a, b):
        a += b
        return a

    def add_and_rectify(a, b):
        a += b
        return F.relu(a, inplace=True)

    run = plan.pick(
        add,
        add_and_rectify,
        lambda a, b: a.add_(b, alpha=0.5),
        lambda a, b: a.sub_(torch.sigmoid(b)),
        lambda a, b: a.mul_(torch.sigmoid(b)),
    )
    return plan.add("add in place", run, (target, other), [shape])


def write_through_a_view(plan: Plan) -> bool:
    """An operator in place on a view: the map and its other views change with it."""
    target = plan.target()
    if target is None:
        return False
    shape = plan.shapes[target]

    def half(x):
        x[:, : (x.shape[1] + 1) // 2].clamp_(-0.6, 0.6)
        return x

    def rows(x):
        before = x.flatten(2)
        x.transpose(2, 3)[:, :, 0].mul_(0.5)
        return before.unflatten(2, x.shape[2:])

    run = plan.pick(
        half,
        rows,
        lambda x: F.relu_(x.flatten(2)).view(x.shape),
        lambda x: x.view(x.shape[0], x.shape[1], -1).tanh_().sum(2)[..., None, None] * 0.1 + x,
    )
    return plan.add("through a view", run, (target,), [shape])


def combine(plan: Plan) -> bool:
    first = plan.map()
    shape = plan.shapes[first]
    second = plan.map(lambda s: s == shape)
    function = plan.pick(
        torch.add,
        torch.sub,
        torch.maximum,
        lambda a, b: a * torch.sigmoid(b),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: torch.stack([a, b], 1).mean(1),
    )
    plan.add("combine", function, (first, second), [shape])
    return plan.own()


def project_and_add(plan: Plan) -> bool:
    """A residual connection with a convolution where the channels differ."""
    first = plan.map()
    channels, size = plan.shapes[first]
    second = plan.map(lambda s: s[1] == size)
    conv = nn.Conv2d(plan.shapes[second][0], channels, 1)
    plan.add(
        "residual", lambda a, b, m: a + m(b), (first, second), [(channels, size)], plan.layer(conv)
    )
    return plan.own()


def concatenate(plan: Plan) -> bool:
    first = plan.map(lambda s: s[0] <= 10)
    if first is None:
        return False
    channels, size = plan.shapes[first]
    second = plan.map(lambda s: s[1] == size and s[0] <= 10)
    shape = (channels + plan.shapes[second][0], size)
    plan.add("cat", lambda a, b: torch.cat([a, b], 1), (first, second), [shape])
    return plan.own()


def pieces(plan: Plan) -> bool:
    source = plan.map(lambda s: s[0] % 2 == 0)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    run = plan.pick(
        lambda x: x.chunk(2, 1),
        lambda x: (x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
        lambda x: torch.split(x, channels // 2, 1),
    )
    plan.writable.clear()
    return plan.add("pieces", run, (source,), [(channels // 2, size)] * 2)


def constant_pieces(plan: Plan) -> bool:
    source = plan.map(lambda s: s[0] >= 3)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    cut = plan.draw(st.integers(1, channels - 1))
    sizes = [cut, channels - cut]
    plan.writable.clear()
    return plan.add(
        f"split {sizes}", lambda x: x.split(sizes, 1), (source,), [(s, size) for s in sizes]
    )


def shuffle(plan: Plan) -> bool:
    source = plan.map(lambda s: s[0] % 2 == 0)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    groups = plan.pick(*[g for g in (2, 3, 4) if channels % g == 0])

    def by_view(x):
        b, c, h, w = x.shape
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)

    run = plan.pick(by_view, lambda x: F.channel_shuffle(x, groups))
    return plan.add(f"shuffle {groups}", run, (source,), [(channels, size)])


def depth_and_space(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]
    if channels % 4 == 0 and size <= 4:
        return plan.add(
            "pixel shuffle", lambda x: F.pixel_shuffle(x, 2), (source,), [(channels // 4, 2 * size)]
        )
    if size % 2 or channels > 5:
        return False

    def by_slices(x):
        return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)

    run = plan.pick(lambda x: F.pixel_unshuffle(x, 2), by_slices)
    return plan.add("to depth", run, (source,), [(4 * channels, size // 2)])


def squeeze(plan: Plan) -> bool:
    source = plan.map()
    channels, size = plan.shapes[source]
    hidden = plan.draw(st.integers(2, 4))

    def run(x, down, up):
        return x * torch.sigmoid(up(F.relu(down(x.mean((2, 3), keepdim=True)))))

    down, up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
    return plan.add("squeeze", run, (source,), [(channels, size)], plan.layer(down), plan.layer(up))


def tokens(plan: Plan) -> bool:
    """A hidden layer on tokens, with a residual connection."""
    source = plan.map()
    channels, size = plan.shapes[source]

    def run(x, up, down):
        b, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        y = y + down(F.gelu(up(y)))
        return y.transpose(1, 2).reshape(b, c, h, w)

    up, down = nn.Linear(channels, 5), nn.Linear(5, channels)
    return plan.add("mlp", run, (source,), [(channels, size)], plan.layer(up), plan.layer(down))


def attention(plan: Plan) -> bool:
    source = plan.map(lambda s: s[1] <= 4)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    heads = plan.pick(1, 2)

    def run(x, q, k, v, o):
        b, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        parts = [m(y).unflatten(-1, (heads, -1)).transpose(1, 2) for m in (q, k, v)]
        out = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        return x + o(out).transpose(1, 2).reshape(b, c, h, w)

    layers = [nn.Linear(channels, 4) for _ in "qkv"] + [nn.Linear(4, channels)]
    return plan.add(
        "attention", run, (source,), [(channels, size)], *[plan.layer(m) for m in layers]
    )


def pad(plan: Plan) -> bool:
    source = plan.map(lambda s: s[0] <= 8)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    before, after = plan.draw(st.integers(0, 2)), plan.draw(st.integers(0, 2))
    run = plan.pick(
        (channels + before + after, lambda x: F.pad(x, (0, 0, 0, 0, before, after))),
        (2 * channels, lambda x: torch.cat([x, torch.zeros_like(x)], 1)),
    )
    return plan.add("pad", run[1], (source,), [(run[0], size)])


def move(plan: Plan) -> bool:
    source = plan.map(lambda s: s[0] <= 8)
    if source is None:
        return False
    channels, size = plan.shapes[source]
    run = plan.pick(
        (1, lambda x: x.flip(1)),
        (2, lambda x: x.repeat(1, 2, 1, 1)),
        (2, lambda x: x.repeat_interleave(2, 1)),
        (1, lambda x: x.transpose(2, 3).contiguous()),
        (1, lambda x: x.roll(1, 2)),
        (1, lambda x: x.roll(1, 1)),
        (1, lambda x: x.view(x.shape[0], channels, -1).view(x.shape)),
        (1, lambda x: x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)),
    )
    return plan.add("move", run[1], (source,), [(run[0] * channels, size)])


def across_channels(plan: Plan) -> bool:
    source = plan.map()
    run = plan.pick(
        lambda x: x.softmax(1),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: F.normalize(x, dim=1),
        lambda x: x * torch.sigmoid(x[:, :1]),
        lambda x: x.cumsum(1),
    )
    return plan.add("across channels", run, (source,), [plan.shapes[source]])


COMMON = (convolution, convolution, depthwise, normalise, activation, combine, project_and_add)
IN_PLACE = (activate_in_place, normalise_in_place, add_in_place, write_through_a_view)
RARE = (
    *(
        transposed,
        other_dimensions,
        again,
        layer_norm,
        resize,
        concatenate,
        pieces,
        constant_pieces,
        shuffle,
    ),
    *(depth_and_space, squeeze, tokens, attention, pad, move, across_channels),
)


@st.composite
def networks(draw: Draw, steps: int = 8, written: int = 0) -> RandomNetwork:
    """A random network for images (batch, 3, 4, 4); it starts with a convolution.

    At least `written` of its steps write in place.
    """
    plan = Plan(draw, [(3, 4)])
    torch.manual_seed(draw(st.integers(0, 99)))
    convolution(plan)
    for _ in range(draw(st.integers(1, steps))):
        draw(st.sampled_from(COMMON + RARE + IN_PLACE))(plan)
    for _ in range(written):
        draw(st.sampled_from(IN_PLACE))(plan)
        draw(st.sampled_from(COMMON))(plan)
    extra = plan.map() if draw(st.booleans()) else None
    return RandomNetwork(plan, pool=draw(st.booleans()), extra=extra).eval()
