"""Products with a piece's matrix that are recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.recorded_products import Compiled, NotRecordable, Tape, record
from lossgeom.curvature._memory import Linearization

Product = Callable[..., Tensor]
Counted = tuple[Tensor, float]  # a product, and the number of terms of the piece
CANNOT = (NotRecordable, RuntimeError)  # what a recording may say


def by_forward_mode(
    along: Callable[[Tensor], Counted],
    rows: Float[Tensor, "k P"],
    note: Callable[[str], None] | None = None,
) -> tuple[Tensor, Linearization[Product]]:
    """Record the product with the first vector in forward mode, and replay it for the others.

    Args:
        along: a vector to its product.
        rows: the vectors.
        note: is told where a replay cannot be compiled; None where it is not to be.
    """
    counts = []

    def product(v: Tensor) -> Tensor:
        result, count = along(v)
        counts.append(count)
        return result

    tape, first = record(product, rows[0])
    replay = tape if note is None else Compiled(tape, note)
    return _replayed(tape, first, rows), Linearization(replay, counts[0], tape.storages)


def by_graph(
    product: Product, count: float, rows: Float[Tensor, "k P"]
) -> tuple[Tensor, Linearization[Product]]:
    """Record what a graph does with the first vector; the graph need then not be kept."""
    tape, first = record(product, rows[0])
    return _replayed(tape, first, rows), Linearization(tape, count, tape.storages)


def _replayed(tape: Tape, first: Tensor, rows: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
    return torch.stack([first, *map(tape, rows[1:])]) if len(rows) > 1 else first[None]
