"""The top eigenpairs of each layer's own block of the Hessian or the Gauss-Newton matrix."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.curvature._layers import Layer, layers_of
from lossgeom.curvature.hessian import Hessian
from lossgeom.curvature.layer_rows import LayerRows, layer_rows
from lossgeom.curvature.named_matrix import Matrix, named_matrix
from lossgeom.linalg import (
    EigenPairs,
    LinearOperator,
    MatrixFree,
    plain_arithmetic,
    random_numbers,
    top_eigenpairs,
)
from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.messages.checks import check_at_least, check_whole
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.agreement import REORDERED, agree
from lossgeom.problem.isolation import measuring
from lossgeom.problem.nearby import drawn
from lossgeom.trust.trial import guard, on_few

Product = Callable[[Tensor], Tensor]

MOST_COLUMNS = 128  # of the root for each example: more backward passes than rows are worth
LARGEST = 2**22  # weights of a layer: 1 GiB for a basis of eigenvectors
CACHE_BYTES = 2 * 2**20  # of a matrix that is multiplied by twice
PROBES = 4  # products that show what one matrix has and the other has not


def layer_eigenpairs(
    problem: Problem,
    k: int = 20,
    *,
    matrix: Matrix = "hessian",
    tol: float = 1e-3,
    seed: int = 0,
    memory_budget: int | None = None,
) -> dict[str, EigenPairs]:
    r"""The k largest eigenpairs of each layer's exact block of a curvature matrix.

    .. math:: H_l = \nabla^2_{w_l} L, \qquad w_l = \mathrm{vec}(W_l)

    for the weights of linear layers and convolutions without groups, in row-major order: the entry
    of output i and input j is at i n + j. Nothing is approximated.

    Where the outputs of the model are piecewise linear in a weight, as between ReLUs, the block is
    the Gauss-Newton matrix's, :math:`\frac1n \sum \mathrm{vec}(G) \mathrm{vec}(G)^\top`. Products
    are then made from the inputs of the layer and the gradients at its outputs, which are taken
    once for all layers and cost a fraction of a backward pass each. Whether a block is of this form
    is tried: on a few examples, by a product with a random vector on all, and by 4 more when the
    pairs are found. The largest difference e of these 4 from those of the block is taken as the
    norm of what is left out, which is more than 4 e once in 600 times at most. No eigenvalue is off
    by more than that norm: e is at most ``tol`` times the last eigenvalue, or rounding, and is in
    the residuals. Otherwise the search is by products with the block itself, differentiated in the
    layer alone.

    Cost: for each layer some 2.5 k products with its block, which are recorded once and replayed,
    of about two thirds of a gradient of the layers from it on, and of less than half of one where
    it is piecewise linear; before these, as many backward passes as an example has outputs.

    Args:
        problem: the loss and where to take it.
        k: how many pairs; as many as there are weights in smaller layers.
        matrix: ``"hessian"`` or ``"gauss_newton"``.
        tol: on residuals, see :func:`top_eigenpairs`.
        seed: of random starts and probes.
        memory_budget: bytes of inputs and gradients to keep, and for each block by itself all that
            is held, see :class:`lossgeom.Memory`; None for 2 GiB besides what blocks need.

    Returns:
        The pairs of each layer, by its name, in the order of the modules. Other parameters, and
        layers of more than 4 million weights, are left out, and ``problem.notes`` say why.

    Raises:
        ValueError: for a model without such layers, an unknown matrix, and k, seed or budget that
            are too small.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> from torch import nn
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(x, torch.zeros(2, 1))])
    >>> layer_eigenpairs(problem)["model"].values.round(decimals=4).tolist()
    [8.0, 2.0]
    """
    check_whole(1, k=k)
    check_whole(0, seed=seed)
    blocks = LayerBlocks(problem, matrix, memory_budget)
    return {layer.name: blocks.top(layer, k, tol=tol, seed=seed) for layer in blocks.layers}


class LayerBlocks:
    """The blocks of a matrix in the weights of layers, one for each.

    Args:
        problem: the loss and where to take it.
        matrix: what they are blocks of.
        memory_budget: bytes to keep for all of them, and for each.

    Attributes:
        layers: that have one, in the order of the modules.
    """

    def __init__(self, problem: Problem, matrix: Matrix, memory_budget: int | None = None) -> None:
        self._kind = named_matrix(matrix)
        self._room = MEMORY_BUDGET if memory_budget is None else memory_budget
        check_at_least(0, memory_budget=self._room)
        self.problem, self._budget = checked_problem(problem), memory_budget
        batch = problem.first_batch()
        guard(problem, batch, rows_will_do=matrix == "gauss_newton")  # once for all layers
        with measuring(problem.theta.device):
            found = layers_of(problem, batch)
        sizes = {name: part.numel() for name, part in problem.unflatten(problem.theta).items()}
        self.layers = [layer for layer in found if sizes[layer.parameters[0]] <= LARGEST]
        for layer in (layer for layer in found if layer not in self.layers):
            problem.cache.note(
                f"no eigenvectors of the block of {layer.name}: more than {LARGEST:,} weights"
            )

    def top(self, layer: Layer, k: int, *, tol: float = 1e-3, seed: int = 0) -> EigenPairs:
        """The k largest pairs of a layer's block, or all of a smaller one."""
        own = self.problem.with_parameters(glob.escape(layer.parameters[0]))
        A = self._kind(own, memory_budget=self._budget)
        k, product = min(k, A.shape[0]), self._products.get(layer.name)
        if product is not None:
            G = MatrixFree.like(A, product, lambda: G)
            v = drawn(own.theta)
            if agree(G @ v, A @ v, REORDERED):
                pairs = _compared(A, G, top_eigenpairs(G, k, tol=tol / 2, seed=seed), tol, seed)
                if pairs.converged.all():
                    return pairs
        A.replays = self._replayable
        return top_eigenpairs(A, k, tol=tol, seed=seed)

    @cached_property
    def _replayable(self) -> bool:
        """Whether products with a block may be recorded, of which some tens are taken."""
        return self._kind(self.problem).replayable(self.problem.first_batch())

    @cached_property
    def _products(self) -> Mapping[str, Product]:
        """Products with blocks made from the rows of layers; none where there are none to keep."""
        problem, pieces, room = self.problem, dict[str, list[Product]](), self._room
        names = on_few(problem, problem.first_batch(), self._piecewise_linear)

        def keep(rows: LayerRows) -> None:
            nonlocal room
            if rows.layer.name in names:
                product, nbytes = _from_rows(rows)
                room -= nbytes
                if room < 0:
                    raise MemoryError
                pieces.setdefault(rows.layer.name, []).append(product)

        with suppress(ValueError, MemoryError), plain_arithmetic(problem.theta.device):
            if names:  # raises a ValueError where the loss has no root
                divisor = problem.reduced(lambda here: [(0.0, layer_rows(here, keep))])[1]
                return {name: partial(_summed, parts, divisor) for name, parts in pieces.items()}
        return {}

    def _piecewise_linear(self, small: Problem) -> frozenset[str]:
        """Find layers in whose weight the outputs are piecewise linear, on a few examples."""
        batch, found = small.first_batch(), {layer.name for layer in self.layers}
        if small.outputs(small.theta, batch)[0].numel() > MOST_COLUMNS:
            return frozenset()
        for layer in self.layers if self._kind is Hessian else ():
            own = small.with_parameters(glob.escape(layer.parameters[0]))
            leaf = own.leaf()
            outputs = own.outputs(leaf, batch)
            gradient = pulled(outputs, leaf, drawn(outputs), create_graph=True)
            if pulled(gradient, leaf, drawn(leaf)).norm() > REORDERED * gradient.norm():
                found.remove(layer.name)
        return frozenset(found if 2 * len(found) > len(self.layers) else ())  # or it does not pay


