"""Random probes, and products that are taken a block of vectors at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg.arithmetic import random_numbers
from lossgeom.linalg.operator import LinearOperator

BLOCK = 8  # vectors in one product: each costs less in a block than alone, and all have to fit
# samples whose agreement is no chance, see standard_error
AGREEING_FORMS, AGREEING_ENTRIES, VANISHING_PRODUCTS = 18, 8, 7


def draw_signs(A: LinearOperator, k: int, generator: torch.Generator) -> Float[Tensor, "n k"]:
    """Columns of random signs that A can be multiplied with, drawn on the CPU."""
    bits = torch.randint(2, (k, A.shape[1]), generator=generator, dtype=torch.int8).T
    return bits.to(A.device, A.dtype).mul_(2).sub_(1)


def random_signs(A: LinearOperator, k: int, seed: int) -> Float[Tensor, "n k"]:
    """Probes that a matrix can be multiplied with, the same on every device."""
    return draw_signs(A, k, random_numbers(seed))


def groups(total: int, at_most: int = BLOCK) -> list[int]:
    """Divide a number into as few groups of about equal size as there can be."""
    count = -(-max(total, 0) // at_most)
    return [len(range(i, total, count)) for i in range(count)]


def multiply(A: LinearOperator, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
    """Multiply A by V, a block of columns at a time."""
    return torch.cat([A.matmat(part) for part in torch.split(V, BLOCK, dim=1)], dim=1)


def sign_probes(
    A: LinearOperator, k: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "n j"]]:
    """Probes of random signs, a block of the k at a time."""
    for size in groups(k):
        yield draw_signs(A, size, generator)


def columns(A: LinearOperator) -> Iterator[tuple[slice, Float[Tensor, "m k"]]]:
    """The columns of A, a block at a time, in float64, with where they are."""
    n = A.shape[1]
    for first in range(0, n, BLOCK):
        inside = slice(first, min(first + BLOCK, n))
        unit = torch.zeros(n, inside.stop - first, dtype=A.dtype, device=A.device)
        unit[inside].fill_diagonal_(1)
        yield inside, A.matmat(unit).double()


def dots(U: Float[Tensor, "n k"], V: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Scalar products of the columns, in float64."""
    return (U.double() * V.double()).sum(0)


def exact_estimate(value: float, matvecs: int) -> Estimate:
    """An estimate of a number that nothing was sampled for."""
    return Estimate(value, stderr=0.0, converged=math.isfinite(value), matvecs=matvecs)


def mean_estimate(
    samples: Float[Tensor, " k"], sizes: Float[Tensor, " k"], matvecs: int, offset: float = 0.0
) -> Estimate:
    """An offset and the mean of independent samples, with its standard error.

    Sizes are what rounding of the samples is relative to, times the unit of rounding.
    """
    k, value = len(samples), offset + samples.mean().item()
    error = standard_error(samples.var(0), k, sizes.max()).item() if k > 1 else math.inf
    return Estimate(value, error, converged=math.isfinite(value), matvecs=matvecs)


def standard_error(
    variance: Tensor, k: int, rounding: Tensor, agreeing: int = AGREEING_FORMS
) -> Tensor:
    r"""Standard error of a mean of k samples; infinite where so few agree that they tell nothing.

    Two samples of :math:`z^\top [[0, 1], [1, 0]] z` agree every other time. No quadratic form in
    random signs, unless it is constant, takes a value with a probability above 3/4; so k samples
    agree by chance with one of at most :math:`(3/4)^{k - 1}`, of entries :math:`z_i (A z)_i` with
    :math:`2^{1 - k}`, and products with a matrix other than zero vanish with :math:`2^{-k}`. Below
    1 in 100 agreement counts as exact.
    """
    enough = torch.where(rounding > 0, agreeing, VANISHING_PRODUCTS)
    doubtful = (variance.sqrt() <= rounding) & (k < enough)
    error: Tensor = torch.where(doubtful, math.inf, (variance / k).sqrt())
    return error
