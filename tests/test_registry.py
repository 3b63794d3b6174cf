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


def test_the_constructor_of_a_name():
    found = make_registry()
    assert found.constructor("red")() == ("red", 1)
    with pytest.raises(rp.InvalidInputError, match="No colour is called 'blue'"):
        found.constructor("blue")


def test_a_name_that_is_unregistered_is_free():
    found = make_registry()
    found.unregister("red")
    assert found.names() == ("green",)
    found.register("red")(tuple)
    assert found.create("red") == ()


@pytest.fixture
def install(monkeypatch):
    def put(*points):
        monkeypatch.setattr(
            registry_module,
            "entry_points",
            lambda group: [EntryPoint(name, value, group) for name, value in points],
        )
        return make_registry()

    return put


def test_installed_packages_add_names(install):
    found = install(("plain", "builtins:dict"))
    assert found.names() == ("green", "plain", "red")
    assert found.create("plain") == {}


def test_an_entry_point_may_name_what_its_module_registers_itself(install):
    found = install(("plain", "builtins:dict"))
    found.register("plain")(dict)
    assert found.create("plain") == {}


@pytest.mark.parametrize(
    ("points", "owner"),
    [([("red", "builtins:list")], "test_registry"),
     ([("plain", "builtins:list"), ("plain", "builtins:dict")], "builtins")],
)  # fmt: skip
def test_a_name_that_is_taken_is_refused(install, points, owner):
    found = install(*points)
    name = points[0][0]
    message = rf"The colour '{name}' of an installed package .* name that is taken by {owner}"
    for _ in range(2):
        with pytest.raises(rp.InvalidInputError, match=message):
            found.names()


def test_a_package_that_does_not_load_is_named(install):
    found = install(("broken", "no_such_module:thing"))
    with pytest.raises(rp.InvalidInputError, match="'broken' of an installed package cannot be "
                       "loaded from 'no_such_module:thing': ModuleNotFoundError"):  # fmt: skip
        found.create("red")


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
