"""Batches in pieces that are worked on one after the other."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.autodiff.saved_tensors import with_bytes
from lossgeom.batches import Batch, holds_only_tensors
from lossgeom.linalg import random_numbers
from lossgeom.problem import Problem
from lossgeom.problem.agreement import REORDERED, agree
from lossgeom.problem.examples import nearby
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import Key
from lossgeom.problem.network import graph_nodes
from lossgeom.trust.trial import on_few

PIECE_BYTES = 512 * 2**20  # of saved tensors: larger pieces are no faster and need more memory


def pieces(problem: Problem, batch: Batch) -> list[Batch]:
    """Cut a large batch in equal pieces, if its examples have nothing to do with each other.

    The loss must be one that is known as a sum over targets. That it has no weights for the
    examples of a whole batch, and that the model treats examples one by one, is tried on the pieces
    themselves, at a random point near theta, where no accident, such as a head of zeros, hides what
    they have in common. A seed draws for whole batches.
    """
    parts = min(math.ceil(batch_bytes(problem, batch) / PIECE_BYTES), len(batch))
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
    near, generator = nearby(problem.theta), random_numbers(0)
    with measuring(near.device):
        whole = problem.outputs(near.requires_grad_(), batch)
        u = torch.randn(whole.shape, generator=generator).to(whole)
        rows = [len(piece) * len(whole) // len(batch) for piece in cut]
        gradient, total = torch.zeros_like(near), torch.zeros_like(near[0].detach())
        try:
            for piece, one, expected in zip(
                cut, torch.split(u, rows), torch.split(whole, rows), strict=True
            ):
                outputs = problem.outputs(near, piece)
                if not agree(outputs, expected, REORDERED):
                    return False
                gradient += _pulled(outputs, near, one)
                total = total + problem.terms(outputs.detach(), piece)[0]
        except Exception:
            return False
        same = agree(total, problem.terms(whole.detach(), batch)[0], REORDERED)
        return same and agree(gradient, _pulled(whole, near, u), REORDERED)


def _pulled(outputs: Tensor, theta: Tensor, u: Tensor) -> Tensor:
    if not outputs.requires_grad:
        return torch.zeros_like(theta)
    return torch.autograd.grad(outputs, theta, u, materialize_grads=True)[0]


@dataclass(frozen=True)
class Look:
    """What a few examples show of the graph of a gradient.

    Attributes:
        bytes_each: about what it saves for an example.
        convolutions: whether there are any.
    """

    bytes_each: float
    convolutions: bool


def batch_bytes(problem: Problem, batch: Batch) -> float:
    """About what the graph of a batch's gradient saves."""
    return len(batch) * look(problem, batch).bytes_each


def look(problem: Problem, batch: Batch) -> Look:
    """Look at a few examples, once for a model."""
    return problem.facts.known(Key(look), lambda: on_few(problem, batch, _look))


def _look(small: Problem) -> Look:
    few, theta = small.first_batch(), small.leaf()

    def total_and_gradient() -> Tensor:
        total, _ = small.terms(small.outputs(theta, few), few)
        if total.requires_grad:
            torch.autograd.grad(total, theta, create_graph=True, materialize_grads=True)
        return total

    with small.network.undone():
        total, storages = with_bytes(total_and_gradient)
    return Look(
        max(sum(storages.values()) - theta.nbytes, 0) / len(few),
        any("Convolution" in node.name() for node in graph_nodes(total)),
    )
