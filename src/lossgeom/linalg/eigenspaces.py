"""How eigenspaces compare with each other and with Kronecker products."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def eigenspace_overlap(U: Float[Tensor, "n k"], V: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    r"""How far the spans of the first j vectors of two orthonormal sets agree, for each j to k.

    .. math:: \frac1j \|U_j^\top V_j\|_F^2 \in [0, 1]

    It is 1 where the spans are the same and 0 where they are orthogonal; compare with
    :func:`random_overlap`. Within a multiple eigenvalue the first vectors are any, so that j
    should not cut one.

    Cost: n k^2 multiplications.

    Raises:
        ValueError: for sets of two shapes, or that are no matrices.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> eigenspace_overlap(torch.eye(3)[:, :2], torch.eye(3)[:, [0, 2]]).tolist()
    [1.0, 0.5]
    """
    if U.shape != V.shape or U.ndim != 2:
        raise ValueError(
            "expected as many vectors of one size, as columns of matrices, got "
            f"{tuple(U.shape)} and {tuple(V.shape)}"
        )
    squares = (U.double().T @ V.double()).square()
    sums = squares.cumsum(0).cumsum(1).diagonal()
    return sums / torch.arange(1, len(sums) + 1, device=sums.device)


def random_overlap(k: int, n: int) -> Float[Tensor, " k"]:
    """The expected overlap j / n of a space of dimension j = 1..k in n with a random one.

    Raises:
        ValueError: if k is not in 1..n.

    >>> random_overlap(2, 4).tolist()
    [0.25, 0.5]
    """
    if not 1 <= k <= n:
        raise ValueError(f"expected spaces of 1 <= k <= n = {n} dimensions, got k={k}")
    return torch.arange(1, k + 1, dtype=torch.float64) / n


def rank_one_energy(V: Float[Tensor, "mn ..."], shape: tuple[int, int]) -> Float[Tensor, ...]:
    r"""The share of the best rank-one matrix in vectors reshaped to m x n.

    .. math:: s_1^2 / \sum_i s_i^2, \quad s = \text{singular values of } \mathrm{Mat}(v)

    1 for :math:`v = u \otimes x`, and at least 1 / min(m, n). Vectors of zeros have NaN.

    Args:
        V: a vector or a block of vectors, row-major: the entry of output i and input j at i n + j.
        shape: (m, n), outputs and inputs.

    Raises:
        ValueError: for vectors of another length than m n.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> rank_one_energy(torch.tensor([1.0, 0.0, 0.0, 1.0]), (2, 2)).item()
    0.5
    """
    squares = torch.linalg.svdvals(_matrices(V, shape)).square()
    energy: Tensor = squares[..., 0] / squares.sum(-1)
    return energy


def energy_along(V: Float[Tensor, "mn ..."], x: Float[Tensor, " n"]) -> Float[Tensor, ...]:
    r"""The share of one input direction in vectors of unit length reshaped to m x n.

    .. math:: \|\mathrm{Mat}(v)\, x\|^2 / \|x\|^2

    Args:
        V: a vector or a block of vectors, row-major.
        x: the direction, such as the mean input of a layer, of any length but 0.

    Raises:
        ValueError: for vectors whose length is no multiple of that of x.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> energy_along(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([2.0, 0.0])).item()
    1.0
    """
    if x.ndim != 1 or not len(x):
        raise ValueError(f"expected a direction of shape (n,), got {tuple(x.shape)}")
    x = x.double()
    along: Tensor = _matrices(V, (len(V) // len(x), len(x))) @ (x / x.norm())
    return along.square().sum(-1)


def correspondence_maps(
    V: Float[Tensor, "mn k"], left: Float[Tensor, "m m"], right: Float[Tensor, "n n"]
) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k n"]]:
    r"""How vectors divide among the eigenvectors of the two factors of a Kronecker product.

    .. math:: \|u_j^\top \mathrm{Mat}(v_i)\|^2, \quad \|\mathrm{Mat}(v_i)\, x_j\|^2

    in row i and column j. Rows sum to 1 for vectors of unit length; a vector :math:`u_j \otimes
    x_l` has a single 1 in each map.

    Args:
        V: a block of vectors, row-major, such as top eigenvectors of a layer's Hessian.
        left: eigenvectors u of the outputs' factor, as columns.
        right: eigenvectors x of the inputs' factor, as columns.

    Raises:
        ValueError: for vectors of another length than m n, or a single one.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> outputs, inputs = correspondence_maps(torch.eye(4)[:, 2:3], torch.eye(2), torch.eye(2))
    >>> outputs.tolist(), inputs.tolist()
    ([[0.0, 1.0]], [[1.0, 0.0]])
    """
    if V.ndim != 2:
        raise ValueError(f"expected vectors as columns of a matrix, got shape {tuple(V.shape)}")
    matrices = _matrices(V, (len(left), len(right)))
    outputs, inputs = left.double().T @ matrices, matrices @ right.double()
    return outputs.square().sum(2), inputs.square().sum(1)


def _matrices(V: Float[Tensor, "mn ..."], shape: tuple[int, int]) -> Float[Tensor, "... m n"]:
    m, n = shape
    if len(V) != m * n:
        raise ValueError(f"expected vectors of m x n = {m} x {n} numbers, got {len(V)}")
    return torch.unflatten(V.double().movedim(0, -1), -1, shape)
