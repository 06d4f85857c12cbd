"""How differently the examples curve the loss."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.stability.sgd.examples import ExampleCurvatures


def nonuniformity(curvatures: ExampleCurvatures) -> float:
    r"""The non-uniformity of the curvatures of single examples.

    .. math:: s = \lambda_{\max}\Big(\frac1n \sum_i H_i^2 - H^2\Big)^{1/2}

    in units of the curvature; with B examples in a batch, drawn independently, SGD is unstable at a
    minimum if the sharpness exceeds 2 / lr or, about, s exceeds root B / lr.

    Cost: 2 n c r^2 flops.

    Source: Wu, Ma and E, How SGD selects the global minima in over-parameterized learning, 2018.

    >>> round(nonuniformity(ExampleCurvatures.of(torch.tensor([[[1.0]], [[2.0]]]))), 6)  # of 1, 4
    1.5
    """
    if not curvatures.rank:
        return 0.0
    A, h = curvatures.factors, curvatures.values
    squares = torch.einsum("nca,ncb->ab", A, (A @ A.mT) @ A) / curvatures.n
    variance = torch.linalg.eigvalsh(squares - torch.diag(h * h))[-1]
    return math.sqrt(max(float(variance), 0.0))


def coherence(curvatures: ExampleCurvatures) -> Float[Tensor, "n n"]:
    r"""How much the curvatures of two examples have in common.

    .. math:: S_{ij} = \|H_i^{1/2} H_j^{1/2}\|_F = \sqrt{\mathrm{tr}(H_i H_j)}

    which is :math:`|a_i \cdot a_j|` for :math:`H_i = a_i a_i^\top`. A theorem on divergence that is
    stated with this matrix is tight up to constants only, where :func:`mean_square_threshold` is
    exact; its pattern shows which examples hang together.

    Cost: 2 n^2 c^2 r flops.

    Source: Dexter et al., A precise characterization of SGD stability using loss surface geometry,
    ICLR 2024.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> coherence(ExampleCurvatures.of(points[:, None])).round(decimals=6)
    tensor([[1., 1., 0.],
            [1., 2., 2.],
            [0., 2., 4.]], dtype=torch.float64)
    """
    n, c, r = curvatures.factors.shape
    A = curvatures.factors.reshape(n * c, r)
    squares = (A @ A.T).square().reshape(n, c, n, c)
    return squares.sum((1, 3)).sqrt()
