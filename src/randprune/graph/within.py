"""Parts of a network that torch.export cannot trace as a whole, as a network of their own.

One forward pass of the whole network records how the named submodules are called and who reads
what they return. The parts then run one after another in a network that calls them the same way:
where one part alone reads what another returns, their channels shrink together; what the rest of
the network reads, or returns, leaves the parts and keeps its channels. Names of tensors are those
of the whole network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from randprune.errors import InvalidInputError, UnsupportedModelError
from randprune.graph.program import in_mode, private_copy

_PLAIN = (int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


@dataclass(frozen=True, slots=True)
class Input:
    """An argument that comes from outside of the parts: the number of the network's input."""

    number: int


@dataclass(frozen=True, slots=True)
class Result:
    """An argument that an earlier call returned: which call, which leaf of its outputs."""

    call: int
    leaf: int


@dataclass(frozen=True, slots=True)
class PartCall:
    """One call of a part: `leaves` are its flattened arguments; plain values are themselves."""

    name: str
    leaves: tuple[Any, ...]
    spec: TreeSpec

    def __deepcopy__(self, memo: dict[int, Any]) -> PartCall:
        return self  # immutable; torch warns where a tree specification is copied


class PartsNetwork(nn.Module):
    """The parts of a network, called in the recorded order; returns the leaves of all outputs."""

    def __init__(self, model: nn.Module, calls: Sequence[PartCall]) -> None:
        super().__init__()
        self.recorded_calls = tuple(calls)
        for name in dict.fromkeys(call.name for call in calls):
            owner: nn.Module = self
            *path, leaf = name.split(".")
            for step in path:
                if step not in owner._modules:
                    owner.add_module(step, nn.Module())
                owner = owner.get_submodule(step)
            owner.add_module(leaf, model.get_submodule(name))

    def forward(self, *inputs: Any) -> list[Any]:
        """The leaves of every call's outputs, one call after another."""
        results: list[list[Any]] = []
        for call in self.recorded_calls:
            given = [_resolved(leaf, inputs, results) for leaf in call.leaves]
            args, kwargs = tree_unflatten(given, call.spec)
            results.append(tree_leaves(self.get_submodule(call.name)(*args, **kwargs)))
        return [leaf for leaves in results for leaf in leaves]


def _resolved(leaf: Any, inputs: Sequence[Any], results: Sequence[Sequence[Any]]) -> Any:
    if isinstance(leaf, Input):
        return inputs[leaf.number]
    return results[leaf.call][leaf.leaf] if isinstance(leaf, Result) else leaf


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Named submodules of a network, ready to be traced.

    Attributes:
        network: they alone; its tensors are the model's own.
        inputs: what they were given, from outside of the parts.
        leaving: for every leaf that the network returns why its channels stay; None: they may go.
        held: name of a tensor -> why it stays as it is, where the rest of the network has it too.
    """

    network: PartsNetwork
    inputs: tuple[torch.Tensor, ...]
    leaving: tuple[str | None, ...]
    held: dict[str, str]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of the leaves that leave the parts."""
        return tuple(i for i, reason in enumerate(self.leaving) if reason is not None)

    def of(self, model: nn.Module) -> PartsNetwork:
        """The same parts of another network, such as the cut one."""
        return PartsNetwork(model, self.network.recorded_calls)


def parts_of(model: nn.Module, inputs: tuple[Any, ...], names: Sequence[str]) -> Parts:
    """The named submodules of `model` as one forward pass on `inputs` calls them.

    Raises:
        InvalidInputError: a name that matches no submodule or lies in another one, a part that the
            forward pass does not call, or a network that does not run on these inputs.
        UnsupportedModelError: a part takes or returns objects whose tensors cannot be followed.
    """
    _check_names(model, names)
    record = _Recorder(in_mode(private_copy(model)), names)
    outputs = record.run(inputs)
    silent = [name for name in names if name not in {call.name for call in record.calls}]
    if silent:
        raise InvalidInputError(
            f"The forward pass of {type(model).__name__} does not call {silent[0]!r} as a module. "
            "Name submodules that it calls, such as those that lie in it."
        )
    for leaf in tree_leaves(outputs):
        if id(leaf) in record.results:
            record.readers[record.results[id(leaf)]] = "it defines the network's output"
    held = dict(record.held)
    for name, other in _shared_with_rest(model, names):
        held[name] = f"shared with {other}, which lies outside of {_listed(names)}"
    leaving = tuple(
        record.readers.get(result, f"returned by {call.name}, and nothing seen reads it")
        for number, call in enumerate(record.calls)
        for result in (Result(number, leaf) for leaf in range(record.leaves[number]))
    )
    return Parts(PartsNetwork(model, record.calls), tuple(record.inputs), leaving, held)


