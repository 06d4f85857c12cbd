"""What is known of a model, whatever its parameters, and of a point: found once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, cast

from lossgeom.problem.first_look import FirstLook

T = TypeVar("T")
MODE_GIVEN = {"training": None}  # of a first look: there is nothing to say of another mode


class Key(NamedTuple):
    """What is kept: the function that finds it, and all that it depends on besides.

    Attributes:
        found_by: a function or a type; no two find the same.
        of: what the finding depends on, such as names, shapes or settings.
    """

    found_by: Callable[..., Any]
    of: Hashable = ()


@dataclass(frozen=True, eq=False)
class PointCache:
    """Values at one point.

    Attributes:
        notes: on what was seen of the loss there.
    """

    notes: list[str] = field(default_factory=list)
    _values: dict[Hashable, Any] = field(default_factory=dict)

    def value(self, key: Hashable, find: Callable[[], T]) -> T:
        """Find a value, unless it is there."""
        if key not in self._values:
            self._values[key] = find()
        return cast(T, self._values[key])


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What was found out about a model and its loss in one mode, whatever the parameters.

    Attributes:
        first_look: what the first batch shows.
        modes: the facts of every mode, shared by all of them.
    """

    first_look: FirstLook
    modes: dict[Literal["eval", "train"], ModelFacts]
    _known: dict[Hashable, Any] = field(default_factory=dict)

    def known(self, key: Hashable, find: Callable[[], T]) -> T:
        """Find something out, unless it is known."""
        if key not in self._known:
            self._known[key] = find()
        return cast(T, self._known[key])

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    def in_mode(self, mode: Literal["eval", "train"]) -> ModelFacts:
        """The facts of another mode, as far as they are known."""
        if mode not in self.modes:
            self.modes[mode] = ModelFacts(FirstLook(MODE_GIVEN), self.modes)
        return self.modes[mode]

    @classmethod
    def of(cls, mode: Literal["eval", "train"], first_look: FirstLook) -> ModelFacts:
        """Of a model that nothing is known of yet."""
        facts = cls(first_look, {})
        facts.modes[mode] = facts
        return facts
