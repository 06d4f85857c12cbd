"""Bases of parameter space in which posteriors have independent coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

import torch

from lossgeom.bounds.posterior import Basis, Block
from lossgeom.curvature import Hessian
from lossgeom.curvature.kronecker import kronecker_factors
from lossgeom.linalg.kronecker_product import KroneckerProduct
from lossgeom.problem import Problem

EXACT_SIZE = 4096  # numbers of one parameter whose Hessian is diagonalised


def standard(problem: Problem) -> Basis:  # noqa: ARG001
    """The unit vectors."""
    return Basis()


def exact(problem: Problem) -> Basis:
    """The eigenvectors of the Hessian of the loss in every parameter, the others held fixed.

    Raises:
        ValueError: for a parameter with more numbers than can be diagonalised.
    """
    return Basis(tuple(_exact_blocks(problem)))


def _exact_blocks(problem: Problem) -> Iterator[Block]:
    start = 0
    for name, shape in zip(problem.network.names, problem.network.shapes, strict=True):
        size = shape.numel()
        if size > EXACT_SIZE:
            raise ValueError(
                f"basis='exact' is for parameters of at most {EXACT_SIZE} numbers, whose Hessian "
                f"it diagonalises, and {name} has {size}; basis='decoupled' needs less"
            )
        dense = Hessian(problem.with_parameters(name)).dense().double()
        _, vectors = torch.linalg.eigh((dense + dense.T) / 2)
        vectors = vectors.to(problem.theta)
        yield Block(start, vectors, vectors.new_ones(1, 1))
        start += size


def decoupled(problem: Problem) -> Basis:
    """The eigenvectors of the Kronecker factors of every linear and convolutional layer.

    A weight has those of both, a bias those of E[M], and all other parameters the unit vectors.
    """
    sizes = [shape.numel() for shape in problem.network.shapes]
    starts = dict(zip(problem.network.names, accumulate([0, *sizes]), strict=False))
    blocks = []
    for factors in kronecker_factors(problem):
        basis = KroneckerProduct(factors.outputs, factors.inputs).eigenbasis()
        weight, *bias = (starts[name] for name in factors.parameters)
        blocks.append(Block(weight, basis.left, basis.right))
        blocks += [Block(start, basis.left, basis.left.new_ones(1, 1)) for start in bias]
    return Basis(tuple(blocks))


BASES: dict[str, Callable[[Problem], Basis]] = {
    "standard": standard,
    "decoupled": decoupled,
    "recomputed": decoupled,
    "exact": exact,
}
