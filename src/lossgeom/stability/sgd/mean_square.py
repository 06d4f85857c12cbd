"""The learning rate up to which SGD is stable in mean square."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.momentum import momentum_threshold
from lossgeom.stability.sgd.reshuffling import reshuffling_threshold
from lossgeom.stability.sgd.sampling import Sampling, check_batches, noise_share
from lossgeom.stability.sgd.second_moments import largest_growth, mean_of_products


def mean_square_threshold(
    curvatures: ExampleCurvatures,
    batch_size: int,
    momentum: float = 0.0,
    sampling: Sampling = "without replacement",
) -> float:
    r"""The learning rate up to which SGD stays near a minimum in mean square, exactly.

    Of the linearised steps :math:`w \to (I - \eta H_b) w`, with a random batch b each, the second
    moment :math:`E \|w\|^2` stays bounded if and only if

    .. math:: \frac2\eta \ge \lambda_{\max}(C^{-1/2} D\, C^{-1/2}), \quad
        C(S) = \tfrac12 (H S + S H), \quad D(S) = (1 - p) H S H + \frac pn \sum_i H_i S H_i

    with the noise share p of :func:`noise_share`. Both maps act on the r x r matrices of the
    eigenbasis, where C is diagonal. The top eigenvector is positive semi-definite and the identity
    never orthogonal to it, so one Lanczos run from there finds it. With momentum the threshold is
    that of :func:`momentum_threshold`; of reshuffled epochs it is known by enumeration, see
    :func:`reshuffling_threshold`.

    Mean-square instability is not that every run diverges: above the threshold rare large
    excursions dominate the mean, while a typical run may still come back.

    Cost: about 20 products, each of 4 n c r^2 flops, for r the rank of H; memory 20 r^2 numbers.

    Args:
        curvatures: see :func:`example_curvatures`.
        batch_size: B.
        momentum: of heavy ball, without dampening.
        sampling: ``"without replacement"`` or ``"with replacement"``, or ``"reshuffling"``.

    Returns:
        The largest stable learning rate; infinite where no example has any curvature.

    Raises:
        ValueError: for a batch size out of 1..n, a momentum out of [0, 1), or reshuffled epochs
            of which there are too many to be listed.

    Source: Mulayoff and Michaeli, arXiv:2306.07850, theorem 3; the criterion is that of Ma and
    Ying, arXiv:2105.13462. In the eigenbasis, derived here.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> curvatures = ExampleCurvatures.of(points[:, None])
    >>> [round(mean_square_threshold(curvatures, B), 6) for B in (1, 2, 3, 4)]
    [0.64401, 0.98971, 1.19779, 1.333333]
    """
    check_batches(curvatures.n, batch_size, sampling)
    if not curvatures.rank:
        return math.inf
    if sampling == "reshuffling":
        return reshuffling_threshold(curvatures, batch_size, momentum)
    if momentum:
        p = noise_share(curvatures.n, batch_size, sampling)
        return momentum_threshold(curvatures, p, momentum)
    return mean_square_thresholds(curvatures, [batch_size], sampling)[0]


def mean_square_thresholds(
    curvatures: ExampleCurvatures,
    batch_sizes: Sequence[int],
    sampling: Sampling = "without replacement",
) -> list[float]:
    """The thresholds of :func:`mean_square_threshold` for several batch sizes, without momentum.

    Each search starts where the one before has ended.

    Raises:
        ValueError: for a batch size out of 1..n, or another sampling.

    >>> import torch
    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> curvatures = ExampleCurvatures.of(points[:, None])
    >>> [round(eta, 6) for eta in mean_square_thresholds(curvatures, [2, 4])]
    [0.98971, 1.333333]
    """
    found, start = [], None
    for batch_size in batch_sizes:
        p = noise_share(curvatures.n, batch_size, sampling)
        if curvatures.rank:
            growth, start = _growth(curvatures, p, start)
        found.append(2 / growth if curvatures.rank else math.inf)
    return found


def _growth(
    curvatures: ExampleCurvatures, p: float, start: Float[Tensor, " rr"] | None
) -> tuple[float, Float[Tensor, " rr"]]:
    """The largest eigenvalue of the map on second moments, 2 / threshold, with its eigenvector."""
    h = curvatures.values
    roots, full = ((h[:, None] + h) / 2).rsqrt(), (1 - p) * h[:, None] * h

    def image(S: Float[Tensor, "r r"]) -> Float[Tensor, "r r"]:
        S = roots * S
        return roots * (full * S + p * mean_of_products(curvatures, S) if p else full * S)

    return largest_growth(curvatures, image, start)
