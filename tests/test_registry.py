"""Names of plug-ins: registration, errors, entry points of installed packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from torch.fx import Graph

import randprune as rp
from randprune import registry as registry_module
from randprune.graph.rules import registered, rule, rule_for
from randprune.registry import Registry


def make_registry() -> Registry[tuple]:
    found: Registry[tuple] = Registry("colour", "randprune.test_colours")
    found.register("red")(lambda shade=1: ("red", shade))
    found.register("green")(lambda: ("green",))
    return found


def test_creates_by_name_with_options():
    assert make_registry().create("red", shade=3) == ("red", 3)
    assert make_registry().create("green") == ("green",)


def test_lists_names_sorted():
    found = make_registry()
    assert found.names() == ("green", "red")
    assert list(found) == ["green", "red"]
    assert "red" in found
    assert "blue" not in found


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="The colour 'red' is registered already"):
        make_registry().register("red")(tuple)


def test_unknown_name_lists_the_known_and_the_close_ones():
    with pytest.raises(
        rp.InvalidInputError,
        match=r"No colour is called 'grean'\. Did you mean 'green'.*\? Known: green, red",
    ):
        make_registry().create("grean")


def test_options_that_do_not_fit():
    with pytest.raises(rp.InvalidInputError, match=r"The colour 'green' rejects \{'shade': 2\}"):
        make_registry().create("green", shade=2)


def test_installed_packages_add_names(monkeypatch):
    points = [
        EntryPoint("plain", "builtins:dict", "randprune.test_colours"),
        # A built-in name cannot be taken over by a package.
        EntryPoint("red", "builtins:list", "randprune.test_colours"),
    ]
    asked = []

    def entry_points(group):
        asked.append(group)
        return points

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    found = make_registry()
    assert found.names() == ("green", "plain", "red")
    assert found.create("plain") == {}
    assert found.create("red") == ("red", 1)
    assert asked == ["randprune.test_colours"]


class TestRules:
    """Operator rules are a registry too: by operator, duplicates rejected, no default."""

    def test_duplicates_are_rejected(self):
        with pytest.raises(ValueError, match="'conv2d' has a rule already"):
            rule("conv2d")(lambda ctx, node: None)

    def test_families_are_registered(self):
        assert {"conv2d", "batch_norm", "view", "add", "cat", "softmax"} <= set(registered())
        assert list(registered()) == sorted(registered())

    def test_unknown_operators_have_none(self):
        node = Graph().call_function(lambda x: x)
        assert rule_for(node) is None
        assert rule_for(SimpleNamespace(target=object())) is None
