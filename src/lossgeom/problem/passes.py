"""Data gone over again and again, and compared with itself."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from lossgeom.batches import Batch, Target, tensors_of

CPU = torch.device("cpu")
PIECE = 2**24  # bytes that are weighed at a time
MULTIPLIER = -0x61C8864680B583EB  # 2^64 by the golden ratio, odd, as a signed number
Fingerprint = tuple[tuple[str, ...], ...]


def blake2b(numbers: memoryview) -> str:
    """The hash of bytes that no two others have."""
    return hashlib.blake2b(numbers).hexdigest()


def fingerprint(
    raw: Any, device: torch.device = CPU, hashed: Callable[[memoryview], object] = blake2b
) -> Fingerprint:
    """Shapes and hashes of all tensors in a batch, to tell whether two passes gave the same.

    They are found on a device: a CPU would take longer for them than a GPU for a product.
    """
    parts = ((part, part.to(device)) for part in tensors_of(raw))
    return tuple((str(tuple(part.shape)), digest(there, hashed)) for part, there in parts)


def digest(part: Tensor, hashed: Callable[[memoryview], object] = blake2b) -> str:
    """The hash of a tensor's numbers, by a function where they are on a CPU."""
    if part.layout != torch.strided:
        part = part.to_dense()
    plain = part.detach().resolve_conj().resolve_neg().contiguous()
    numbers = plain.reshape(-1).view(torch.uint8)
    return str(hashed(numbers.numpy().data)) if part.is_cpu else f"{weighed(numbers):x}"


def weighed(numbers: UInt8[Tensor, " n"]) -> int:
    """The sum of bytes, each times an odd number of its place's own, modulo 2^64.

    It is the same in any order of summation, and another one for bytes that changed places.
    """
    total = torch.zeros((), dtype=torch.int64, device=numbers.device)
    for start in range(0, len(numbers), PIECE):
        piece = numbers[start : start + PIECE].to(torch.int64)
        places = torch.arange(start, start + len(piece), device=piece.device)
        places = (places + 1) * MULTIPLIER
        places = (places ^ (places >> 29)) * MULTIPLIER
        total += (piece * ((places ^ (places >> 32)) | 1)).sum()
    return int(total) % 2**64


class NoBatchesError(ValueError):
    """An error for data without a batch to measure on."""

    def __init__(self) -> None:
        ValueError.__init__(
            self,
            "expected at least one batch, got none; if batches is a generator that is used up, "
            "pass a list",
        )


@dataclass(frozen=True, eq=False)
class Data:
    """Batches that are gone over again and again, and compared with those of the first pass.

    Attributes:
        batches: as their owner has them.
        target: where the targets are in a batch.
        processes: how many have a share of them.
        is_share: whether these are one process's, which may have none.
        sizes: the numbers of examples in the batches, after the first pass.

    Raises:
        TypeError: for targets at what is no place.
    """

    batches: Iterable[Any]
    target: Target = None
    processes: int = 1
    is_share: bool = False
    sizes: list[int] = field(default_factory=list)
    _seen: list[Fingerprint] = field(default_factory=list)
    _ended: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        target = self.target
        if not (target is None or isinstance(target, (int, str)) or callable(target)):
            raise TypeError(
                "expected target to be a place in the batch such as -1, a key, or a function of "
                f"the batch, got {type(target).__name__}"
            )

    def first(self, n: int, in_examples: Callable[[Batch], Batch]) -> Data:
        """The first n examples, told apart by a function."""
        if n < 1:
            raise ValueError(f"expected to take at least one example, got n={n}")
        with self.kept():  # which others do not share
            return Data(FirstExamples(self.batches, n, in_examples, self.target), self.target)

    @property
    def share(self) -> Data:
        """Those of this process alone."""
        return replace(self, processes=1, is_share=self.processes > 1)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave no trace of a pass over the data: put the generators of a DataLoader back.

        Raises:
            ValueError: where several processes share them.
        """
        if self.processes > 1:
            raise ValueError(
                f"this is measured on one process, and {self.processes} share the data of the "
                "problem; make the problem without ranks=, with all of the data on one of them"
            )
        batches = self.batches
        while isinstance(batches, (FirstExamples, Some)):
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

    def over(self, theta: Tensor) -> Iterator[Batch]:
        """Yield the batches, compared with those of the first pass, and moved to where theta is.

        Raises:
            TypeError: for batches of another form.
            ValueError: if there are none, one is empty, or they are not those of the first pass.
        """
        index, sizes = -1, list[int]()
        for index, raw in enumerate(self.batches):
            batch = Batch.of(raw, index, self.target)
            sizes.append(len(batch))
            if not sizes[-1]:
                shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors_of(raw))
                raise ValueError(
                    f"expected batch {index} to hold examples, got tensors of {shapes}"
                )
            # changed numbers have the same sum once in 2^32, and it is five times as fast as a hash
            now = fingerprint(raw, theta.device, zlib.crc32)
            if index == len(self._seen) and not self._ended:
                self._seen.append(now)
            elif index >= len(self._seen) or now != self._seen[index]:
                raise ValueError(
                    f"batch {index} is not the one that an earlier pass gave, so there is no one "
                    "loss to measure; expected batches that come out the same each time: fix the "
                    "shuffling and augmentation, or pass list(batches)"
                )
            yield batch.moved(theta)
        if index < 0 and not self.is_share:
            raise NoBatchesError
        if index + 1 != len(self._seen):
            raise ValueError(
                f"expected {len(self._seen)} batches, as in an earlier pass, got {index + 1}"
            )
        self.sizes[:] = sizes
        self._ended.append(True)


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


@dataclass(frozen=True)
class Some:
    """The batches from one place on, and before another."""

    batches: Iterable[Any]
    first: int
    end: int

    def __iter__(self) -> Iterator[Any]:
        return islice(self.batches, self.first, self.end)
