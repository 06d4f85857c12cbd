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
    """What two passes over the same data agree in."""
    inputs, targets = batch
    first, second = (repr(part.sum(dtype=torch.float64).item()) for part in (inputs, targets))
    return tuple(inputs.shape), first, second  # as text, because NaN is not equal to itself


def check_same_pass(seen: list[Fingerprint], batch: Batch, index: int) -> None:
    """Compare a batch with the same batch of the first pass, or note it down."""
    now = fingerprint(batch)
    if index == len(seen):
        seen.append(now)
    elif now != seen[index]:
        raise ValueError(
            f"batch {index} is not the one that an earlier pass gave, so there is no one loss to "
            "measure; expected batches that come out the same each time: fix the shuffling and "
            "augmentation, or pass list(batches)"
        )


@contextmanager
def generators_kept(batches: Iterable[Any]) -> Iterator[None]:
    """Put the generators of a DataLoader back as they were."""
    while isinstance(batches, FirstExamples):
        batches = batches.batches
    owners = [batches, batches.sampler] if isinstance(batches, DataLoader) else []
    generators = [getattr(owner, "generator", None) for owner in owners]
    states = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
