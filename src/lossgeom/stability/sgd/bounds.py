"""Learning rates that are certainly stable, and the worst of all batches."""

from __future__ import annotations

import math

import torch

from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.sampling import (
    MOST,
    Sampling,
    all_batches,
    number_of_batches,
)

NUMBERS = 2**24  # of matrices of batches that are held


def largest_batch_sharpness(
    curvatures: ExampleCurvatures, batch_size: int, sampling: Sampling = "without replacement"
) -> tuple[float, bool]:
    r"""The largest eigenvalue of the mean over any batch, or what it is at most.

    .. math:: \max_b \lambda_{\max}(H_b) \le \min\Big(\frac1B \sum_{j \le B} \lambda^{(j)},\;
        \frac nB \lambda_{\max}(H)\Big)

    with the largest :math:`\lambda^{(j)} = \lambda_{\max}(H_i)` first; with replacement it is that
    of one example. Below 2 / lr no step of whatever batch can grow, in whatever order: a
    pessimistic line, under which SGD is stable for certain, also on reshuffled epochs. Beyond the
    linearised steps a single batch that oscillates is enough for SGD to diverge in expectation.

    Returns:
        The number, and whether all batches were looked at, so that it is exact.

    Source: Mulayoff and Stich, COLT 2026, for what a single batch does; the bound is derived here.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> value, exact = largest_batch_sharpness(ExampleCurvatures.of(points[:, None]), 2)
    >>> round(value, 6), exact
    (2.618034, True)
    """
    n, norms = curvatures.n, curvatures.norms.sort(descending=True).values
    if sampling == "with replacement" or batch_size == 1:
        return float(norms[0]), True
    batches, r = number_of_batches(n, batch_size, "without replacement"), curvatures.rank
    divides = sampling != "reshuffling" or n % batch_size == 0
    if divides and batches <= MOST and batches * r * r <= NUMBERS:
        listed, _ = all_batches(n, batch_size, "without replacement")
        means = torch.stack([curvatures.matrices[list(batch)].mean(0) for batch in listed])
        return float(torch.linalg.eigvalsh(means)[:, -1].max()), True
    smallest = batch_size if divides else n % batch_size
    most = float(norms[:smallest].mean())
    return min(most, n / smallest * curvatures.sharpness), False


def certainly_stable(
    curvatures: ExampleCurvatures,
    batch_size: int,
    p: float | None,
    sampling: Sampling,
    momentum: float = 0.0,
) -> float:
    r"""A learning rate at which SGD is stable for certain, from norms alone.

    .. math:: \eta \le \frac{2}{(1 - p) \lambda_{\max}(H) + p \max_i \lambda_{\max}(H_i)}

    suffices for batches that are drawn independently: then no step raises :math:`E \|w\|^2`, since
    :math:`E H_b^2 \preceq ((1 - p) \lambda_{\max}(H) + p \max_i \lambda_{\max}(H_i)) H`. So does 2
    over :func:`largest_batch_sharpness`, for every sampling. With momentum :math:`\beta`, and
    independent batches,

    .. math:: \frac2\eta \ge \frac{\lambda_{\max}(H)}{1 + \beta} + \frac{p \max_i
        \lambda_{\max}(H_i)}{1 - \beta},

    since the map of :func:`noise_gain` takes R o H to at most a multiple of it, and so has no
    larger spectral radius. Of reshuffled epochs with momentum nothing is certain, and it is 0.

    Args:
        curvatures: see :func:`example_curvatures`.
        batch_size: B.
        p: see :func:`noise_share`; ``None`` for reshuffled epochs.
        sampling: of the batches.
        momentum: of heavy ball.

    Source: derived here.

    >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
    >>> curvatures = ExampleCurvatures.of(points[:, None])
    >>> round(certainly_stable(curvatures, 2, 1 / 3, "without replacement"), 6)
    0.857143
    """
    if not curvatures.rank:
        return math.inf
    of_batches, _ = largest_batch_sharpness(curvatures, batch_size, sampling)
    largest = float(curvatures.norms.max())
    return sufficient(curvatures.sharpness, largest, of_batches, p, momentum)


def sufficient(
    sharpness: float, of_examples: float, of_batches: float, p: float | None, momentum: float
) -> float:
    """The learning rate of :func:`certainly_stable`, from what its three norms are at most."""
    if momentum:
        if p is None:
            return 0.0
        return 2 / (sharpness / (1 + momentum) + p * of_examples / (1 - momentum))
    if p is None:
        return 2 / of_batches
    mixed = p * of_examples + ((1 - p) * sharpness if p < 1 else 0.0)  # of infinite sharpness, too
    return 2 / min(of_batches, mixed)
