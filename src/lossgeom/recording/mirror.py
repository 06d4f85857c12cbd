"""Where else the rows of a record go while they are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Mirror(Protocol):
    """Writes rows of a record elsewhere, such as into TensorBoard.

    The record stays the truth: what a mirror does not get, for an error or a network that is
    down, is in it.
    """

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row: ``step``, ``metric``, ``value``, which may be NaN, and what it has more.

        At each step, a row for each metric, one after the other.
        """

    def close(self) -> None:
        """Write what is left, and let go of what this has opened itself."""


class Mirrors:
    """The mirrors of a record. One that fails is left out from then on, with a warning."""

    def __init__(self) -> None:
        self._open: list[Mirror] = []

    def add(self, mirrors: Iterable[Mirror]) -> None:
        """Write to more mirrors from now on; those that are here already get each row once."""
        self._open += [mirror for mirror in mirrors if mirror not in self._open]

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row to each."""
        self._each(lambda mirror: mirror.write(row))

    def close(self) -> None:
        """Close each."""
        self._each(lambda mirror: mirror.close())
        self._open = []

    def _each(self, ask: Callable[[Mirror], None]) -> None:
        for mirror in list(self._open):
            try:
                ask(mirror)
            except Exception as error:
                self._open.remove(mirror)
                warnings.warn(
                    f"{type(mirror).__name__} gets no more rows ({type(error).__name__}: {error}); "
                    "they are in the record, from which lossgeom mirror writes them later",
                    stacklevel=2,
                )


def checked_mirrors(mirrors: Sequence[Mirror]) -> tuple[Mirror, ...]:
    """Mirrors, or an error for anything else.

    Raises:
        TypeError: for something that is no mirror.
    """
    if not isinstance(mirrors, Iterable):
        raise TypeError(f"expected a list of mirrors, got {mirrors!r}; put it into []")
    for mirror in mirrors:
        if isinstance(mirror, type) or not isinstance(mirror, Mirror):
            made = "; add () to make one" if isinstance(mirror, type) else ""
            raise TypeError(f"expected mirrors such as mirrors.Console(), got {mirror!r}{made}")
    return tuple(mirrors)
