"""Batches of single steps, which depend on a seed and on the step alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lossgeom.messages.wording import one_of

Examples = tuple[Tensor, Tensor]
Sampling = Literal["reshuffling", "without replacement"]
SAMPLINGS: tuple[Sampling, ...] = ("reshuffling", "without replacement")
MOST_TOGETHER, NUMBERS = 256, 2**20  # batches that are drawn together, and random numbers for them


def batch_of_step(
    examples: Examples, batch_size: int, *, seed: int, sampling: Sampling = "reshuffling"
) -> Callable[[int], list[Examples]]:
    """The batch of each step, of a reshuffled epoch or independent of those of other steps.

    Raises:
        ValueError: if there are fewer examples than in a batch, or none, or sampling is another
            one.

    >>> batch_of = batch_of_step((torch.eye(4), torch.zeros(4, 1)), 2, seed=0)
    >>> [(inputs, targets)] = batch_of(5)
    >>> inputs.shape, targets.shape
    (torch.Size([2, 4]), torch.Size([2, 1]))
    """
    if not 1 <= batch_size <= len(examples[0]):
        raise ValueError(
            f"expected a batch_size of 1 to {len(examples[0])} examples, got {batch_size}"
        )
    if sampling not in SAMPLINGS:
        raise ValueError(f"expected sampling to be {one_of(SAMPLINGS)}, got {sampling!r}")
    make = _reshuffled if sampling == "reshuffling" else _independent
    return make(examples, batch_size, seed)


def _reshuffled(examples: Examples, batch_size: int, seed: int) -> Callable[[int], list[Examples]]:
    """Cut an order of all examples, another one for every epoch, into batches."""
    n = len(examples[0])
    per_epoch = -(-n // batch_size)

    @lru_cache(maxsize=1)
    def batches_of(epoch: int) -> list[Examples]:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))
        parts = (torch.split(part[order], batch_size) for part in examples)
        return list(zip(*parts, strict=True))

    def batch_of(step: int) -> list[Examples]:
        epoch, place = divmod(step, per_epoch)
        return [batches_of(epoch)[place]]

    return batch_of


def _independent(examples: Examples, batch_size: int, seed: int) -> Callable[[int], list[Examples]]:
    """Draw different examples for every batch, whatever those before it were."""
    inputs, targets = examples
    n = len(inputs)
    together = max(1, min(MOST_TOGETHER, NUMBERS // n))

    @lru_cache(maxsize=1)
    def places_of(part: int) -> Tensor:
        numbers = np.random.default_rng([seed, part]).random((together, n))
        return torch.from_numpy(numbers.argpartition(batch_size - 1, axis=1)[:, :batch_size])

    def batch_of(step: int) -> list[Examples]:
        part, place = divmod(step, together)
        places = places_of(part)[place]
        return [(inputs[places], targets[places])]

    return batch_of
