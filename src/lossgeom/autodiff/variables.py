"""What the outputs of a model are differentiated in."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch, tensors_of
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.model_facts import Key
from lossgeom.problem.network import graph_nodes

Leaves = tuple[Tensor, ...]


@runtime_checkable
class Variables(Protocol):
    """What outputs are differentiated in."""

    @property
    def name(self) -> Hashable:
        """Tells them from others of the same model."""
        ...

    @property
    def shared(self) -> tuple[bool, ...]:
        """Which of them all examples share."""
        ...

    def at(self, problem: Problem, batch: Batch) -> Leaves:
        """Where the derivative is taken; a row for each example in those that are not shared."""
        ...

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        """The outputs for a batch as a function of them."""
        ...


@dataclass(frozen=True)
class Parameters:
    """The parameters of the problem."""

    names: tuple[str, ...]
    shared = (True,)

    @property
    def name(self) -> Hashable:
        return "parameters", self.names

    def at(self, problem: Problem, batch: Batch) -> Leaves:  # noqa: ARG002
        return (problem.theta,)

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        return problem.outputs(leaves[0], batch)


@dataclass(frozen=True)
class Input:
    """The one input of the model."""

    name = "input"
    shared = (False,)

    def at(self, problem: Problem, batch: Batch) -> Leaves:  # noqa: ARG002
        return (differentiable_input(batch),)

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        return problem.outputs(problem.theta, batch.with_tensor(batch.input, leaves[0]))


def differentiable_input(batch: Batch) -> Tensor:
    """The input, if there can be a gradient in it."""
    if not batch.input.is_floating_point():
        raise ValueError(
            f"expected floating-point inputs to differentiate in, got {batch.input.dtype}"
        )
    return batch.input


def check_reached(problem: Problem, batch: Batch, tensor: Tensor) -> None:
    """Refuse a model that takes an input out of the graph, whose derivative would pass for zero.

    Looked at once for a model, shape of an example and place of it.
    """
    place = [part is tensor for part in tensors_of(batch.inputs)]
    key = Key(check_reached, (tensor.shape[1:], tuple(place)))
    if not problem.facts.known(key, lambda: _reached(problem, batch, tensor)):
        raise ValueError(
            "expected outputs to be differentiable in the input, but they change with it and have "
            "no graph that leads there: the model detaches it (x.detach(), torch.no_grad(), or a "
            "tensor made of its numbers). A model that differentiates in its own input can do so "
            "in x.clone() under torch.enable_grad()"
        )


def _reached(problem: Problem, batch: Batch, tensor: Tensor) -> bool:
    def outputs(other: Tensor) -> Tensor:
        return problem.outputs(problem.theta, batch.with_tensor(tensor, other))

    leaf = tensor.detach().requires_grad_()
    here = outputs(leaf)
    if any(getattr(node, "variable", None) is leaf for node in graph_nodes(here)):
        return True
    with torch.no_grad():  # as is right for a model that does not depend on it
        return torch.equal(outputs(0.9 * tensor + 0.1 * tensor.flip(0) + 0.01), here)


@torch.no_grad()
def finite_outputs(problem: Problem, batch: Batch) -> Float[Tensor, "B C"]:
    """The outputs for a batch, without a graph."""
    outputs = rows_of(problem.outputs(problem.theta, batch), batch)
    if not torch.isfinite(outputs).all():
        raise NonFiniteError("the output of the model is NaN or infinite at these parameters")
    return outputs


def rows_of(outputs: Tensor, batch: Batch) -> Float[Tensor, "B C"]:
    """Outputs as one row for each example of a batch."""
    if outputs.ndim == 0 or len(outputs) != len(batch):
        raise ValueError(
            f"expected one row of outputs per example, got outputs of shape "
            f"{tuple(outputs.shape)} for {len(batch)} examples"
        )
    return outputs.reshape(len(outputs), -1)


def leaves_of(variables: Variables, problem: Problem, batch: Batch) -> Leaves:
    """Where the derivative is taken, as leaves of a graph."""
    return tuple(leaf.detach().requires_grad_() for leaf in variables.at(problem, batch))


def size_of(variables: Variables, problem: Problem, batch: Batch) -> int:
    """How many numbers an example has of them."""
    return sum(leaf.numel() for leaf in variables.at(problem, batch.examples(0, 1)))
