"""Blocks of a matrix by parameter name, and what is off them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.estimate import Estimate
from lossgeom.linalg import LinearOperator, MatrixFree, plain_arithmetic, random_signs
from lossgeom.linalg.probes import standard_error
from lossgeom.messages.checks import check_at_least
from lossgeom.problem import Problem

Patterns = str | Sequence[str] | None


class BlockDiagonal(ProblemMatrix):
    r"""The diagonal blocks of a P x P matrix A, by parameter name; all else is zero.

    .. math:: \sum_b E_b E_b^\top A E_b E_b^\top

    with the columns of :math:`E_b` the unit vectors of the parameters in block b.

    Cost of a product: one product with A for each block.

    Args:
        matrix: a matrix on a problem's parameters, such as ``Hessian(problem)``.
        patterns: of parameter names, one for each block; every parameter has to match exactly one.
            By default each module that owns parameters is a block: a layer.

    Raises:
        ValueError: if a parameter matches no pattern or several, or a pattern none.

    Source: the layer-wise view of Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> from torch import nn
    >>> from lossgeom import Hessian
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> for p in model.parameters():
    ...     _ = nn.init.ones_(p)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.zeros(1, 1))])
    >>> Hessian(problem).dense(), BlockDiagonal(Hessian(problem)).dense()
    (tensor([[1., 2.],
            [2., 1.]]), tensor([[1., 0.],
            [0., 1.]]))
    """

    def __init__(self, matrix: ProblemMatrix, patterns: Patterns = None) -> None:
        self.matrix = _on_parameters(matrix)
        self.made_of = matrix
        self.problem = matrix.problem
        self.blocks = parameter_blocks(matrix.problem, patterns)

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            result = torch.zeros_like(V)
            for inside in self.blocks.values():
                columns = V[inside].any(0).nonzero().flatten()  # few, of an identity
                if len(columns):
                    product = self.matrix.matmat(_only(V[:, columns], inside))
                    result[inside[:, None], columns] = product[inside]
            return result


def block(matrix: ProblemMatrix, rows: str, columns: str | None = None) -> LinearOperator:
    """The part of a P x P matrix in some parameters, by patterns of their names.

    To measure one diagonal block of a Hessian, the Hessian of ``problem.with_parameters(pattern)``
    costs less: it differentiates in those parameters only.

    Cost of a product: one with the matrix.

    Args:
        matrix: a matrix on a problem's parameters.
        rows: pattern of the parameters that rows belong to.
        columns: of those that columns belong to; the same by default, for a diagonal block.

    Raises:
        ValueError: if a pattern matches no parameter.

    >>> from torch import nn
    >>> from lossgeom import GaussNewton
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.ones(1, 2), torch.ones(1, 1))])
    >>> block(GaussNewton(problem), "weight", "bias").dense()
    tensor([[1.],
            [1.]])
    """
    inside = _indices(_on_parameters(matrix).problem, rows)
    across = inside if columns is None else _indices(matrix.problem, columns)

    def restricted(A: LinearOperator, to: Tensor, of: Tensor) -> LinearOperator:
        def product(V: Tensor) -> Tensor:
            embedded = V.new_zeros(A.shape[1], V.shape[1])
            embedded[of] = V
            return A.matmat(embedded)[to]

        size = (len(to), len(of))
        return MatrixFree.like(A, product, lambda: restricted(A.T, of, to), size=size)

    return restricted(matrix, inside, across)


def off_block_mass(
    matrix: ProblemMatrix, patterns: Patterns = None, *, probes: int = 30, seed: int = 0
) -> Estimate:
    r"""The share of a matrix that a block-diagonal approximation leaves out.

    .. math:: \frac{\|A - \mathrm{blockdiag}(A)\|_F^2}{\|A\|_F^2} \in [0, 1]

    from :math:`E\|Bz\|^2 = \|B\|_F^2` for probes z of random signs; exact where the probes would
    take P products or more, and where there is one block. 0 for a matrix that is block-diagonal,
    and for the zero matrix.

    Cost: as many products as there are blocks, for each probe.

    Args:
        matrix: a matrix on a problem's parameters.
        patterns: of parameter names, as of :class:`BlockDiagonal`.
        probes: at least 2.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The share with its standard error: 0 where it is exact, as large as the share can be wrong
        where fewer than 18 probes agree on it; NaN where products are not finite.

    Raises:
        ValueError: as :class:`BlockDiagonal`, and for probes < 2.

    >>> from torch import nn
    >>> from lossgeom import Hessian
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.ones(1, 2), torch.ones(1, 1))])
    >>> round(off_block_mass(Hessian(problem), ["weight", "bias"]).value, 4)
    0.4444
    """
    check_at_least(2, probes=probes)
    blocks = parameter_blocks(_on_parameters(matrix).problem, patterns)
    P = matrix.shape[0]
    exact = probes * len(blocks) >= P
    if exact:
        Z = torch.eye(P, device=matrix.device, dtype=matrix.dtype)
    else:
        Z = random_signs(matrix, probes, seed)
    off, whole, matvecs = [], [], 0
    exact = exact or len(blocks) == 1
    with plain_arithmetic(matrix.device):
        for z in torch.split(Z, 1, dim=1):
            outside, everything = torch.zeros_like(z), torch.zeros_like(z)
            for inside in blocks.values():
                part = _only(z, inside)
                if part.any():
                    product = matrix.matmat(part)
                    matvecs += 1
                    everything += product
                    product[inside] = 0
                    outside += product
            off.append(outside.double().square().sum().item())
            whole.append(everything.double().square().sum().item())
    parts = [torch.tensor(part, dtype=torch.float64) for part in (off, whole)]
    return _share(parts[0], parts[1], exact, torch.finfo(matrix.dtype).eps, matvecs)


def _share(off: Tensor, whole: Tensor, exact: bool, rounding: float, matvecs: int) -> Estimate:
    """The ratio of two means over probes, with the error of a ratio, which lies in [0, 1]."""
    mean = whole.mean()
    share = (off.mean() / mean).item() if mean else 0.0
    if exact or not mean.isfinite():
        return Estimate(share, 0.0 if exact else math.nan, None, math.isfinite(share), matvecs)
    unit = mean if mean else torch.ones(())
    variance = ((off - share * whole) / unit).var(0)
    error = standard_error(variance, len(off), rounding * whole.max() / unit).item()
    return Estimate(share, min(error, max(share, 1 - share)), matvecs=matvecs)


def parameter_blocks(problem: Problem, patterns: Patterns = None) -> dict[str, Tensor]:
    """The places in theta of each block, by pattern, or by the name of the module.

    Raises:
        ValueError: if a parameter matches no pattern or several, or a pattern none.

    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.ones(1, 2), torch.ones(1, 1))])
    >>> parameter_blocks(problem, ["weight", "bias"])
    {'weight': tensor([0, 1]), 'bias': tensor([2])}
    """
    if patterns is None:
        owners = [name.rpartition(".")[0] for name in problem.network.names]
        return {
            layer: _places(problem, [o == layer for o in owners]) for layer in dict.fromkeys(owners)
        }
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    blocks = {pattern: _indices(problem, pattern) for pattern in patterns}
    times = torch.zeros_like(problem.theta)
    for inside in blocks.values():
        times[inside] += 1
    for name, count in problem.unflatten(times).items():
        if (count != 1).any():
            raise ValueError(
                f"expected every parameter to match exactly one of {patterns}, but {name} "
                f"matches {int(count.max())}"
            )
    return blocks


def _on_parameters(matrix: ProblemMatrix) -> ProblemMatrix:
    ours = isinstance(matrix, ProblemMatrix)
    if not ours or {matrix.rows, matrix.columns} != {"parameters"}:
        raise TypeError(
            "expected a matrix on a problem's parameters, such as Hessian(problem), got "
            f"{type(matrix).__name__}"
        )
    return matrix


def _indices(problem: Problem, pattern: str) -> Tensor:
    matching = problem.network.matching(pattern)
    return _places(problem, [i in matching for i in range(len(problem.network.names))])


def _places(problem: Problem, wanted: Sequence[bool]) -> Tensor:
    sizes = [shape.numel() for shape in problem.network.shapes]
    flags = torch.tensor(wanted, device=problem.theta.device)
    return flags.repeat_interleave(torch.tensor(sizes, device=flags.device)).nonzero().flatten()


def _only(V: Tensor, inside: Tensor) -> Tensor:
    part = torch.zeros_like(V)
    part[inside] = V[inside]
    return part
