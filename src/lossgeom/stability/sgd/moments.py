"""Moments of SGD of any order, by going through all batches."""

from __future__ import annotations

import math
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least
from lossgeom.stability.sgd._crossing import first_crossing
from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.sampling import (
    MOST,
    Sampling,
    all_batches,
    check_batches,
    number_of_batches,
)

LARGEST = 300  # r^k: the size of the matrix on moments
NUMBERS = 2**20  # of Kronecker products, each time


def can_enumerate(
    curvatures: ExampleCurvatures, batch_size: int, order: int, sampling: Sampling
) -> bool:
    """Whether there are few enough batches, and few enough moments of an order."""
    batches = number_of_batches(curvatures.n, batch_size, sampling)
    size = curvatures.rank**order
    return size <= LARGEST and batches <= MOST and batches * size**2 <= NUMBERS


def moment_threshold(
    curvatures: ExampleCurvatures,
    batch_size: int,
    order: int,
    sampling: Sampling = "without replacement",
) -> float:
    r"""The learning rate up to which the moments of SGD of order k are bounded, by enumeration.

    .. math:: \rho\big(E_b[(I - \eta H_b)^{\otimes k}]\big) \le 1

    on the moment tensors of the linearised steps, over all batches b. For even k that decides
    whether :math:`E \|w\|^k` stays bounded, and the thresholds fall with k. For odd k it is about
    the moment tensor :math:`E[w^{\otimes k}]`, in which signs cancel, and *not* about the absolute
    moment: the third is often stable where the second is not. For k = 1 the threshold is that of
    steps with all examples, 2 over the sharpness.

    Cost: for each of some sixty learning rates, the eigenvalues of an r^k x r^k matrix, summed
    over all batches.

    Args:
        curvatures: see :func:`example_curvatures`.
        batch_size: B.
        order: k.
        sampling: ``"without replacement"`` or ``"with replacement"``.

    Returns:
        The first learning rate at which the criterion fails.

    Raises:
        ValueError: for a batch size, an order or a sampling out of range, or where r^k exceeds 300
            or there are too many batches, which k = 1 and :func:`mean_square_threshold` do without.

    Source: Ma and Ying, arXiv:2105.13462, theorem 1, for k in general; that odd orders say less
    was found here.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> curvatures = ExampleCurvatures.of(points[:, None])
    >>> [round(moment_threshold(curvatures, 1, order), 6) for order in (1, 2, 3, 4)]
    [1.333333, 0.64401, 0.676962, 0.574665]
    """
    check_at_least(1, order=order)
    check_batches(curvatures.n, batch_size, sampling)
    if sampling == "reshuffling":
        raise ValueError(
            "expected sampling 'without replacement' or 'with replacement'; of reshuffled epochs "
            "reshuffling_threshold gives the second moments"
        )
    if not curvatures.rank:
        return math.inf
    edge = 2 / curvatures.sharpness
    if order == 1:
        return edge
    if not can_enumerate(curvatures, batch_size, order, sampling):
        batches = number_of_batches(curvatures.n, batch_size, sampling)
        raise ValueError(
            f"{batches:.3g} batches and {float(curvatures.rank) ** order:.3g} moments of order "
            f"{order} are too many to be enumerated: expected at most {LARGEST} moments. "
            "mean_square_threshold does without, for the second moments"
        )
    listed, chances = all_batches(curvatures.n, batch_size, sampling)
    H = torch.stack([curvatures.matrices[list(batch)].mean(0) for batch in listed]).cpu()

    def growth(lr: float) -> float:
        steps = torch.eye(H.shape[-1], dtype=H.dtype) - lr * H
        power = reduce(_kronecker, [steps] * order)
        return float(torch.linalg.eigvalsh(torch.tensordot(chances, power, 1)).abs().max())

    return first_crossing(lambda lr: growth(lr) - ROUNDING, edge)


ROUNDING = 1e-13  # of a growth of exactly 1 in directions that batches do not reach


def _kronecker(A: Float[Tensor, "M a a"], B: Float[Tensor, "M b b"]) -> Float[Tensor, "M ab ab"]:
    size = A.shape[1] * B.shape[1]
    return torch.einsum("mij,mkl->mikjl", A, B).reshape(len(A), size, size)
