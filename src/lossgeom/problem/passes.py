"""Data gone over again and again, and compared with itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lossgeom.batches import (
    Batch,
    Target,
    described,
    first_dimensions,
    tensors_of,
    to_parameters,
)

Fingerprint = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FirstExamples:
    """The first n examples of some batches, the last batch cut to fit."""

    batches: Iterable[Any]
    n: int
    in_examples: Callable[[Batch], Batch]
    target: Target = None

    def __iter__(self) -> Iterator[Any]:
        left = self.n
        for index, raw in enumerate(self.batches):
            batch = Batch.of(raw, index, self.target)
            if len(batch) > left:
                batch = self.in_examples(batch).examples(0, left)
            yield batch.raw
            left -= len(batch)
            if left <= 0:
                return
        raise ValueError(f"take({self.n}): the data has only {self.n - left} examples")


def fingerprint(raw: Any) -> Fingerprint:
    """What two passes over the same data in the same order agree in."""
    return tuple((str(tuple(part.shape)), digest(part)) for part in tensors_of(raw))


def digest(part: Tensor) -> str:
    """The hash of a tensor's numbers."""
    if part.layout != torch.strided:
        part = part.to_dense()
    plain = part.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return hashlib.blake2b(plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


class Passes:
    """Compares every pass over the data with the first one."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._batches: list[Fingerprint] = []
        self._ended = False

    def over(self, batches: Iterable[Any], theta: Tensor, target: Target = None) -> Iterator[Batch]:
        """Go over the data, checked, and moved to where theta is.

        Raises:
            TypeError: for batches of another form.
            ValueError: if there are none, one is empty, or they are not those of the first pass.
        """
        index = -1
        for index, raw in enumerate(batches):
            self._check(raw, len(Batch.of(raw, index, target)), index)
            yield Batch.of(to_parameters(raw, theta), index, target)
        if index < 0:
            raise ValueError(
                "expected at least one batch, got none; if batches is a generator that is used up, "
                "pass a list"
            )
        self._end(index + 1)

    def _check(self, raw: Any, size: int, index: int) -> None:
        """Compare a batch with that of the first pass, or note it down."""
        tensors = first_dimensions(raw)
        if len(tensors[0]) == 0:
            raise ValueError(
                f"expected batch {index} to hold examples, got a tensor of shape "
                f"{tuple(tensors[0].shape)}"
            )
        now = fingerprint(raw)
        if index == len(self._batches) and not self._ended:
            self._batches.append(now)
            self.sizes.append(size)
        elif index >= len(self._batches) or now != self._batches[index]:
            raise ValueError(
                f"batch {index} is not the one that an earlier pass gave, so there is no one loss "
                "to measure; expected batches that come out the same each time: fix the shuffling "
                "and augmentation, or pass list(batches)"
            )

    def _end(self, batches: int) -> None:
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
    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        raise TypeError(
            f"expected batches, got a {type(batches).__name__} of single examples; pass a "
            "DataLoader(dataset, batch_size=...)"
        )
    if isinstance(batches, (Mapping, str)):
        raise TypeError(
            f"expected an iterable of batches, got {described(batches)}; a single batch goes in a "
            "list, [batch]"
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
