"""Linear systems with a positive definite matrix by conjugate gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.linalg.arithmetic import plain_arithmetic
from lossgeom.linalg.operator import (
    ASYMMETRY,
    LinearOperator,
    as_operator,
    check_symmetric,
    square_operator,
)
from lossgeom.linalg.probes import dots, multiply
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short

REFRESHES = 3  # times that a recurrence may start again from the true residual


@dataclass(frozen=True)
class Solution:
    """The solution of a linear system, with its true residual.

    Attributes:
        x: the solution, in the shape of the right-hand side.
        residuals: at least ``||b - (A + damping I) x||`` of each column: that of a product with x
            itself, and what rounding may hide.
        converged: which columns meet the tolerance.
        negative_curvature: columns where a direction d with ``d.(A + damping I) d <= 0`` was met.
            The iteration stops there: x is the last point before it, and no solution.
        directions: these directions, of unit length; zero for the other columns.
        matvecs: matrix-vector products spent, of the columns that were still going.
    """

    x: Tensor
    residuals: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    negative_curvature: Bool[Tensor, " k"]
    directions: Tensor
    matvecs: int

    __repr__ = short


def conjugate_gradients(
    A: LinearOperator | Tensor | Any,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    damping: float = 0.0,
    preconditioner: LinearOperator | Tensor | Any | None = None,
    tol: float = 1e-5,
    max_matvecs: int = 1000,
) -> Solution:
    r"""Solve (A + damping I) x = b for a symmetric positive definite matrix.

    Columns of b are solved side by side, with one product with a block for each step; every column
    has its own recurrence, in float64, and leaves the block when it is done. A column is done when
    its residual, computed anew from x, is within the tolerance; where the recurrence says so and
    the product does not, it starts again from there, three times at most.

    For a matrix that is not positive definite this method has no meaning; where it meets a
    direction of negative curvature it stops and hands the direction back. It need not meet one.

    Cost: one product for each column and step, about as many steps as the root of the condition
    number times log(2 / tol) / 2, and two at the ends; memory 5 n k numbers in float64.

    Args:
        A: symmetric n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        b: (n,) or (n, k) right-hand sides.
        x0: where to start, in the shape of b; zero by default.
        damping: added to the diagonal of A; at least 0.
        preconditioner: symmetric positive definite matrix close to the inverse of A + damping I.
        tol: between 0 and 1, of the residual relative to the length of b. In float32 about 1e-7
            times the condition number is all there is to have.
        max_matvecs: products to spend at most for each column, and one more to check.

    Returns:
        The solution; NaN and not converged where products are not finite.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square or not symmetric, shapes do not fit, b or x0 is not finite,
            damping is negative, tol is not in (0, 1), or max_matvecs is not positive.

    Source: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems (1952).

    >>> conjugate_gradients(torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 2.0])).x
    tensor([1.0000, 0.5000])
    """
    A = square_operator(A)
    check_at_least(1, max_matvecs=max_matvecs)
    T = None if preconditioner is None else as_operator(preconditioner)
    _check(A, b, x0, damping, T, tol)
    with plain_arithmetic(A.device), torch.no_grad():
        B = b.reshape(len(b), -1).to(A.device, torch.float64)
        X = torch.zeros_like(B) if x0 is None else x0.reshape(B.shape).to(B)
        return _Columns(A, T, damping, B, X, tol, max_matvecs).solution(b.shape)


def _check(
    A: LinearOperator,
    b: Tensor,
    x0: Tensor | None,
    damping: float,
    preconditioner: LinearOperator | None,
    tol: float,
) -> None:
    n = A.shape[0]
    if b.ndim not in (1, 2) or b.shape[0] != n or b.numel() == 0:
        raise ValueError(f"expected b of shape ({n},) or ({n}, k), got {tuple(b.shape)}")
    if x0 is not None and x0.shape != b.shape:
        raise ValueError(f"expected x0 of shape {tuple(b.shape)}, got {tuple(x0.shape)}")
    if not b.isfinite().all() or not (x0 is None or x0.isfinite().all()):
        raise ValueError("expected finite b and x0, got NaN or infinity")
    if not 0 <= damping < math.inf:
        raise ValueError(f"expected damping >= 0, got {damping}")
    if preconditioner is not None and preconditioner.shape != A.shape:
        raise ValueError(
            f"expected a preconditioner of shape {A.shape}, got {preconditioner.shape}"
        )
    if not 0 < tol < 1:
        raise ValueError(f"expected a tolerance 0 < tol < 1, got {tol}")


def _apply(A: LinearOperator, V: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """A V in float64, with columns scaled to a length at which none vanishes or overflows in A."""
    sizes = torch.ldexp(torch.ones_like(V[0]), torch.frexp(V.norm(dim=0)).exponent)
    return multiply(A, (V / sizes).to(A.dtype)).to(V) * sizes


@dataclass
class _Columns:
    """Columns that are solved side by side, in float64."""

    A: LinearOperator
    preconditioner: LinearOperator | None
    damping: float
    B: Float[Tensor, "n k"]
    X: Float[Tensor, "n k"]
    tol: float
    limit: int

    def __post_init__(self) -> None:
        self.goal = self.tol * self.B.norm(dim=0)
        self.spent = torch.zeros(self.B.shape[1], dtype=torch.long, device=self.B.device)
        self.norm = 0.0  # of A, as far as it has been seen
        self.negative = self.spent > 0
        self.directions = torch.zeros_like(self.B)

    def solution(self, shape: torch.Size) -> Solution:
        """Iterate, and again from the true residual where the recurrence has strayed from it."""
        R = self.B.clone()
        if self.X.any():
            self._refresh(R, torch.ones_like(self.negative))
        for _ in range(1 + REFRESHES):
            over = R.norm(dim=0) + self._hidden() > self.goal
            going = over & ~self.negative & (self.spent < self.limit)
            if not going.any():
                break
            self._iterate(R, going)
            self._refresh(R, going)
        sizes, dtype = R.norm(dim=0) + self._hidden(), self.A.dtype
        return Solution(
            x=self.X.to(dtype).reshape(shape),
            residuals=sizes.to(dtype),
            converged=(sizes <= self.goal) & ~self.negative,
            negative_curvature=self.negative,
            directions=self.directions.to(dtype).reshape(shape),
            matvecs=int(self.spent.sum()),
        )

    def _iterate(self, R: Float[Tensor, "n k"], going: Bool[Tensor, " k"]) -> None:
        """Conjugate gradients from residuals R, of columns that are going."""
        Z = self._preconditioned(R)
        P, rho = Z.clone(), dots(R, Z)
        before: tuple[Tensor, Tensor] | None = None
        while going.any():
            image = torch.zeros_like(P)
            image[:, going] = self._product(P[:, going], going)
            before = self._check_symmetric(before, P, image)
            curvature = dots(P, image)
            self._turn(P, going & (curvature <= 0))
            going = going & ~self.negative
            step = torch.where(going, rho / curvature, 0)
            self.X += step * P
            R = R - step * image
            aim = torch.maximum(self.goal - self._hidden(), self.goal / 2)
            going = going & (R.norm(dim=0) > aim) & (self.spent < self.limit)
            Z = self._preconditioned(R)
            rho, last = dots(R, Z), rho
            P = torch.where(going, Z + rho / last * P, 0)

    def _product(self, V: Float[Tensor, "n j"], going: Bool[Tensor, " k"]) -> Float[Tensor, "n j"]:
        self.spent += going
        image = _apply(self.A, V)
        stretch = (image.norm(dim=0) / V.norm(dim=0)).nan_to_num(0)
        self.norm = max(self.norm, stretch.max().item())
        return image + self.damping * V

    def _hidden(self) -> Float[Tensor, " k"]:
        """What rounding of the product with x may hide of a residual."""
        eps = torch.finfo(self.A.dtype).eps
        hidden: Tensor = eps * (self.norm + self.damping) * self.X.norm(dim=0)
        return hidden

    def _refresh(self, R: Float[Tensor, "n k"], going: Bool[Tensor, " k"]) -> None:
        """The true residuals of what is handed back, in the type of A."""
        self.X = self.X.to(self.A.dtype).double()
        R[:, going] = self.B[:, going] - self._product(self.X[:, going], going)

    def _preconditioned(self, R: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        if self.preconditioner is None:
            return R
        return _apply(self.preconditioner, R)

    def _turn(self, P: Float[Tensor, "n k"], found: Bool[Tensor, " k"]) -> None:
        """Keep directions of negative curvature."""
        self.negative = self.negative | found
        self.directions += torch.where(found, P / P.norm(dim=0).clamp(min=1e-300), 0)

    def _check_symmetric(
        self, before: tuple[Tensor, Tensor] | None, P: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compare p.(A q) with q.(A p) for the first two directions."""
        if before is None and self.A.T is not self.A:
            return P, image
        if before is not None and len(before[0]):
            tolerance = ASYMMETRY * before[1].norm(dim=0) * P.norm(dim=0)
            check_symmetric(dots(before[0], image), dots(before[1], P), tolerance)
        return P[:0], image[:0]
