"""The Kronecker products that are closest to layers' Gauss-Newton blocks, without the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._layers import Layer
from lossgeom.curvature.kronecker import KroneckerFactors, kronecker_factors
from lossgeom.curvature.layer_rows import LayerRows, layer_rows
from lossgeom.estimate import Estimate
from lossgeom.linalg import KroneckerProduct, plain_arithmetic
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class BestKronecker:
    """The Kronecker product that is closest to a layer's block.

    Attributes:
        name: of the layer.
        parameters: names of its weight, and of its bias if it has one.
        matrix: the product, in float64.
        singular_value: of the block's rearrangement, its largest; the norm of the product.
    """

    name: str
    parameters: tuple[str, ...]
    matrix: KroneckerProduct
    singular_value: Estimate

    __repr__ = short


def best_kronecker(
    problem: Problem,
    *,
    bias: bool = False,
    tol: float = 1e-4,
    max_iterations: int = 100,
    memory_budget: int = MEMORY_BUDGET,
) -> tuple[BestKronecker, ...]:
    r"""Find the Kronecker product that is closest to each layer's Gauss-Newton block.

    .. math:: A = \frac1n \sum \mathrm{vec}(G) \mathrm{vec}(G)^\top, \quad
        \min_{L, R} \|A - L \otimes R\|_F^2 = \|A\|_F^2 - \sigma_1^2

    with the largest singular value of the rearrangement of A, an operator between matrices,

    .. math:: \mathcal R(A)\, Y = \frac1n \sum G Y G^\top, \quad
        \mathcal R(A)^\top X = \frac1n \sum G^\top X G,

    found by power iteration. Both maps keep matrices positive semi-definite, and so the largest
    singular value has vectors Y of that kind, of which :math:`\langle I, Y \rangle \ge \|Y\|`. The
    start, the factor of the inputs plus :math:`I / \sqrt n` times its norm, holds at least
    :math:`1 / (2 \sqrt n)` of them. The block is the Hessian's between piecewise linear
    activations; of smooth ones :func:`best_kronecker_product` takes small dense blocks.

    Memory: m^2 + n^2 numbers for each layer, beside gradients and inputs of the examples where they
    fit into the budget; where not, the data is gone over again.

    Cost: that of :func:`kronecker_factors`, and where the rows do not fit that again, twice in each
    of some 10 iterations.

    Args:
        problem: the loss and where to take it.
        bias: whether the bias is joined, as of :func:`kronecker_factors`.
        tol: by how much the factor of the inputs may move in the last iteration, relative to its
            length; the square of it is left in the singular value.
        max_iterations: after which ``singular_value.converged`` says that the factor still moved.
        memory_budget: bytes of rows to keep between iterations; 2 GiB.

    Returns:
        The product of each layer, in the order of the modules. Its distance from the block is
        :math:`\|A\|_F^2 - \sigma^2`, also where it has not converged.

    Raises:
        ValueError: as :func:`kronecker_factors`, and for a tolerance that is not in (0, 1).
        NonFiniteError: where the loss is NaN or infinite.

    Source: Van Loan and Pitsianis, Approximation with Kronecker products (1993).

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.eye(2), torch.zeros(2, 1))])
    >>> (best,) = best_kronecker(problem)
    >>> best.matrix.dense(), f"{best.singular_value.value:.4f}"
    (tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64), '0.7071')
    """
    check_number("tol", tol, 0, 1)
    check_at_least(1, max_iterations=max_iterations)
    check_at_least(0, memory_budget=memory_budget)
    factors = checked_problem(problem).cached(kronecker_factors, bias=bias)
    with plain_arithmetic(problem.theta.device):
        rows = Rows(problem, memory_budget, bias=bias)
        return closest(rows, factors, tol, max_iterations)


def closest(
    rows: Rows, factors: Sequence[KroneckerFactors], tol: float = 1e-4, max_iterations: int = 100
) -> tuple[BestKronecker, ...]:
    """Find the closest products of all layers in the same passes."""
    right = [_start(own.inputs.double()) for own in factors]
    passes = 0
    for _ in range(max_iterations):
        passes += 2
        left = [_unit(X) for X in rows.mean(rearranged, right)]
        products = rows.mean(rearranged_back, left)
        moved = [float((_unit(Z) - Y).norm()) for Z, Y in zip(products, right, strict=True)]
        right = [_unit(Z) for Z in products]
        if max(moved) <= tol:
            break
    found = []
    for own, X, Z, move in zip(factors, left, products, moved, strict=True):
        size = float(Z.norm())
        value = Estimate(size, None, move * size, move <= tol, passes)
        matrix = KroneckerProduct((X + X.T) / 2, (Z + Z.T) / 2)
        found.append(BestKronecker(own.name, own.parameters, matrix, value))
    return tuple(found)


class Rows:
    """The rows of all layers in float64, kept after the first pass where they fit.

    Args:
        problem: whose they are.
        memory_budget: bytes to keep.
        settings: of :func:`layer_rows`.

    Attributes:
        kept: all of this process; ``None`` where those of some process do not fit.
        divisor: what sums are divided by, after a first pass.
    """

    def __init__(self, problem: Problem, memory_budget: int, **settings: Any) -> None:
        self.kept: list[LayerRows] | None = None
        self.divisor = 1.0
        self._problem, self._settings, self._room = problem, settings, memory_budget

    def mean(self, function: Callable[[LayerRows, T], Tensor], given: Sequence[T]) -> list[Tensor]:
        """Average a function of the rows of each layer, and of what is given for it, over terms."""
        totals: list[Any] = [None] * len(given)
        places: dict[Layer, int] = {}

        def take(rows: LayerRows) -> None:
            i = places.setdefault(rows.layer, len(places))
            found = function(rows, given[i])
            totals[i] = found if totals[i] is None else totals[i] + found

        if self.kept is None:
            self._first_pass(take)
        else:
            for rows in self.kept:
                take(rows)
        return [self._problem.ranks.sum(total) / self.divisor for total in totals]

    def _first_pass(self, take: Callable[[LayerRows], None]) -> None:
        kept: list[LayerRows] = []

        def keep(rows: LayerRows) -> None:
            rows = _condensed(rows)
            self._room -= rows.inputs.nbytes + rows.gradients.nbytes
            if self._room >= 0:
                kept.append(rows)
            else:
                kept.clear()
            take(rows)

        terms = layer_rows(self._problem, keep, **self._settings)
        self.divisor = self._problem.reduced(lambda _: [(0.0, terms)])[1]
        self.kept = kept if all(self._problem.ranks.gathered(self._room >= 0)) else None


def rearranged(rows: LayerRows, Y: Float[Tensor, "n n"]) -> Float[Tensor, "m m"]:
    """Sum G Y G^T without G."""
    x, g = rows.inputs, rows.gradients
    weighed: Tensor = (x @ Y @ x.mT) @ g
    return g.flatten(0, 2).T @ weighed.flatten(0, 2)


def rearranged_back(rows: LayerRows, X: Float[Tensor, "m m"]) -> Float[Tensor, "n n"]:
    """Sum G^T X G without G."""
    x, g = rows.inputs, rows.gradients
    weighed: Tensor = (g @ X @ g.mT).sum(0) @ x
    return x.flatten(0, 1).T @ weighed.flatten(0, 1)


def _condensed(rows: LayerRows) -> LayerRows:
    """The same G from at most n positions, in float64."""
    x, g = rows.inputs.double(), rows.gradients.double()
    if x.shape[1] > x.shape[2]:
        g = x.mT @ g
        x = torch.eye(x.shape[2], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    return replace(rows, inputs=x, gradients=g)


def _start(inputs: Float[Tensor, "n n"]) -> Tensor:
    """The factor of the inputs, with a share of every positive semi-definite matrix."""
    n = len(inputs)
    return _unit(_unit(inputs) + torch.eye(n, dtype=inputs.dtype, device=inputs.device) / n**0.5)


def _unit(X: Tensor) -> Tensor:
    norm = X.norm()
    return X / norm if norm else X
