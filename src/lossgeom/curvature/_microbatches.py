"""Batches in pieces that are worked on one after the other."""

from __future__ import annotations

import math
from contextlib import suppress

import torch

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.batches import Batch, holds_only_tensors
from lossgeom.problem import Problem
from lossgeom.problem.agreement import REORDERED, agree
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import Key
from lossgeom.problem.nearby import drawn, nearby


def pieces(problem: Problem, batch: Batch, least: float) -> list[Batch]:
    """Cut a batch in at least so many equal pieces, if its examples have nothing in common.

    The loss must be one that is known as a sum over targets. That it has no weights for the
    examples of a whole batch, and that the model treats examples one by one, is tried on the pieces
    themselves, at a random point near theta, where no accident, such as a head of zeros, hides what
    they have in common. A seed draws for whole batches.
    """
    parts = min(math.ceil(least), len(batch))
    known = problem.criterion.likelihood is not None and problem.seed is None
    if parts < 2 or not known or not holds_only_tensors(batch.raw):
        return [batch]
    size = math.ceil(len(batch) / parts)
    with suppress(TypeError, ValueError):  # tensors that are no rows of examples
        cut = [batch.examples(i, i + size) for i in range(0, len(batch), size)]
        key = Key(_apart, (batch.index, size))
        if problem.cache.value(key, lambda: _apart(problem, batch, cut)):
            return cut
    return [batch]


def _apart(problem: Problem, batch: Batch, cut: list[Batch]) -> bool:
    """Whether the pieces' outputs, and their gradients, make those of the whole batch."""
    theta = problem.at(nearby(problem.theta)).leaf()
    with measuring(theta.device):
        whole = problem.outputs(theta, batch)
        u = drawn(whole)
        rows = [len(piece) * len(whole) // len(batch) for piece in cut]
        gradient, total = torch.zeros_like(problem.theta), problem.theta.new_zeros(())
        try:
            for piece, one, expected in zip(
                cut, torch.split(u, rows), torch.split(whole, rows), strict=True
            ):
                outputs = problem.outputs(theta, piece)
                if not agree(outputs, expected, REORDERED):
                    return False
                gradient += pulled(outputs, theta, one)
                total = total + problem.terms(outputs.detach(), piece)[0]
        except Exception:
            return False
        same = agree(total, problem.terms(whole.detach(), batch)[0], REORDERED)
        return same and agree(gradient, pulled(whole, theta, u), REORDERED)
