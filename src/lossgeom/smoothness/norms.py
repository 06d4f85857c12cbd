"""The norms of the Jacobians of examples, with their errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.messages.reprs import short

Norm = Literal["spectral", "frobenius"]
Method = Literal["exact", "lanczos", "hutchinson"]
TIE = 1e-12  # relative: eigenvalues of equal matrices differ by where they are in memory
NORMS: tuple[Norm, ...] = ("spectral", "frobenius")
METHODS: dict[Norm, tuple[Method, ...]] = {
    "spectral": ("exact", "lanczos"),
    "frobenius": ("exact", "hutchinson"),
}


@dataclass(frozen=True, eq=False)
class JacobianNorms:
    """One norm for each example.

    Attributes:
        values: in the order of the data, in float64, in units of output per unit of what is
            differentiated in.
        stderr: standard errors of what was sampled, 0 where an example is exact; ``None`` if none
            was.
        converged: which of them meet the tolerance; those that are exact or sampled do.
        method: how they were found; ``"mixed"`` where batches of other shapes called for another.

    >>> values = torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    >>> norms = JacobianNorms(values, None, torch.ones(3, dtype=torch.bool), "exact")
    >>> norms.max, norms.argmax, norms.quantile(0.5)
    (4.0, 1, 2.0)
    """

    values: Float[Tensor, " N"]
    stderr: Float[Tensor, " N"] | None
    converged: Bool[Tensor, " N"]
    method: Method | Literal["mixed"]

    __repr__ = short

    def __len__(self) -> int:
        return len(self.values)

    @property
    def max(self) -> float:
        """The largest norm."""
        return self.values.max().item()

    @property
    def argmax(self) -> int:
        """The example that has the largest, up to rounding the first of them."""
        return int((self.values >= self.values.max() * (1 - TIE)).nonzero()[0])

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return self.values.mean().item()

    def quantile(self, q: float) -> float:
        """The quantile q over the examples, between two of them by linear interpolation."""
        if not 0 <= q <= 1:
            raise ValueError(f"expected a quantile 0 <= q <= 1, got {q}")
        ordered, place = self.values.sort().values, q * (len(self) - 1)
        low = int(place)
        high = min(low + 1, len(self) - 1)
        return torch.lerp(ordered[low], ordered[high], place - low).item()


def joined(batches: Iterable[Iterable[JacobianNorms]]) -> JacobianNorms:
    """Put the norms of all pieces of all batches together, in order."""
    pieces = [piece for batch in batches for piece in batch]
    methods = {piece.method for piece in pieces}
    errors = [p.values * 0 if p.stderr is None else p.stderr for p in pieces]
    sampled = any(piece.stderr is not None for piece in pieces)
    return JacobianNorms(
        torch.cat([piece.values for piece in pieces]),
        torch.cat(errors) if sampled else None,
        torch.cat([piece.converged for piece in pieces]),
        methods.pop() if len(methods) == 1 else "mixed",
    )
