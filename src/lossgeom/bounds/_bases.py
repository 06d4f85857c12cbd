"""Bases of parameter space in which posteriors have independent coordinates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

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
    blocks = []
    for name in problem.network.names:
        own = problem.with_parameters(name)
        if len(own.theta) > EXACT_SIZE:
            raise ValueError(
                f"basis='exact' is for parameters of at most {EXACT_SIZE} numbers, whose Hessian "
                f"it diagonalises, and {name} has {len(own.theta)}; basis='decoupled' needs less"
            )
        dense = Hessian(own).dense().double()
        vectors = torch.linalg.eigh((dense + dense.T) / 2).eigenvectors.to(problem.theta)
        blocks.append(Block(len(own.theta), vectors))
    return Basis(tuple(blocks))


def decoupled(problem: Problem) -> Basis:
    """The eigenvectors of the Kronecker factors of every linear and convolutional layer.

    A weight has those of both, a bias those of E[M], and all other parameters the unit vectors.

    Raises:
        ValueError: if the model has no such layers.
    """
    blocks = {name: Block(part.numel()) for name, part in problem.unflatten(problem.theta).items()}
    try:
        found = kronecker_factors(problem)
    except ValueError as error:
        raise ValueError(f"{error}; basis='standard' needs no factors of layers") from error
    for factors in found:
        basis = KroneckerProduct(factors.outputs, factors.inputs).eigenbasis()
        weight, *biases = factors.parameters
        blocks[weight] = Block(blocks[weight].size, basis.left, basis.right)
        blocks |= {bias: Block(len(basis.left), basis.left) for bias in biases}
    return Basis(tuple(blocks.values()))


BASES: dict[str, Callable[[Problem], Basis]] = {
    "standard": standard,
    "decoupled": decoupled,
    "recomputed": decoupled,
    "exact": exact,
}


def basis_at(name: str, problem: Problem, theta: Tensor) -> Basis:
    """The basis of a name for a problem at other parameters."""
    return BASES[name](problem.at(theta))
