"""How SGD draws the examples of its batches, and how noisy their mean is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, combinations_with_replacement
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.wording import one_of

Sampling = Literal["without replacement", "with replacement", "reshuffling"]
SAMPLINGS: tuple[Sampling, ...] = ("without replacement", "with replacement", "reshuffling")

Places = tuple[int, ...]  # of the examples of a batch
MOST = 20_000  # batches, or orders of an epoch, that are listed


def check_batches(n: int, batch_size: int, sampling: Sampling) -> None:
    """Raise for batches that cannot be drawn of n examples.

    >>> check_batches(4, 2, "without replacement")
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"expected sampling to be {one_of(SAMPLINGS)}, got {sampling!r}")
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"expected a batch_size from 1 to {n}, the number of examples; got {batch_size}"
        )


def noise_share(n: int, batch_size: int, sampling: Sampling = "without replacement") -> float:
    r"""p, the share of a single example's noise that is left in the mean of a batch.

    .. math:: E\,[\bar x_b \bar x_b^\top] = (1 - p)\, \bar x \bar x^\top
        + \frac{p}{n} \sum_i x_i x_i^\top, \qquad
        p = \frac{n - B}{B (n - 1)}, \quad p = \frac1B

    for batches b of B of n examples, without and with replacement: in its first two moments SGD is
    a mixture of steps with all examples, in 1 - p of the cases, and with one, in p of them. Batches
    of different steps are independent, which those of a reshuffled epoch are not.

    Args:
        n: number of examples.
        batch_size: B.
        sampling: ``"without replacement"`` or ``"with replacement"``.

    Raises:
        ValueError: for a batch size out of 1..n, or a sampling that has no p.

    Source: Mulayoff and Michaeli, arXiv:2306.07850, section 3.

    >>> noise_share(4, 2), noise_share(4, 2, "with replacement"), noise_share(4, 4)
    (0.3333333333333333, 0.5, 0.0)
    """
    check_batches(n, batch_size, sampling)
    if sampling == "reshuffling":
        raise ValueError(
            "the batches of a reshuffled epoch depend on each other, so there is no p; expected "
            "sampling 'without replacement' or 'with replacement'"
        )
    if sampling == "with replacement":
        return 1 / batch_size
    return (n - batch_size) / (batch_size * (n - 1)) if n > 1 else 0.0


def smallest_batch(n: int, p: float, sampling: Sampling = "without replacement") -> int | None:
    """The smallest batch size with a noise share of at most p; ``None`` if even n has a larger one.

    >>> smallest_batch(4, 0.34), smallest_batch(4, 0.3), smallest_batch(4, 0.2, "with replacement")
    (2, 3, None)
    """
    exact = n / (1 + p * (n - 1)) if sampling == "without replacement" else 1 / max(p, 1e-300)
    near = range(max(1, math.ceil(exact) - 1), min(n, math.ceil(exact) + 1) + 1)  # rounding
    return next((B for B in near if noise_share(n, B, sampling) <= p), None)


def number_of_batches(n: int, batch_size: int, sampling: Sampling) -> int:
    """Count the batches that can be drawn, or, of reshuffling, the orders of an epoch.

    >>> number_of_batches(4, 2, "with replacement"), number_of_batches(4, 2, "reshuffling")
    (10, 6)
    """
    if sampling == "with replacement":
        return math.comb(n + batch_size - 1, batch_size)
    if sampling == "without replacement":
        return math.comb(n, batch_size)
    parts = [math.factorial(size) for size in epoch_sizes(n, batch_size)]
    return math.factorial(n) // math.prod(parts)


def epoch_sizes(n: int, batch_size: int) -> list[int]:
    """The sizes of the batches of an epoch, of which the last holds what is left.

    >>> epoch_sizes(7, 3)
    [3, 3, 1]
    """
    whole, left = divmod(n, batch_size)
    return [batch_size] * whole + [left] * (left > 0)


def all_batches(
    n: int, batch_size: int, sampling: Sampling
) -> tuple[list[Places], Float[Tensor, " M"]]:
    """List all batches of independent draws, as places of examples, and their probabilities."""
    if sampling == "without replacement":
        listed = list(combinations(range(n), batch_size))
        return listed, torch.full((len(listed),), 1 / len(listed), dtype=torch.float64)
    listed = list(combinations_with_replacement(range(n), batch_size))
    chances = [_orders(batch) / n**batch_size for batch in listed]
    return listed, torch.tensor(chances, dtype=torch.float64)


def _orders(batch: Places) -> int:
    """In how many orders a batch can be drawn."""
    same = math.prod(math.factorial(times) for times in Counter(batch).values())
    return math.factorial(len(batch)) // same


def all_epochs(n: int, batch_size: int) -> Iterator[list[Places]]:
    """Yield the equally likely ways in which a shuffled epoch is cut into batches, in order."""
    yield from _cut(tuple(range(n)), epoch_sizes(n, batch_size))


def _cut(left: Places, sizes: list[int]) -> Iterator[list[Places]]:
    if not sizes:
        yield []
        return
    for batch in combinations(left, sizes[0]):
        rest = tuple(i for i in left if i not in batch)
        for others in _cut(rest, sizes[1:]):
            yield [batch, *others]
