"""Which norm of Jacobians is searched for, how, and how accurately."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lossgeom.autodiff.linearized import Linearized
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.wording import one_of
from lossgeom.smoothness import _matrix_free, exact
from lossgeom.smoothness.norms import METHODS, NORMS, JacobianNorms, Method, Norm

FEW_OUTPUTS = 32  # from which on a few products cost less than all rows
ROWS_BYTES = 2**30  # of the rows of one example, which a Gram matrix is made from


@dataclass(frozen=True, eq=False)
class Search:
    """Settings of the norms to find, with what belongs to one pass over the data.

    Attributes:
        seen: the method for examples of some shapes, and the bytes that it holds for each.
    """

    norm: Norm = "spectral"
    method: Method | None = None
    tol: float = 1e-3
    max_steps: int = 100
    probes: int = 30
    seed: int = 0
    seen: dict[tuple[torch.Size, ...], tuple[Method, float]] = field(default_factory=dict)
    _generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"expected norm to be one of {one_of(NORMS)}, got {self.norm!r}")
        methods = METHODS[self.norm]
        if self.method is not None and self.method not in methods:
            raise ValueError(
                f"expected the method of a {self.norm} norm to be one of {one_of(methods)}, or "
                f"None for the cheaper one; got {self.method!r}"
            )
        if not 0 < self.tol < 1:
            raise ValueError(f"expected a tolerance 0 < tol < 1, got {self.tol}")
        check_at_least(0, seed=self.seed)
        check_at_least(1, max_steps=self.max_steps)
        check_at_least(2, probes=self.probes)
        object.__setattr__(self, "_generator", random_numbers(self.seed))

    def choice(self, point: Linearized) -> Method:
        """The method that was asked for, or the cheaper one."""
        if self.method is not None:
            return self.method
        if self.norm == "frobenius":
            return "exact" if max(FEW_OUTPUTS, self.probes) >= point.C else "hutchinson"
        held = point.C * point.D * point.outputs.element_size()
        return "lanczos" if point.C > FEW_OUTPUTS or held > ROWS_BYTES else "exact"

    def numbers(self, point: Linearized, method: Method) -> int:
        """How many numbers are held for an example, beside its graph."""
        n = min(point.C, point.D)
        if method == "lanczos":
            return 2 * n * min(self.max_steps, n)  # a basis and its image
        if method == "hutchinson":
            return point.D
        if self.norm == "frobenius":
            return min(point.C, exact.ROWS) * point.D
        return point.C * point.D + 4 * n**2  # a Gram matrix in float64, and again in its solver

    def of(self, point: Linearized, method: Method) -> JacobianNorms:
        """Find the norms of some examples, which come in the order of the data."""
        if method == "lanczos":
            n = min(point.C, point.D)  # the start is the same for all examples
            start = torch.randn(n, generator=random_numbers(self.seed), dtype=torch.float64)
            return _matrix_free.lanczos(point, start, self.tol, self.max_steps)
        if method == "hutchinson":
            shape = (len(point), self.probes, point.C)
            signs = torch.randint(2, shape, generator=self._generator, dtype=torch.int8)
            return _matrix_free.hutchinson(point, signs.mul_(2).sub_(1))
        values = exact.spectral(point) if self.norm == "spectral" else exact.frobenius(point)
        return JacobianNorms(values, None, torch.ones_like(values, dtype=torch.bool), "exact")