def _check_names(model: nn.Module, names: Sequence[str]) -> None:
    known = {name for name, _ in model.named_modules() if name}
    for name in names:
        if name not in known:
            few = ", ".join(sorted(n for n in known if "." not in n)[:6])
            raise InvalidInputError(
                f"The 'within' parameter of trace must name submodules. {type(model).__name__} has "
                f"no {name!r}; it has {few}."
            )
        around = [other for other in names if name.startswith(f"{other}.")]
        if around or names.count(name) > 1:
            raise InvalidInputError(
                f"The 'within' parameter of trace names {name!r} twice: it lies in "
                f"{around[0] if around else name!r}. Name each part once."
            )


def _shared_with_rest(model: nn.Module, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name in a part, name outside) of every tensor that both have."""

    def inside(tensor: str) -> bool:
        return any(tensor.startswith(f"{name}.") for name in names)

    every = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    rest = {id(tensor): name for name, tensor in every if not inside(name)}
    yield from ((n, rest[id(t)]) for n, t in every if inside(n) and id(t) in rest)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """One forward pass: how the parts are called, and what else touches their tensors."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.names = model, names
        self.calls: list[PartCall] = []
        self.inputs: list[torch.Tensor] = []
        self.leaves: dict[int, int] = {}
        self.results: dict[int, Result] = {}
        self.readers: dict[Result, str | None] = {}
        self.held: dict[str, str] = {}
        self._number_of: dict[int, int] = {}
        self._alive: list[Any] = []  # an id stays that tensor's only while it lives
        self._inside = 0
        self._tensors = {
            id(tensor): f"{name}.{inner}"
            for name in names
            for inner, tensor in _own_tensors(model.get_submodule(name))
        }

    def run(self, inputs: tuple[Any, ...]) -> Any:
        """The outputs of the whole network."""
        hooks = []
        for name in self.names:
            part = self.model.get_submodule(name)
            hooks.append(part.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            hooks.append(part.register_forward_hook(self._leave(name)))
        try:
            with torch.no_grad(), self:
                return self.model(*inputs)
        except (InvalidInputError, UnsupportedModelError):
            raise
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise InvalidInputError(
                f"{type(self.model).__name__} does not run on the example inputs: {first}. Give "
                "inputs as the network's forward takes them."
            ) from error
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator; outside of the parts note which of their tensors it reads."""
        if not self._inside:
            for leaf in tree_leaves((args, kwargs)):
                found = self.results.get(id(leaf))
                if found is not None:
                    part = self.calls[found.call].name
                    operator = str(func).removeprefix("aten.").partition(".")[0]
                    self.readers[found] = f"leaves {part} and is read outside of it ({operator})"
                name = self._tensors.get(id(leaf))
                if name is not None:
                    self.held[name] = f"read outside of {_listed(self.names)}"
        return func(*args, **(kwargs or {}))

    def _enter(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._inside += 1
            flat, spec = tree_flatten((args, kwargs))
            leaves = tuple(self._argument(name, leaf) for leaf in flat)
            self.calls.append(PartCall(name, leaves, spec))

        return hook

    def _leave(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, outputs: Any) -> None:
            self._inside -= 1
            number = max(i for i, call in enumerate(self.calls) if call.name == name)
            flat = tree_leaves(outputs)
            self.leaves[number] = len(flat)
            for place, leaf in enumerate(flat):
                _check_leaf(leaf, name, "returns")
                if isinstance(leaf, torch.Tensor):
                    self._alive.append(leaf)
                    # A part may hand its input on as it came: then both names are one tensor.
                    self.results.setdefault(id(leaf), Result(number, place))

        return hook

    def _argument(self, name: str, leaf: Any) -> Any:
        _check_leaf(leaf, name, "takes")
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in self.results:
            found = self.results[id(leaf)]
            self.readers.setdefault(found, None)
            return found
        if id(leaf) not in self._number_of:
            self._alive.append(leaf)
            self._number_of[id(leaf)] = len(self.inputs)
            self.inputs.append(leaf.detach().clone())
        return Input(self._number_of[id(leaf)])


def _own_tensors(part: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from part.named_parameters()
    yield from part.named_buffers()


def _check_leaf(leaf: Any, name: str, does: str) -> None:
    if leaf is not None and not isinstance(leaf, (torch.Tensor, *_PLAIN)):
        raise UnsupportedModelError(
            f"The part {name!r} {does} a {type(leaf).__name__}, in which tensors cannot be "
            "followed. Name the submodules inside it that take and return tensors."
        )
