"""Which tensors of a batch have examples as rows, as tried on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch, map_tensors, tensors_of
from lossgeom.losses import NonFiniteError
from lossgeom.problem.agreement import ALONE, agree_everywhere, under
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.model_facts import Key
from lossgeom.problem.nearby import near_or_at

FEW = 2  # examples at either end of a batch that are tried
LEFT_WHOLE = 5  # tensors of as many rows as there are examples, of which all choices are tried

T = TypeVar("T")
Call = Callable[[Batch], Tensor]


class SecondDimensionError(ValueError):
    """The examples lie along the second dimension of a tensor."""


@dataclass(frozen=True, eq=False)
class Alone:
    """What a model puts out for a batch, beside which it is tried on single examples.

    Attributes:
        call: the model.
        batch: all of it.
        whole: the outputs for it.
        tolerance: of outputs, relative to the largest.
    """

    call: Call
    batch: Batch
    whole: Tensor
    tolerance: float

    @classmethod
    def of(cls, call: Call, batch: Batch, tolerance: float) -> Alone:
        """Call the model with the batch.

        Raises:
            ValueError: if there is no row of outputs for each example.
            NonFiniteError: if an output is NaN or infinite.
        """
        whole = call(batch)
        if not torch.isfinite(whole).all():
            raise NonFiniteError("the output of the model is NaN or infinite at these parameters")
        rows = [len(tensor) for tensor in tensors_of(batch.raw) if tensor.ndim]
        if whole.ndim == 0 or len(whole) not in rows:
            raise ValueError(
                f"expected one row of outputs per example, got outputs of shape "
                f"{tuple(whole.shape)} for {_listed(batch)}"
            )
        return cls(call, batch, whole, tolerance)

    def agrees(self, alone: Tensor, expected: Tensor) -> bool:
        """Whether an example alone has its outputs in the batch."""
        return agree_everywhere(alone, expected, self.tolerance, among=self.whole)

    def places(self, n: int) -> list[int]:
        """The examples that are tried."""
        return sorted({*range(min(FEW, n)), *range(max(n - FEW, 0), n)})

    def apart(self, rows: tuple[bool, ...]) -> bool:
        """Whether examples cut out of these tensors have their outputs in the batch."""
        cut = replace(self.batch, rows=rows)
        return all(
            self.agrees(self.call(cut.examples(i, i + 1)), self.whole[i : i + 1])
            for i in self.places(len(self.whole))
        )

    def told_apart(self, rows: tuple[bool, ...]) -> tuple[bool, ...] | None:
        """The tensors to cut so that examples are apart, of those that have as many rows."""
        choices = _choices(self.batch, rows)
        return next((one for one in choices if _or_none(partial(self.apart, one))), None)

    def second_dimension(self) -> Tensor | None:
        """The input that has its examples along the second dimension, if that is so."""
        inputs = [t for t in tensors_of(self.batch.inputs) if t.ndim > 1]
        for dim in range(min(2, self.whole.ndim)):
            n = self.whole.shape[dim]
            long = [t for t in inputs if t.shape[1] == n]
            apart = _or_none(partial(self._apart_along_second, n, dim))
            if long and apart:
                return long[0]
        return None

    def _apart_along_second(self, n: int, dim: int) -> bool:
        given = {id(t) for t in tensors_of(self.batch.inputs)}

        def column(t: Tensor, i: int) -> Tensor:
            return t[:, i : i + 1] if id(t) in given and t.ndim > 1 and t.shape[1] == n else t

        def alone(i: int) -> Tensor:
            raw = map_tensors(lambda t: column(t, i), self.batch.raw)
            return self.call(self.batch.made_of(raw))

        return all(self.agrees(alone(i), self.whole.narrow(dim, i, 1)) for i in self.places(n))


def in_examples(
    at: Evaluation, theta: Float[Tensor, " P"], batch: Batch, mixed: bool = False
) -> Batch:
    """A batch that knows which of its tensors have a row for each example.

    That is tried on single examples, in eval mode, once for a model and shape of batches: at a
    point near theta, where no accident hides what depends on what, and at theta, where the other is
    outside of the model's domain. A tensor that all examples share, such as a grid or a mask, is
    none of them, also where it has as many rows by accident.

    Args:
        at: the model.
        theta: its parameters.
        batch: all of it.
        mixed: whether outputs of an example may depend on other examples.

    Raises:
        ValueError: if examples cannot be taken out of the batch, with the tensors it is about and
            what to do: their outputs depend on others, or are no rows.
        NonFiniteError: if outputs are NaN or infinite.
    """

    def rows() -> tuple[bool, ...] | None:
        evaluated, moved = at if at.mode == "eval" else at.in_mode("eval"), batch.moved(theta)

        def look(theta: Tensor) -> tuple[bool, ...] | None:
            call = partial(evaluated.outputs, theta)
            return _in_examples(call, moved, under(at.autocast, ALONE), mixed).rows

        return near_or_at(theta, look)

    key = Key(in_examples, (tuple(t.shape for t in tensors_of(batch.raw)), mixed))
    return replace(batch, rows=at.facts.known(key, rows))


@torch.no_grad()
def _in_examples(call: Call, batch: Batch, tolerance: float, mixed: bool = False) -> Batch:
    """A batch that knows which of its tensors have a row for each example.

    The examples are the rows of the outputs. Tensors with as many rows are cut, and the others are
    left whole; where that gives one example alone other outputs than it has in the batch, such
    tensors are left whole, too, as few as possible.

    Args:
        call: the model.
        batch: all of it.
        tolerance: of outputs, relative to the largest.
        mixed: whether examples may depend on each other, as long as the model runs on fewer.

    Raises:
        ValueError: if examples cannot be taken out of it, with the tensors and what to do.
    """
    if (ends := _or_none(partial(_apart_at_ends, call, batch, tolerance))) is not None:
        return replace(batch, rows=ends)
    trial = Alone.of(call, batch, tolerance)
    rows = tuple(t.ndim > 0 and len(t) == len(trial.whole) for t in tensors_of(batch.raw))
    if (found := trial.told_apart(rows)) is not None:
        return replace(batch, rows=found)
    if (column := trial.second_dimension()) is not None:
        raise SecondDimensionError(
            f"the examples of batch {batch.index} lie along the second dimension of the tensor of "
            f"shape {tuple(column.shape)}, and are expected along the first; permute the batches, "
            "and permute back in Problem(..., forward=lambda model, batch: "
            "model(batch[0].transpose(0, 1))), which puts out one row for each example"
        )
    alone = _or_none(lambda: call(replace(batch, rows=rows).examples(0, 1)))
    if alone is None or alone.shape != trial.whole[:1].shape:
        got = "it does not run" if alone is None else f"it puts out {tuple(alone.shape)}"
        raise ValueError(
            f"expected the model to put out one row of outputs per example, also for the first one "
            f"alone, but {got}; it was cut out of every tensor of {len(trial.whole)} rows in batch "
            f"{batch.index}, of {_listed(batch)}. Either outputs depend on other examples in the "
            "batch, or something in it is no row of an example: what all share, such as a mask, a "
            "grid or a graph, can be a buffer of the model or a constant in Problem(..., "
            "forward=...), and sequences can be padded and packed in forward="
        )
    if not mixed:
        raise ValueError(
            "expected the outputs of one example to depend on its own inputs alone, but they "
            f"depend on other examples in the batch, of {_listed(batch)}"
        )
    return replace(batch, rows=rows)


def _apart_at_ends(call: Call, batch: Batch, tolerance: float) -> tuple[bool, ...] | None:
    """The tensors to cut, as a few examples from both ends of a longer batch tell."""
    n = len(batch)
    if n <= 2 * FEW:
        return None
    ends = batch.each_row(lambda row: torch.cat([row[:FEW], row[-FEW:]]))
    trial = Alone.of(call, ends, tolerance)
    if len(trial.whole) != 2 * FEW:
        return None
    return trial.told_apart(tuple(t.ndim > 0 and len(t) == n for t in tensors_of(batch.raw)))


def _choices(batch: Batch, rows: tuple[bool, ...]) -> Iterator[tuple[bool, ...]]:
    """Yield which tensors to cut: all that can be, then all but one input, and so on."""
    inputs = {id(tensor) for tensor in tensors_of(batch.inputs)}
    tensors = enumerate(tensors_of(batch.raw))
    places = [i for i, tensor in tensors if rows[i] and id(tensor) in inputs]
    for left in range(max(1, len(places)) if len(places) <= LEFT_WHOLE else 2):
        for whole in combinations(places, left):
            yield tuple(row and i not in whole for i, row in enumerate(rows))


def _or_none(compute: Callable[[], T]) -> T | None:
    try:
        return compute()
    except Exception:  # whatever a model says to a part of what it is made for
        return None


def _listed(batch: Batch) -> str:
    """The inputs by their places or keys, and the targets."""
    named = batch.inputs.items() if isinstance(batch.inputs, dict) else enumerate(batch.inputs)
    parts = [f"input {key!r}, {_shapes(value)}" for key, value in named]
    return "; ".join([*parts, f"targets, {_shapes(batch.targets)}"])


def _shapes(part: Any) -> str:
    if isinstance(part, Tensor):
        return str(tuple(part.shape))
    inside = ", ".join(str(tuple(t.shape)) for t in tensors_of(part))
    return f"a {type(part).__name__}{f' of {inside}' if inside else ', which is not cut'}"