def _summed(pieces: list[Product], divisor: float, V: Float[Tensor, "P k"]) -> Tensor:
    return sum((piece(V) for piece in pieces), V.new_zeros(())) / divisor


def _from_rows(rows: LayerRows) -> tuple[Product, int]:
    """Make the product with the sum of vec(G) vec(G)^T, and count the bytes that it holds.

    G is formed where an example has more positions than columns; otherwise it is the product of
    inputs and gradients.
    """
    x, g = rows.inputs, rows.gradients
    K, B, S, m = g.shape
    if K <= S:
        G = rows.flat()
        held = max(1, CACHE_BYTES // (G.shape[1] * G.itemsize))
        parts = torch.split(G, held)  # each is read once
        return lambda V: sum((part.T @ (part @ V) for part in parts), V.new_zeros(())), G.nbytes
    at, by = x.flatten(0, 1), g.transpose(0, 1).reshape(B, K, S * m)

    def product(V: Tensor) -> Tensor:
        k = V.shape[1]
        pushed = (at @ V.T.reshape(k * m, -1).T).view(B, S, k, m)
        pulled = by.mT @ (by @ pushed.transpose(2, 3).reshape(B, S * m, k))
        back = pulled.view(B, S, m, k).transpose(2, 3).reshape(B * S, k * m)
        return (back.T @ at).reshape(k, -1).T

    return product, at.nbytes + by.nbytes


def _compared(
    A: LinearOperator, G: LinearOperator, pairs: EigenPairs, tol: float, seed: int
) -> EigenPairs:
    """Take pairs of G for those of A; none has converged where A may have others.

    By Weyl no eigenvalue of A is farther than ||E|| from that of G, with E = A - G. For normal z,
    ||E z|| has the mean square ||E||_F^2, and is below ||E|| / 4 once in 5 times at most. Where the
    largest of several is within all goals, but too much beside a residual, A multiplies the pairs.
    """
    values, V = pairs.values.to(pairs.vectors), pairs.vectors
    rounding = torch.finfo(A.dtype).eps * values.abs().max()
    goals = (tol * values.abs()).clamp(min=20 * rounding)
    Z = torch.randn(len(V), PROBES, generator=random_numbers(seed, PROBES)).to(V)
    apart, spent = lengths((A @ Z - G @ Z).T).max().to(V), pairs.matvecs + 2 * (PROBES + 1)
    same = (apart <= goals).all()
    residuals = pairs.residuals.to(V) + apart
    if same and not (residuals <= goals).all():
        residuals = lengths((A @ V - V * values).T).to(V) + 2 * rounding
        spent += len(values)
    converged = pairs.converged & (same & (residuals <= goals)).cpu()
    return replace(
        pairs, residuals=residuals.to(pairs.residuals), converged=converged, matvecs=spent
    )
