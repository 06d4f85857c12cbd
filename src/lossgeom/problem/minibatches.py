"""A problem on single batches of its data, or on random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lossgeom.batches import Batch, map_tensors, tensors_of
from lossgeom.distributed import ALONE, Ranks
from lossgeom.linalg import random_numbers
from lossgeom.problem.passes import Data, Some, fingerprint
from lossgeom.problem.problem import Problem
from lossgeom.problem.reduction import in_order

TOGETHER = 2**17  # numbers in batches that are put into one: few, as a model may hold many for each


def each_batch(problem: Problem) -> Iterator[Problem]:
    """Yield the problem on each of its batches alone, in their order."""
    problem = whole(problem)
    for raw in problem.over_batches(lambda batch: batch.raw):
        yield on_raw(problem, raw)


def sampled_batches(problem: Problem, batch_size: int, *, seed: int = 0) -> Iterator[Problem]:
    """Yield the problem on random batches, without end.

    Each is drawn from all examples without replacement, and independently of the others.

    Raises:
        ValueError: for a size that there are not as many examples for, or where examples of
            several batches cannot be put into one.
    """
    problem = whole(problem)
    joined = _joined(_told_apart(problem))
    n = len(joined)
    if not 1 <= batch_size <= n:
        raise ValueError(f"expected a batch_size of 1 to {n} examples, got {batch_size}")
    generator = random_numbers(seed)
    while True:
        places = torch.randperm(n, generator=generator)[:batch_size]
        yield on_raw(problem, joined.each_row(partial(_rows, places=places)).raw)


def whole(problem: Problem) -> Problem:
    """The problem with the data of all processes on each, which then needs no other."""
    if problem.ranks.size == 1:
        return problem
    batches = problem.rows(lambda here: here.over_batches(lambda batch: batch.raw))
    evaluation = replace(problem.evaluation, batches_before=0)
    data = Data(batches, problem.data.target)
    return problem._with(evaluation=evaluation, data=data, ranks=ALONE)


def shared(problem: Problem, ranks: Ranks) -> Problem:
    """The problem with its batches shared among processes, all of which have all of them.

    Each measures on as many in a row as any other, or on one more; it has to go through those that
    come before.

    Raises:
        ValueError: if they do not have the same.
    """
    if ranks.size == problem.ranks.size:
        return problem
    prints = problem.over_batches(lambda batch: fingerprint(batch.raw, problem.theta.device))
    if any(others != prints for others in ranks.gathered(prints)):
        raise ValueError(
            "expected all processes to have the same data, to be shared among them, got other "
            "batches in some; fix the seeds of what makes them, and choose none by rank"
        )
    first, end = (len(prints) * rank // ranks.size for rank in (ranks.rank, ranks.rank + 1))
    data = Data(Some(problem.batches, first, end), problem.data.target, processes=ranks.size)
    evaluation = in_order(problem.evaluation, data, ranks)
    return problem._with(evaluation=evaluation, data=data, ranks=ranks)


def in_larger_batches(problem: Problem) -> Problem:
    """The problem with small batches that follow each other put into one, where they can be.

    A pass over these takes less time, and adds up the same terms in another order, if no example
    depends on others. Where a seed fixes what is drawn for a batch, batches stay as they are.
    """
    groups, room = list[list[Batch]](), 0
    try:
        for batch in _told_apart(problem) if problem.seed is None else ():
            size = sum(tensor.numel() for tensor in tensors_of(batch.raw))
            if size > room:
                groups, room = [*groups, []], TOGETHER
            groups[-1].append(batch)
            room -= size
        if groups and all(batch.rows and all(batch.rows) for group in groups for batch in group):
            return on_batches(problem, [_joined(group).raw for group in groups])
    except ValueError:  # of batches whose examples cannot be told apart, or differ in shape
        pass
    return problem


def on_raw(problem: Problem, raw: Any) -> Problem:
    """The problem on one batch, as its owner would write it."""
    return on_batches(problem, [raw])


def on_batches(problem: Problem, batches: Sequence[Any]) -> Problem:
    """The problem on other batches, as their owner would write them."""
    return problem._with(data=Data(batches, problem.data.target), ranks=ALONE)


def _rows(tensor: Tensor, places: Tensor) -> Tensor:
    return tensor.index_select(0, places.to(tensor.device))


def _told_apart(problem: Problem) -> list[Batch]:
    """The batches, which know their examples."""
    return problem.over_batches(lambda batch: problem.in_examples(batch, mixed=True))


def _shared(batch: Batch) -> object:
    """What a batch holds beside the rows of its examples."""
    tensors = zip(tensors_of(batch.raw), batch.rows or (), strict=True)
    return _without_tensors(batch.raw), fingerprint([t for t, row in tensors if not row])


def _without_tensors(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return [(key, _without_tensors(value)) for key, value in tree.items()]
    if isinstance(tree, (tuple, list)):
        return list(map(_without_tensors, tree))
    return None if isinstance(tree, Tensor) else tree


def _joined(batches: Sequence[Batch]) -> Batch:
    """All examples in one batch."""
    first, *others = batches
    if not others:
        return first
    rows = first.rows or ()
    if any(_shared(batch) != _shared(first) for batch in others):
        raise ValueError(
            "expected batches whose examples can be put into one, to draw others from; they differ "
            "in what belongs to no example: numbers, words, or tensors that all of a batch share. "
            "Leave out of them what the model does not need, or leave batch_size out and give "
            "batches of the size of training"
        )
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
