"""Batches in pieces that are worked on one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature._kept_graphs import SavedTensors
from lossgeom.diagnosis import few_examples
from lossgeom.measuring import measuring
from lossgeom.problem import Problem

PIECE_BYTES = 512 * 2**20  # of saved tensors: larger pieces are no faster and need more memory
AGREEMENT = 1e-5  # of the sums over the parts with the sum over the whole


@dataclass(frozen=True)
class Examples:
    """What is known of the examples of a problem, from a look at a few of them.

    Attributes:
        apart: whether loss and gradient of a batch are sums over the examples in it, as they are
            not where batch statistics or a contrastive loss bring them together.
        bytes_each: what the graph of a gradient saves for each.
    """

    apart: bool
    bytes_each: float


def pieces(problem: Problem, batch: Batch) -> list[Batch]:
    """Cut a batch of independent examples in pieces of about equal size."""
    examples = examples_of(problem, batch)
    parts = min(math.ceil(len(batch) * examples.bytes_each / PIECE_BYTES), len(batch))
    if parts < 2 or not examples.apart:
        return [batch]
    size = math.ceil(len(batch) / parts)
    try:
        return [batch.examples(i, i + size) for i in range(0, len(batch), size)]
    except (TypeError, ValueError):  # tensors that are no rows of examples, in this batch only
        return [batch]


def examples_of(problem: Problem, batch: Batch) -> Examples:
    """Look at a few examples of a batch, once for a problem."""
    return problem.once("examples", lambda: _look(problem, batch))


def _look(problem: Problem, batch: Batch) -> Examples:
    small = few_examples(problem, batch)
    few = small.first_batch()
    whole, cut = _sums(small, few), len(few) // 2
    scale = problem.theta.element_size() / whole.gradient.element_size()
    try:
        parts = [_sums(small, few.examples(*ends)) for ends in ((0, cut), (cut, len(few)))]
    except (ArithmeticError, RuntimeError, TypeError, ValueError):
        return Examples(False, scale * whole.saved / len(few))
    apart = problem.seed is None and whole.is_sum_of(*parts)  # a seed draws for whole batches
    return Examples(apart, scale * (whole.saved - parts[0].saved) / (len(few) - cut))


@dataclass(frozen=True, eq=False)
class _Sums:
    """A batch's loss, number of terms and gradient, and the bytes that its graph saves."""

    loss: float
    count: float
    gradient: Tensor
    saved: int

    def is_sum_of(self, first: _Sums, second: _Sums) -> bool:
        """Whether what is known of a whole agrees with its two parts."""
        error = (self.gradient - first.gradient - second.gradient).norm()
        return (
            abs(self.loss - first.loss - second.loss)
            <= AGREEMENT * (abs(first.loss) + abs(second.loss))
            and abs(self.count - first.count - second.count) <= AGREEMENT * self.count
            and bool(error <= AGREEMENT * (first.gradient.norm() + second.gradient.norm()))
        )


def _sums(problem: Problem, batch: Batch) -> _Sums:
    theta, saved = problem.leaf(), SavedTensors()
    with measuring(theta.device), saved.counted():
        total, count = problem.terms(problem.outputs(theta, batch), batch)
        gradient = torch.zeros_like(theta)
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(
                total, theta, create_graph=True, materialize_grads=True
            )
    return _Sums(total.item(), count, gradient.detach(), sum(saved.storages.values()))
