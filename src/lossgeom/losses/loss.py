"""A loss as a sum over terms and the number of those terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.losses.likelihoods import Likelihood

Terms = tuple[Tensor, Tensor | float]
TermsFunction = Callable[[Tensor, Any], Terms]


@dataclass(frozen=True)
class Loss:
    """A loss, before it is divided by the number of its terms.

    Attributes:
        name: what the loss is called in records.
        terms: ``(outputs, batch) -> (sum, count)`` with a :class:`lossgeom.batches.Batch`; the sum
            is a scalar tensor.
        average: whether the empirical loss is sum / count over all batches, or the sum itself.
        label_entropy: ``(outputs, batch) -> sum`` of the entropies of the labels, which is the
            least that the sum of terms can be; ``None`` where that is not known.
        likelihood: the distribution whose negative logarithm the terms are, up to weights;
            ``None`` where there is none or it is not known.
        needs_targets: whether batches without targets are an error.
        known: whether it is known that the terms are such a sum and count, of outputs and targets
            alone; it is tried otherwise.
    """

    name: str
    terms: Callable[[Tensor, Batch], Terms]
    average: bool = True
    label_entropy: Callable[[Tensor, Batch], float] | None = None
    likelihood: Likelihood | None = None
    needs_targets: bool = False
    known: bool = False


class NonFiniteError(ArithmeticError):
    """The model or its loss is NaN or infinite at this point."""
