"""Whether data comes out the same in every pass, as far as a glance at it can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from lossgeom.batches import described
from lossgeom.linalg import ONE_AT_A_TIME
from lossgeom.problem.isolation import seeded
from lossgeom.problem.passes import Data, Fingerprint, fingerprint

REMEDY = (
    "there is no one loss to measure; expected batches that come out the same each time: fix the "
    "shuffling and augmentation (torch's generators, and NumPy's and Python's own, are fixed here; "
    "others are not), or pass list(batches)"
)


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


def check_repeatable(batches: Iterable[Any], device: torch.device) -> None:
    """Refuse batches that differ from pass to pass, before anything is measured.

    Little is drawn, each twice: of a DataLoader the first indices and one example, and of anything
    else that is no list or tuple, the first batch. Worker processes are not started, and generators
    come out as they went in. What this does not show, a later pass does.

    Raises:
        TypeError: for what is used up after one pass.
        ValueError: if the two draws differ.
    """
    check_iterable(batches)
    if isinstance(batches, DataLoader):
        _check_loader(batches, device)
    else:
        _check_iterations(batches, device)


def _check_loader(loader: DataLoader[Any], device: torch.device) -> None:
    for part in (loader.dataset, loader.sampler, loader.batch_sampler):
        if isinstance(part, Iterator):
            raise TypeError(
                "expected batches that can be iterated more than once, got a DataLoader with a "
                f"{type(part).__name__}, which is used up after one pass"
            )
    if isinstance(loader.dataset, IterableDataset):
        if loader.num_workers == 0:
            _check_iterations(loader, device)
        return
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    if not _draws_by_torch(sampler):
        what = f"{type(sampler).__name__} gives other indices in every pass"
        _check_same(lambda: next(iter(sampler)), what, loader, device)
    dataset = loader.dataset
    while type(dataset) is Subset:
        dataset = dataset.dataset
    if loader.num_workers == 0 and type(dataset) is not TensorDataset:
        _check_example(loader, sampler, device)


def _draws_by_torch(sampler: Any) -> bool:
    """Whether indices are in order or from a generator that is put back."""
    own = sampler.sampler if type(sampler) is BatchSampler else sampler
    return type(own) in (SequentialSampler, RandomSampler)


def _check_example(loader: DataLoader[Any], sampler: Any, device: torch.device) -> None:
    def example() -> Fingerprint:
        first = next(iter(sampler))
        if loader.batch_sampler is None:
            return fingerprint(loader.collate_fn(loader.dataset[first]))
        return fingerprint(loader.collate_fn([loader.dataset[first[0]]]))

    what = f"an example of {type(loader.dataset).__name__} is another one each time it is read"
    _check_same(example, what, loader, device)


def _check_iterations(batches: Iterable[Any], device: torch.device) -> None:
    iterators = _twice(lambda: iter(batches), batches, device)
    if iterators is None:
        return
    if iterators[0] is iterators[1]:
        raise TypeError(
            "expected batches that can be iterated more than once, got a "
            f"{type(batches).__name__} with one iterator, which is used up after one pass"
        )
    left = list(iterators)
    what = f"the first batch of {type(batches).__name__} is another one in every pass"
    _check_same(lambda: fingerprint(next(left.pop())), what, batches, device)


def _check_same(
    draw: Callable[[], Any], what: str, batches: Iterable[Any], device: torch.device
) -> None:
    drawn = _twice(draw, batches, device)
    if drawn is not None and drawn[0] != drawn[1]:
        raise ValueError(f"{what}, so {REMEDY}")


def _twice(
    draw: Callable[[], Any], batches: Iterable[Any], device: torch.device
) -> tuple[Any, Any] | None:
    """Draw twice, each time at the start of a pass; ``None`` where something else is wrong."""
    drawn = []
    for _ in range(2):
        with ONE_AT_A_TIME, seeded(device, 0), Data(batches).kept():
            try:
                drawn.append(draw())
            except Exception:  # which the first pass raises, in its own words
                return None
    return drawn[0], drawn[1]
