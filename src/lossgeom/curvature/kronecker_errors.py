"""How far Kronecker products are from layers' Gauss-Newton blocks, beside the closest one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._block_norms import block_norms
from lossgeom.curvature.best_kronecker import (
    BestKronecker,
    Rows,
    closest,
    rearranged,
    rearranged_back,
)
from lossgeom.curvature.kronecker import Block, KroneckerFactors, Sharing, kronecker_factors
from lossgeom.curvature.layer_rows import Curvature, LayerRows
from lossgeom.estimate import Estimate
from lossgeom.linalg import KroneckerProduct, plain_arithmetic
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.messages.checks import check_at_least, check_whole
from lossgeom.messages.wording import in_columns
from lossgeom.problem import Problem, checked_problem

KFAC: Mapping[str, tuple[Curvature, Sharing]] = {
    "reduce": ("exact", "reduce"),
    "sampled": ("sampled", "expand"),
    "sampled reduce": ("sampled", "reduce"),
    "empirical": ("empirical", "expand"),
    "empirical reduce": ("empirical", "reduce"),
}
ROUNDING = 10  # units of rounding that a squared error may be off by
SHOWN = 5e-4  # error bars from which on they are printed


@dataclass(frozen=True)
class LayerErrors:
    r"""How far Kronecker products K are from a layer's block A.

    Attributes:
        name: of the layer.
        shape: (m, n), its outputs and inputs.
        norm: :math:`\|A\|_F`.
        trace: of A.
        errors: :math:`\|A - K\|_F / \|A\|_F`, by name of the product.
        trace_ratios: tr K / tr A.
    """

    name: str
    shape: tuple[int, int]
    norm: Estimate
    trace: float
    errors: Mapping[str, Estimate]
    trace_ratios: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class KroneckerErrors:
    """The errors of all layers, which print as a table.

    Attributes:
        layers: those of each layer.
    """

    layers: tuple[LayerErrors, ...]

    def __str__(self) -> str:
        headings = ["layer", "size", *self.layers[0].errors]
        errors, ratios = [headings], [headings]
        for own in self.layers:
            start = [own.name, "{} x {}".format(*own.shape)]
            errors.append([*start, *map(_cell, own.errors.values())])
            ratios.append([*start, *(f"{ratio:.3f}" for ratio in own.trace_ratios.values())])
        of_traces = ["", "trace, relative to that of the block", *in_columns(ratios)]
        return "\n".join(["relative Frobenius error", *in_columns(errors), *of_traces])

    __repr__ = __str__


def kronecker_errors(
    problem: Problem,
    *,
    seed: int = 0,
    samples: int = 1,
    matvecs: int = 100,
    memory_budget: int = MEMORY_BUDGET,
) -> KroneckerErrors:
    r"""Measure how far Kronecker products are from each layer's Gauss-Newton block.

    .. math:: \|A - K\|_F^2 = \|A\|_F^2 - 2 \langle A, K \rangle + \|K\|_F^2, \quad
        \langle A, L \otimes R \rangle = \frac1n \sum \langle G, L G R \rangle

    for the block A in the layer's weight, of :func:`best_kronecker`. Nothing of its size is
    formed. Between piecewise linear activations A is the block of the Hessian. The products are

    - ``decoupling``: :math:`E[M] \otimes E[x x^\top]`, which is KFAC with the exact Hessian of the
      loss in the outputs, sharing weights by "expand"; ``reduce``: the same by "reduce", equal
      where a layer acts once on an example;
    - ``sampled``, ``sampled reduce``, ``empirical``, ``empirical reduce``: KFAC with targets that
      the model draws, and with the true ones, see :func:`kronecker_factors`;
    - ``EKFAC``: the eigenbasis of the decoupling, with the diagonal of A in it;
    - ``Shampoo``: :math:`(E\, G G^\top)^{1/2} \otimes (E\, G^\top G)^{1/2}` of the gradients G
      of single observations (targets of a cross-entropy, examples of other losses), whose
      preconditioner is its inverse square root; ``Shampoo^2``: :math:`E[G G^\top] \otimes
      E[G^\top G] / \mathrm{tr} E[G G^\top]`, which is one step of the power iteration for the
      product that is closest to the *empirical* Fisher matrix, from the identity on both sides;
    - ``best``: that of :func:`best_kronecker`. No other Kronecker product is closer; EKFAC, which
      is a product in its basis only, may be.

    The norm of A is exact for layers of at most 2048 weights, and where rows for at most 2048
    columns fit into the budget; otherwise it is estimated by :func:`frobenius_norm`, but is never
    less than what ``best`` and ``EKFAC`` explain of it, and errors say by how much they change with
    a standard error of it, and with rounding.

    Cost: that of :func:`kronecker_factors` 7 times and of :func:`best_kronecker`; two passes over
    the gradients of observations; ``matvecs`` products with the Gauss-Newton matrix for each layer
    whose norm is not exact.

    Args:
        problem: the loss and where to take it.
        seed: of targets that are drawn, and of probes.
        samples: of the targets of each observation.
        matvecs: products for an estimated norm, at least 2.
        memory_budget: bytes of rows to keep; 2 GiB.

    Raises:
        ValueError: as :func:`kronecker_factors`, for every kind of curvature.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Van Loan and Pitsianis (1993); Wu et al., arXiv:2010.04261; Morwani et al., A new
    perspective on Shampoo's preconditioner, arXiv:2406.17748.

    >>> import torch
    >>> from torch import nn
    >>> data = [(torch.eye(2).double(), torch.ones(2, 1).double())]
    >>> problem = Problem(nn.Linear(2, 1).double(), "squared_error", data)
    >>> print(str(kronecker_errors(problem))[:68])
    relative Frobenius error
    layer   size  decoupling  reduce  sampled
    """
    check_whole(0, seed=seed)
    check_whole(1, samples=samples)
    check_whole(2, matvecs=matvecs)
    check_at_least(0, memory_budget=memory_budget)
    factors = checked_problem(problem).cached(kronecker_factors, corrected=True)
    with plain_arithmetic(problem.theta.device):
        rows = Rows(problem, memory_budget)
        best = closest(rows, factors)
        products = _products(problem, factors, best, seed=seed, samples=samples)
        sums = rows.mean(_trace_and_inner_products, products)
        norms = block_norms(problem, rows, factors, matvecs, seed)
        parts = zip(best, products, sums, norms, strict=True)
        return KroneckerErrors(tuple(_layer_errors(problem.theta.dtype, *part) for part in parts))


def _products(
    problem: Problem, exact: Sequence[KroneckerFactors], best: Sequence[BestKronecker], **draws: Any
) -> list[dict[str, Block]]:
    """Make the products of each layer, by name."""
    factors = {"decoupling": exact}
    for name, (curvature, sharing) in KFAC.items():
        if curvature != "sampled" or problem.criterion.likelihood is not None:
            settings = {"curvature": curvature, "sharing": sharing, **draws}
            factors[name] = kronecker_factors(problem, **settings)
    found: dict[str, Sequence[Block]] = {
        name: [KroneckerProduct(own.outputs.double(), own.inputs.double()) for own in layers]
        for name, layers in factors.items()
    }
    found["EKFAC"] = [own.matrix for own in exact]
    rows = Rows(problem, 0, curvature="empirical")
    left = rows.mean(rearranged, [_identity(own.inputs) for own in exact])
    right = rows.mean(rearranged_back, [_identity(own.outputs) for own in exact])
    pairs = list(zip(left, right, strict=True))
    found["Shampoo"] = [KroneckerProduct(_root(L), _root(R)) for L, R in pairs]
    found["Shampoo^2"] = [KroneckerProduct(L / L.trace(), R) for L, R in pairs]
    found["best"] = [own.matrix for own in best]
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def _identity(like: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    return torch.eye(len(like), dtype=torch.float64, device=like.device)


def _root(X: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    values, V = torch.linalg.eigh(X)
    root: Tensor = (V * values.clamp(min=0).sqrt()) @ V.T
    return root


def _trace_and_inner_products(rows: LayerRows, products: Mapping[str, Block]) -> Tensor:
    """Sum the traces of a block and its inner products with the Kronecker products."""
    x, g = rows.inputs, rows.gradients
    found = [((g @ g.mT).sum(0) * (x @ x.mT)).sum()]
    for K in products.values():
        if isinstance(K, KroneckerProduct):
            found.append((rearranged(rows, K.right) * K.left).sum())
    return torch.stack(found)


def _layer_errors(
    dtype: torch.dtype,
    best: BestKronecker,
    products: Mapping[str, Block],
    sums: Tensor,
    norm: Estimate,
) -> LayerErrors:
    trace, *inner = sums.tolist()
    least = max(best.singular_value.value, products["EKFAC"].frobenius_norm())  # what they explain
    norm, errors, along = replace(norm, value=max(norm.value, least)), {}, iter(inner)
    for name, K in products.items():
        square = K.frobenius_norm() ** 2  # of a matrix with the diagonal of A in its eigenbasis
        product = next(along) if isinstance(K, KroneckerProduct) else square
        errors[name] = _error(2 * product - square, norm, dtype)
    if not best.singular_value.converged:
        errors["best"] = replace(errors["best"], converged=False)
    ratios = {name: K.trace() / trace if trace else math.nan for name, K in products.items()}
    shape = len(best.matrix.left), len(best.matrix.right)
    return LayerErrors(best.name, shape, norm, trace, errors, ratios)


def _error(explained: float, norm: Estimate, dtype: torch.dtype) -> Estimate:
    """The relative error from the part of a squared norm that a product explains."""
    square = norm.value**2
    spread = 2 * norm.value * (norm.stderr or 0.0) + ROUNDING * torch.finfo(dtype).eps * square

    def at(square: float) -> float:
        left = 1 - explained / square if square else math.nan
        return 0.0 if square < 0 or left < 0 else math.sqrt(left)

    value = at(square)
    bar = max(abs(at(square + spread) - value), abs(at(square - spread) - value))
    return Estimate(value, bar, converged=math.isfinite(value))


def _cell(error: Estimate) -> str:
    bar = f"+-{error.stderr:.3f}" if (error.stderr or 0.0) >= SHOWN else ""
    return f"{error.value:.3f}{bar}{'' if error.converged else '?'}"
