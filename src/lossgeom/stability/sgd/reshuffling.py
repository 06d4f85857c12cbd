"""SGD on reshuffled epochs, by going through all orders."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_number
from lossgeom.stability.sgd._crossing import first_crossing
from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.sampling import MOST, all_epochs, check_batches, number_of_batches

LARGEST = 12  # dimension of the steps


def can_enumerate_epochs(
    curvatures: ExampleCurvatures, batch_size: int, momentum: float = 0.0
) -> bool:
    """Whether there are few enough orders of an epoch, in few enough dimensions."""
    size = curvatures.rank * (2 if momentum else 1)
    orders = number_of_batches(curvatures.n, batch_size, "reshuffling")
    return size <= LARGEST and orders <= MOST


def reshuffling_threshold(
    curvatures: ExampleCurvatures, batch_size: int, momentum: float = 0.0
) -> float:
    r"""The learning rate up to which SGD on reshuffled epochs is stable in mean square.

    With the product M of the steps of an epoch, in each of its equally likely orders,

    .. math:: \rho(E[M \otimes M]) \le 1,

    by enumeration. That is how ``DataLoader(shuffle=True)`` draws; where the batch size does not
    divide n, its last batch is smaller, and its examples weigh more. There is no formula: where all
    was enumerated, epochs of equal batches were more stable than batches drawn independently
    without replacement, which is no theorem; with a small last batch they were often less stable.

    Cost: for each of some sixty learning rates, n! / (B!)^(n/B) products of n / B matrices, and
    the eigenvalues of an r^2 x r^2 matrix, with 2 r in the place of r where there is momentum.

    Args:
        curvatures: see :func:`example_curvatures`.
        batch_size: B.
        momentum: of heavy ball, without dampening; it is carried from epoch to epoch.

    Returns:
        The first learning rate at which the criterion fails, of those where it holds from 0 on.

    Raises:
        ValueError: for a batch size or a momentum out of its range, or where there are more than
            20,000 orders or 12 dimensions.

    Source: the criterion is that of Ma and Ying, arXiv:2105.13462, for one step; enumerated here.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> curvatures = ExampleCurvatures.of(points[:, None])
    >>> [round(reshuffling_threshold(curvatures, B), 6) for B in (1, 2, 4)]
    [0.802299, 1.158968, 1.333333]
    """
    check_batches(curvatures.n, batch_size, "reshuffling")
    check_number("momentum", momentum, 0, 1, at_low=True)
    if not curvatures.rank:
        return math.inf
    if not can_enumerate_epochs(curvatures, batch_size, momentum):
        orders = number_of_batches(curvatures.n, batch_size, "reshuffling")
        raise ValueError(
            f"the threshold of reshuffled epochs is known by enumeration only, and {orders:.3g} "
            f"orders in {curvatures.rank} dimensions are too many: expected at most {MOST:,} in "
            f"{LARGEST}. sampling='without replacement' is near, and certify_sgd gives bounds"
        )
    epochs = torch.tensor(
        [
            [[float(i in batch) / len(batch) for i in range(curvatures.n)] for batch in epoch]
            for epoch in all_epochs(curvatures.n, batch_size)
        ],
        dtype=torch.float64,
    )
    H = torch.einsum("emn,nij->meij", epochs, curvatures.matrices.cpu())
    return first_crossing(
        lambda lr: _growth(H, lr, momentum), 2 * (1 + momentum) / curvatures.sharpness
    )


def _growth(H: Float[Tensor, "m e r r"], lr: float, momentum: float) -> float:
    """The spectral radius of what an epoch does to second moments."""
    steps = [_step(batch, lr, momentum) for batch in H]
    M = steps[0]
    for step in steps[1:]:
        M = step @ M
    size = M.shape[-1]
    both = torch.einsum("eij,ekl->ikjl", M, M).reshape(size**2, size**2) / len(M)
    return float(torch.linalg.eigvals(both).abs().max())


def _step(H: Float[Tensor, "e r r"], lr: float, momentum: float) -> Float[Tensor, "e s s"]:
    """The steps with some matrices, on w, or on w and the one before where there is momentum."""
    one = torch.eye(H.shape[-1], dtype=H.dtype).expand_as(H)
    if not momentum:
        return one - lr * H
    upper = torch.cat([(1 + momentum) * one - lr * H, -momentum * one], 2)
    return torch.cat([upper, torch.cat([one, torch.zeros_like(one)], 2)], 1)
