"""When two ways of computing the same thing count as agreeing."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

# Relative to the norm, or to the largest number, of what is expected.
EXACT = 1e-8  # of layers seen one by one and the whole model, both in float64
REORDERED = 1e-4  # of the same sums in another order, and of derivatives taken in another order
ALONE = 1e-3  # of examples alone and in a batch, in single precision
DIFFERENCES = 1e-3  # of derivatives and finite differences; float32 in a model allows no better
COARSE = 5e-2  # of such in float32
USUAL = 1e-8  # norms from here to its inverse are right in float32, where squares may vanish
PIECE = 2**21  # numbers that are compared at a time
ROUNDED = {REORDERED: 2e-2, ALONE: 5e-2}  # where autocast rounds


def under(autocast: torch.dtype | None, tolerance: float) -> float:
    """The tolerance of sums in another order, or of examples alone, where autocast may round."""
    return tolerance if autocast is None else ROUNDED[tolerance]


def agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether a tensor is another one, up to a tolerance relative to the latter's norm."""
    if found.shape != expected.shape:
        return False
    if not expected.numel():
        return True
    found, expected = found.detach(), expected.detach()
    length = float(expected.norm())
    if USUAL < length < 1 / USUAL:
        return float((found - expected).norm()) <= tolerance * length
    size = expected.abs().amax().clamp(min=torch.finfo(expected.dtype).tiny)  # squares may vanish
    return bool(((found - expected) / size).norm() <= tolerance * (expected / size).norm())


def agree_everywhere(
    found: Tensor, expected: Tensor, tolerance: float, among: Tensor | None = None
) -> bool:
    """Whether each number is the other one, up to a tolerance relative to the largest of all.

    Args:
        found: numbers; NaN and infinite where the others are.
        expected: the others.
        tolerance: relative to the largest finite number.
        among: the numbers to take that from; those that are expected.
    """
    if found.shape != expected.shape:
        return False
    if torch.equal(found, expected):
        return True
    # Some at a time, because what is compared may be as large as all else that is held.
    given = (found, expected, expected if among is None else among)
    pieces, others, sized = (torch.split(y.detach().flatten(), PIECE) for y in given)
    sizes = [float(y.where(y.isfinite(), 0).abs().max()) for y in sized if y.numel()]
    close = partial(torch.allclose, rtol=0, atol=tolerance * max(sizes, default=0), equal_nan=True)
    return all(map(close, pieces, others))


def has_nan(numbers: Tensor) -> bool:
    """Whether one of them is NaN, without a tensor of as many answers."""
    return bool(numbers.numel()) and bool(numbers.amax().isnan())
