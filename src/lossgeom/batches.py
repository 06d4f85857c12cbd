"""Passing over batches again and again, always over the same data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

Batch = tuple[Tensor, Tensor]
Fingerprint = tuple[tuple[int, ...], str, str]


@dataclass(frozen=True)
class FirstExamples:
    """The first n examples of some batches, the last batch cut to fit."""

    batches: Iterable[Any]
    n: int

    def __iter__(self) -> Iterator[Any]:
        left = self.n
        for batch in self.batches:
            inputs, targets = as_pair(batch, 0)
            yield inputs[:left], targets[:left]
            left -= min(left, len(inputs))
            if left == 0:
                return
        raise ValueError(f"take({self.n}): the data has only {self.n - left} examples")


def as_pair(batch: Any, index: int) -> Batch:
    """Check that a batch is a pair of tensors with at least one example."""
    if not (
        isinstance(batch, (tuple, list))
        and len(batch) == 2
        and all(isinstance(part, Tensor) for part in batch)
    ):
        raise TypeError(
            f"expected batch {index} to be a pair of tensors (inputs, targets), got "
            f"{_describe(batch)}. A single pair goes in a list, [(inputs, targets)]; batches of "
            "another form have to be made into pairs"
        )
    inputs, targets = batch
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(
            f"expected batch {index} to hold examples, got inputs of shape {tuple(inputs.shape)}"
        )
    return inputs, targets


def _describe(thing: Any) -> str:
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)}"
    if isinstance(thing, (tuple, list)):
        return f"a {type(thing).__name__} of {', '.join(type(part).__name__ for part in thing)}"
    return f"a {type(thing).__name__}"


def to_parameters(batch: Batch, theta: Tensor) -> Batch:
    """Copy a batch to the parameters' device, and its floating tensors to their dtype.

    A copy even where nothing has to move, because a model may work in place on its input.
    """
    inputs, targets = (
        part.to(theta.device, theta.dtype if part.is_floating_point() else part.dtype, copy=True)
        for part in batch
    )
    return inputs, targets


def fingerprint(batch: Batch) -> Fingerprint:
    """What two passes over the same data in the same order agree in."""
    first, second = (_weighted_sum(part) for part in batch)
    return tuple(batch[0].shape), first, second


def _weighted_sum(part: Tensor) -> str:
    """As text, because NaN is not equal to itself."""
    sums = part.reshape(len(part), -1).sum(1, dtype=torch.float64)
    return repr(float(sums @ torch.arange(1.0, len(part) + 1).to(sums)))


class Passes:
    """Compares every pass over the data with the first one."""

    def __init__(self) -> None:
        self._batches: list[Fingerprint] = []
        self._ended = False

    def check(self, batch: Batch, index: int) -> None:
        """Compare a batch with that of the first pass, or note it down."""
        now = fingerprint(batch)
        if index == len(self._batches) and not self._ended:
            self._batches.append(now)
        elif index >= len(self._batches) or now != self._batches[index]:
            raise ValueError(
                f"batch {index} is not the one that an earlier pass gave, so there is no one loss "
                "to measure; expected batches that come out the same each time: fix the shuffling "
                "and augmentation, or pass list(batches)"
            )

    def end(self, batches: int) -> None:
        """Compare the number of batches."""
        if batches != len(self._batches):
            raise ValueError(
                f"expected {len(self._batches)} batches, as in an earlier pass, got {batches}"
            )
        self._ended = True


def check_iterable(batches: Iterable[Any]) -> None:
    """Refuse what cannot be iterated again and again without disturbing the caller."""
    if isinstance(batches, Iterator):
        raise TypeError(
            "expected batches that can be iterated more than once, got a "
            f"{type(batches).__name__}, which is used up after one pass; pass a list or a "
            "DataLoader"
        )
    if isinstance(batches, DataLoader) and batches.persistent_workers:
        raise ValueError(
            "a DataLoader with persistent_workers=True has one iterator, so a pass over it would "
            "end a training loop that is going on; pass one without persistent workers"
        )


@contextmanager
def generators_kept(batches: Iterable[Any]) -> Iterator[None]:
    """Put the generators of a DataLoader back as they were."""
    while isinstance(batches, FirstExamples):
        batches = batches.batches
    owners: list[Any] = []
    if isinstance(batches, DataLoader):
        owners = [batches, batches.sampler, getattr(batches.batch_sampler, "sampler", None)]
    generators = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
