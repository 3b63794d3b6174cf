"""Names for extension points: built-in classes, plus those that installed packages register."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from randprune.errors import InvalidInputError, quoted

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> constructor. Entry points of `group` are loaded when a name is first looked up."""

    def __init__(self, noun: str, group: str) -> None:
        self.noun = noun
        self.group = group
        self._constructors: dict[str, Callable[..., T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorator that registers a class or factory.

        Raises:
            ValueError: the name is taken.
        """

        def add(constructor: Callable[..., T]) -> Callable[..., T]:
            if name in self._constructors:
                raise ValueError(f"The {self.noun} {name!r} is registered already.")
            self._constructors[name] = constructor
            return constructor

        return add

    def unregister(self, name: str) -> None:
        """Forget a name, so that it can be registered again: for tests and interactive work."""
        self._constructors.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """All known names, sorted."""
        self._load()
        return tuple(sorted(self._constructors))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def constructor(self, name: str) -> Callable[..., T]:
        """The class or factory called `name`.

        Raises:
            InvalidInputError: unknown name, with close matches; or an entry point that cannot be
                loaded or takes a name that is in use.
        """
        self._load()
        constructor = self._constructors.get(name)
        if constructor is None:
            raise self._unknown(name, self._constructors)
        return constructor

    def check(self, name: str) -> str:
        """`name` itself, if something is called so; imports nothing.

        What an installed package registers is known by its entry point, which need not load.

        Raises:
            InvalidInputError: unknown name, with close matches.
        """
        points = (point.name for point in entry_points(group=self.group))
        known = {*self._constructors, *points}
        if name not in known:
            raise self._unknown(name, known)
        return name

    def is_loaded(self, name: str) -> bool:
        """Whether `name` is known without importing anything."""
        return name in self._constructors

    def _unknown(self, name: object, known: Collection[str]) -> InvalidInputError:
        close = difflib.get_close_matches(str(name), known, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        return InvalidInputError(
            f"No {self.noun} is called {name!r}.{hint} Known: {', '.join(sorted(known))}."
        )

    def create(self, name: str, **options: Any) -> T:
        """The object called `name`, built with `options`.

        Raises:
            InvalidInputError: as `constructor`, or options that do not fit.
        """
        constructor = self.constructor(name)
        try:
            return constructor(**options)
        except TypeError as error:
            raise InvalidInputError(
                f"The {self.noun} {name!r} rejects {options}: {error}"
            ) from error

    def named_or_given(self, value: object, kind: type[Any], parameter: str) -> T:
        """The object called `value`, or `value` itself where it is one.

        Args:
            value: a registered name, or an object.
            kind: the (runtime checkable) protocol that such objects have.
            parameter: what messages call the argument.

        Raises:
            InvalidInputError: an unknown name, a class, or anything else.
        """
        if isinstance(value, str):
            return self.create(value)
        if isinstance(value, type):
            raise InvalidInputError(
                f"The {parameter!r} parameter must be a {self.noun}, not its class. Got the class "
                f"{value.__name__}; make one first: {value.__name__}(...)."
            )
        if not isinstance(value, kind):
            raise InvalidInputError(
                f"The {parameter!r} parameter must be the name of a {self.noun}, or such an "
                f"object. Got {quoted(value)} instead. Known: {', '.join(self.names())}."
            )
        return cast("T", value)

    def _load(self) -> None:
        """Add what installed packages register, once; nothing is added where one of them fails."""
        if self._loaded:
            return
        found: dict[str, Callable[..., T]] = {}
        for point in entry_points(group=self.group):
            owner = f"the package {point.dist.name!r}" if point.dist else "an installed package"
            try:
                constructor = point.load()
            except Exception as error:
                raise InvalidInputError(
                    f"The {self.noun} {point.name!r} of {owner} cannot be loaded from "
                    f"{point.value!r}: {type(error).__name__}: {error}. Repair or uninstall it."
                ) from error
            # A module that is loaded may register its class itself, under the same name.
            taken = found.get(point.name, self._constructors.get(point.name, constructor))
            if taken is not constructor:
                raise InvalidInputError(
                    f"The {self.noun} {point.name!r} of {owner} ({point.value}) has a name that is "
                    f"taken by {taken.__module__}. Rename its entry point in the group "
                    f"{self.group!r}, or uninstall the package."
                )
            found[point.name] = constructor
        self._constructors.update(found)
        self._loaded = True
