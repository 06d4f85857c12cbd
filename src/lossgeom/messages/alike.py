"""What several processes must have alike, and what is said where they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Alike = Mapping[str, object]  # what must be the same on all ranks, by what it is


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
            said["the vectors"] = told if math.isfinite(told) else "not finite"
    names = (named(part) for part in given if callable(part))
    return {"what is measured": " of ".join(names), **said}


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


def check_alike(told: Sequence[Alike]) -> None:
    """Raise where ranks that say something do not say the same, which all of them see at once."""
    for what in dict.fromkeys(what for said in told for what in said):
        of = [(rank, said[what]) for rank, said in enumerate(told) if said.get(what) is not None]
        for rank, got in of[1:]:
            first, expected = of[0]
            if not _same(expected, got):
                raise ValueError(
                    f"expected the processes that share the data to agree in {what}, got "
                    f"{expected} on rank {first} and {got} on rank {rank}"
                )
