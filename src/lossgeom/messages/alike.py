"""What several processes must have alike, and what is said where they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

Alike = Mapping[str, object]  # what must be the same on all ranks, by what it is
Part = tuple[str, Tensor | None]  # what tells it from others, and its numbers

ASKED, MEASURED, VECTORS = "what is asked for", "what is measured", "the vectors of a product"
BUFFERS = "buffers and fixed parameters"
IN_ORDER = "all of them ask for the same, in the same order"
HINTS = {
    ASKED: IN_ORDER,
    MEASURED: IN_ORDER,
    VECTORS: "give all of them the same settings, such as k=, seed=, tol= and matvecs=",
    BUFFERS: "the running averages of BatchNorm, which differ between processes in data-parallel "
    "training, are to be sent to all (broadcast) before",
}


class Told(str):
    """A hash of parts, which are told one by one where it is not alike."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class InParts:
    """What has parts, and is told to other ranks as a hash.

    Attributes:
        hash: of all of them.
        each: finds them, by their names.
    """

    hash: str
    each: Callable[[], dict[str, Part]]

    def __reduce__(self) -> tuple[type[Told], tuple[str]]:
        return Told, (self.hash,)


def by_name(parts: dict[str, Part]) -> tuple[Alike, dict[str, str]]:
    """What is told of parts where they are not alike: what tells each from others."""
    return {}, {name: said for name, (said, _) in parts.items()}


@dataclass(frozen=True)
class Unlike:
    """What two ranks do not have alike.

    Attributes:
        what: it is.
        ranks: the two.
        got: what each of them says.
    """

    what: str
    ranks: tuple[int, int]
    got: tuple[object, object]

    def in_words(self, detail: str = "") -> str:
        """What an error says of it, with a detail in place of hashes."""
        (one, other), (first, second) = self.got, self.ranks
        got = detail or f"got {one} on rank {first} and {other} on rank {second}"
        hint = f"; {HINTS[self.what]}" if self.what in HINTS else ""
        return f"expected the processes that share the data to agree in {self.what}, {got}{hint}"

    def parts(self, told: Sequence[Mapping[str, str]]) -> list[str]:
        """The names of parts that are not the same, from what tells each from others."""
        one, other = (told[rank] for rank in self.ranks)
        return [name for name in {**one, **other} if one.get(name) != other.get(name)]

    def detail(
        self, names: Sequence[str], told: Sequence[Mapping[str, str]], parts: Sequence[Any]
    ) -> str:
        """Say which part differs, and by how much as far as numbers of it are known."""
        (first, second), name = self.ranks, names[0]
        more = f" ({len(names)} differ in all)" if len(names) > 1 else ""
        said = [told[rank].get(name, "not there") for rank in self.ranks]
        one, other = (parts[rank] for rank in self.ranks)
        if one is None or other is None or one.shape != other.shape:
            return f"but {name} is {said[0]} on rank {first} and {said[1]} on rank {second}{more}"
        size = float((one.double().cpu() - other.double().cpu()).abs().max())
        by = f"by up to {size:.3g}" if math.isfinite(size) else "in NaN or infinity"
        return f"but {name} differs {by} between ranks {first} and {second}{more}"


def described(function: Any) -> dict[str, object]:
    """What a function is called, with those and the vectors that it is given; alike on all ranks.

    A number tells a block of vectors from others, up to rounding.
    """
    given = [function]
    if isinstance(function, partial):
        given = [function.func, *function.args, *function.keywords.values()]
    said: dict[str, object] = {}
    for part in given:
        if isinstance(part, Tensor):
            size = float(torch.linalg.vector_norm(part, dtype=torch.float64))
            told = float(part.sum(dtype=torch.float64)) / (size or 1.0)
            said[VECTORS] = told if math.isfinite(told) else "not finite"
    names = (named(part) for part in given if callable(part))
    return {MEASURED: " of ".join(names), **said}


def named(function: Any) -> str:
    """The name of a function."""
    if isinstance(function, partial):
        return named(function.func)
    owner = getattr(function, "__self__", None)  # of a method, whose class may be a finer one
    name = getattr(function, "__qualname__", type(function).__name__)
    return str(name) if owner is None else f"{name} of {type(owner).__name__}"


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):  # which may be off by rounding
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-3)
    return one == other


def unlike(told: Sequence[Alike]) -> Unlike | None:
    """Find what ranks that say something do not say alike, which all of them see at once."""
    for what in dict.fromkeys(what for said in told for what in said):
        of = [(rank, said[what]) for rank, said in enumerate(told) if said.get(what) is not None]
        for rank, got in of[1:]:
            first, expected = of[0]
            if not _same(expected, got):
                return Unlike(what, (first, rank), (expected, got))
    return None
