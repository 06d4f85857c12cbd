"""The decoupling of all layers' blocks, as a matrix on the parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._layers import left_out
from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.kronecker import Block, Sharing, kronecker_factors
from lossgeom.curvature.layer_rows import Curvature
from lossgeom.linalg import LinearOperator, MatrixFree, plain_arithmetic
from lossgeom.messages.checks import check_number
from lossgeom.problem import Problem, checked_problem


class Decoupled(ProblemMatrix):
    r"""The P x P matrix of the decoupled blocks of all layers, in the order of the parameters.

    .. math:: \mathrm{blockdiag}\big(E[M_l] \otimes E[x_l x_l^\top],\; E[M_l]\big)_l

    for the weight and the bias of each layer l, as of :func:`kronecker_factors`; what is between
    layers, and between a weight and its bias, is zero. To precondition with it, take its inverse
    with damping.

    Cost of a product: m n (m + n) multiplications for an m x n weight; to make it, that of
    :func:`kronecker_factors`.

    Attributes:
        blocks: those of each parameter, by name.

    Args:
        problem: the loss and where to take it.
        curvature: ``"exact"``, ``"sampled"`` or ``"empirical"``.
        sharing: ``"expand"`` or ``"reduce"``, of weights shared over positions.
        corrected: whether to correct the eigenvalues of the blocks (EKFAC).
        seed: of targets that are drawn.
        samples: of the targets of each observation.

    Raises:
        ValueError: as :func:`kronecker_factors`, and for parameters that are of no linear or
            convolutional layer; ``problem.with_parameters`` leaves them out.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261; Martens and Grosse, arXiv:1503.05671.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.eye(2), torch.zeros(2, 1))])
    >>> decoupled = Decoupled(problem)
    >>> decoupled.dense().diagonal(), decoupled.inverse(damping=0.5).dense().diagonal()
    (tensor([0.5000, 0.5000, 1.0000]), tensor([1.0000, 1.0000, 0.6667]))
    """

    def __init__(
        self,
        problem: Problem,
        *,
        curvature: Curvature = "exact",
        sharing: Sharing = "expand",
        corrected: bool = False,
        seed: int = 0,
        samples: int = 1,
    ) -> None:
        self.problem = checked_problem(problem)
        factors = kronecker_factors(
            problem,
            curvature=curvature,
            sharing=sharing,
            corrected=corrected,
            seed=seed,
            samples=samples,
        )
        found: dict[str, Block] = {}
        for own in factors:
            blocks = (own.matrix, own.bias_matrix)
            found |= zip(own.parameters, filter(None, blocks), strict=True)
        if missing := [name for name in problem.network.names if name not in found]:
            reasons = "; ".join(f"{name} ({why})" for name, why in left_out(problem).items())
            raise ValueError(
                "expected all parameters to be of linear layers or convolutions, but not so "
                f"{', '.join(missing)}: {reasons}; problem.with_parameters(names) holds them fixed"
            )
        self.blocks = {name: found[name] for name in problem.network.names}

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            return _by_blocks(list(self.blocks.values()), V)

    def inverse(self, damping: float = 0.0) -> LinearOperator:
        r"""The inverse of this matrix plus damping I, such as 1e-3 of the largest eigenvalue.

        Raises:
            ValueError: for a damping below 0, or where an eigenvalue is zero up to rounding.
        """
        check_number("damping", damping, 0, at_low=True)
        bases = {name: block.eigenbasis() for name, block in self.blocks.items()}
        sizes = {name: basis.values.abs().max().item() for name, basis in bases.items()}
        largest_first = sorted(sizes, key=sizes.__getitem__, reverse=True)  # an error names enough
        inverses = {name: bases[name].inverse(damping) for name in largest_first}
        return self._of_blocks([inverses[name] for name in self.blocks])

    def sqrt(self) -> LinearOperator:
        """The symmetric root R of this matrix, R R.

        Raises:
            ValueError: for an eigenvalue below zero by more than rounding.
        """
        return self._of_blocks([block.eigenbasis().sqrt() for block in self.blocks.values()])

    def logdet(self, damping: float = 0.0) -> float:
        """The logarithm of the determinant of this matrix plus damping I.

        Raises:
            ValueError: for a negative eigenvalue of that.
        """
        return math.fsum(b.eigenbasis().logdet(damping) for b in self.blocks.values())

    def _of_blocks(self, blocks: Sequence[Block]) -> LinearOperator:
        made = MatrixFree.like(self, partial(_by_blocks, blocks), lambda: made)
        return made


def _by_blocks(blocks: Sequence[Block], V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
    parts = torch.split(V, [block.shape[0] for block in blocks])
    return torch.cat([block.matmat(part) for block, part in zip(blocks, parts, strict=True)])
