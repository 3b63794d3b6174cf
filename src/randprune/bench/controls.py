"""The rows that no comparison goes without: they say what search, widths and criteria are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from randprune.bench.methods import Method, RandomChannels, RandomSearchMethod, UniformWidth
from randprune.bench.records import Setting


@dataclass(frozen=True, slots=True)
class Control:
    """A row that every recipe of a setting has.

    Attributes:
        name: what it is called in messages.
        role: what it is there for.
        fits: whether a method is this control.
        table: what a recipe without it should get; default: an empty table of its name.
    """

    name: str
    role: str
    fits: Callable[[Method], bool]
    table: str = ""


def _candidates(method: Method) -> int:
    return method.candidates if isinstance(method, RandomSearchMethod) else 0


_UNIFORM = Control(
    "uniform", "the control without a search", lambda method: isinstance(method, UniformWidth)
)
_CONTROLS: dict[Setting, tuple[Control, ...]] = {
    "pretrained": (
        Control(
            "random_search",
            "the baseline of random configurations",
            lambda method: _candidates(method) > 0,
        ),
        _UNIFORM,
        Control(
            "random_channels",
            "the control without a criterion",
            lambda method: isinstance(method, RandomChannels),
        ),
    ),
    "scratch": (
        Control(
            "random_search",
            "the baseline of random configurations",
            lambda method: _candidates(method) > 1,
        ),
        _UNIFORM,
        Control(
            "random_configuration",
            "one random configuration without a search",
            lambda method: _candidates(method) == 1,
            'a table [methods.random_configuration] with method = "random_search" and '
            "options = { candidates = 1 }",
        ),
    ),
}


def check_controls(setting: Setting, made: Mapping[str, Method]) -> None:
    """Check that a recipe's methods, by label, have all controls, and fit the setting.

    Raises:
        ValueError: a control is missing, or a method needs a trained network and there is none.
    """
    for label, method in made.items():
        if setting == "scratch" and getattr(method, "needs_trained", False):
            raise ValueError(
                f"[methods.{label}] needs a trained network, to rank channels or to predict "
                "configurations, and from scratch there is none. Leave it out."
            )
    for control in _CONTROLS[setting]:
        if not any(control.fits(method) for method in made.values()):
            table = control.table or f"an empty table [methods.{control.name}]"
            raise ValueError(
                f"a comparison needs a row of {control.name}, {control.role}. Add {table}."
            )
