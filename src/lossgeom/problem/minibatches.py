"""A problem on single batches of its data, or on random ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lossgeom.batches import Batch, map_tensors, tensors_of
from lossgeom.linalg import random_numbers
from lossgeom.problem.passes import Data
from lossgeom.problem.problem import Problem


def each_batch(problem: Problem) -> Iterator[Problem]:
    """Yield the problem on each of its batches alone, in their order."""
    for raw in problem.over_batches(lambda batch: batch.raw):
        yield on_raw(problem, raw)


def sampled_batches(problem: Problem, batch_size: int, *, seed: int = 0) -> Iterator[Problem]:
    """Yield the problem on random batches, without end.

    Each is drawn from all examples without replacement, and independently of the others.

    Raises:
        ValueError: for a size that there are not as many examples for, or where examples of
            several batches cannot be put into one.
    """
    whole = _joined(problem)
    n = len(whole)
    if not 1 <= batch_size <= n:
        raise ValueError(f"expected a batch_size of 1 to {n} examples, got {batch_size}")
    generator = random_numbers(seed)
    while True:
        places = torch.randperm(n, generator=generator)[:batch_size]
        yield on_raw(problem, whole.each_row(partial(_rows, places=places)).raw)


def on_raw(problem: Problem, raw: Any) -> Problem:
    """The problem on one batch, as its owner would write it."""
    return on_batches(problem, [raw])


def on_batches(problem: Problem, batches: Sequence[Any]) -> Problem:
    """The problem on other batches, as their owner would write them."""
    return problem._with(data=Data(batches, problem.data.target))


def _rows(tensor: Tensor, places: Tensor) -> Tensor:
    return tensor.index_select(0, places.to(tensor.device))


def _joined(problem: Problem) -> Batch:
    """All examples in one batch."""
    batches = problem.over_batches(lambda batch: problem.in_examples(batch, mixed=True))
    first, *others = batches
    if not others:
        return first
    rows = first.rows or ()
    columns = zip(*(tensors_of(batch.raw) for batch in batches), strict=True)
    try:
        joined = [
            torch.cat(column) if row else column[0]
            for row, column in zip(rows, columns, strict=True)
        ]
    except RuntimeError as error:
        raise ValueError(
            "expected batches whose examples can be put into one, to draw others from; their "
            f"tensors differ in shape ({error}). Pad them to one length, or leave batch_size out "
            "and give batches of the size of training"
        ) from None
    parts = iter(joined)
    return first.made_of(map_tensors(lambda _: next(parts), first.raw))
