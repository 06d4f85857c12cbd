"""Symmetric P x P matrices."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakMethod

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.autodiff.forward_mode import derivative_along
from lossgeom.autodiff.tape import NotRecordable, record
from lossgeom.batches import Batch
from lossgeom.curvature._kept_graphs import (
    MEMORY_BUDGET,
    KeptGraphs,
    Linearization,
    with_graphs,
)
from lossgeom.curvature._microbatches import batch_bytes, look, pieces
from lossgeom.linalg import LinearOperator, plain_arithmetic, random_numbers
from lossgeom.problem import Problem
from lossgeom.problem.agreement import REORDERED, agree
from lossgeom.problem.model_facts import Key
from lossgeom.problem.network import check_differentiable_again
from lossgeom.trust.trial import on_few

Result = TypeVar("Result")
Product = Callable[[Tensor], Tensor]
Block = Callable[[Float[Tensor, "k P"]], Float[Tensor, "k P"]]

TAPE_BYTES = 32 * 2**20  # of saved tensors in a batch: smaller ones are not worth a recording
CANNOT = (NotRecordable, RuntimeError)  # what forward mode may say
FEW = 2  # vectors for which a recording does not pay


class OnProblem(LinearOperator):
    """A matrix in the dtype and on the device of the parameters of ``self.problem``."""

    problem: Problem

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.theta.dtype

    @property
    def device(self) -> torch.device:
        return self.problem.theta.device


class OnParameters(OnProblem):
    """A symmetric matrix with a row and a column for each parameter of ``self.problem``."""

    @property
    def shape(self) -> tuple[int, int]:
        P = self.problem.theta.numel()
        return P, P

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self


class ParameterMatrix(OnParameters):
    """The matrix sum_b A_b / sum_b n_b, from two ways to multiply by A_b.

    Where it pays, and forward mode agrees with autograd's graphs on a few examples, a product in
    forward mode is recorded for each piece of a batch, and replayed; elsewhere the graph of a
    gradient is kept and differentiated. A matrix that draws random numbers for targets
    by their places in whole batches says that it is ``sampled``, and stays with the graphs.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes to keep between products; 2 GiB.
    """

    sampled = False
    rows_will_do = False

    def __init__(self, problem: Problem, *, memory_budget: int = MEMORY_BUDGET) -> None:
        self.problem, self._first_row = problem, torch.empty(0)
        self._graphs: KeptGraphs[Block] = KeptGraphs(
            problem,
            _weakly(self._linearize),  # graphs that held the matrix would outlive it
            memory_budget,
            cut=(lambda batch: [batch]) if self.sampled else (lambda b: pieces(problem, b)),
            again=_weakly(self._again),
            rows_will_do=self.rows_will_do,
        )

    @abstractmethod
    def linearize(self, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        """The product with one batch's summed matrix at theta, and its number of terms."""

    @abstractmethod
    def along(self, theta: Tensor, batch: Batch, v: Tensor) -> tuple[Tensor, float]:
        """The same product with one vector, in forward mode, and the number of terms."""

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        if not V.shape[1]:
            return torch.zeros_like(V)
        with plain_arithmetic(self.device):
            rows = (V.clone() if V.is_inference() else V.detach()).T.contiguous()
            total, self._first_row = torch.zeros_like(rows), rows[0]

            def accumulate(multiply: Block) -> None:
                total.add_(multiply(rows))

            self._graphs.over_batches(accumulate)
            self._first_row = torch.empty(0)  # a view, which would hold the whole block
            return (total / self._graphs.divisor).T

    def _linearize(self, theta: Tensor, batch: Batch) -> Linearization[Block]:
        if self._forward_mode(batch):
            with suppress(*CANNOT):
                return self._recorded(theta, batch, self._first_row)
        return self._with_graphs(theta, batch)

    def _again(self, theta: Tensor, batch: Batch) -> Block:
        """For one pass, in which a few vectors do without a recording."""

        def multiply(V: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
            if len(V) <= FEW and self._forward_mode(batch):
                with suppress(*CANNOT):
                    return torch.stack([self.along(theta, batch, v)[0].detach() for v in V])
            return self._linearize(theta, batch).linear(V)

        return multiply

    def _with_graphs(self, theta: Tensor, batch: Batch) -> Linearization[Block]:
        made = with_graphs(self.linearize)(theta, batch)
        return Linearization(each_row(made.linear), made.count, made.storages)

    def _recorded(self, theta: Tensor, batch: Batch, v: Tensor) -> Linearization[Block]:
        """From a recording of the product with v, which comes with it."""
        counts = []

        def product(v: Tensor) -> Tensor:
            result, count = self.along(theta, batch, v)
            counts.append(count)
            return result

        tape, value = record(product, v)
        return Linearization(each_row(tape, (v, value)), counts[0], tape.storages)

    def _forward_mode(self, batch: Batch) -> bool:
        """Whether to use it: where it is worth while, and right on a few examples."""
        if self.sampled or not worth_recording(self.problem, batch):
            return False
        key = Key(type(self), self.problem.network.names)
        return self.problem.facts.known(
            key, lambda: on_few(self.problem, batch, self._forward_agrees, double=True)
        )

    def _forward_agrees(self, small: Problem) -> bool:
        on_few = copy.copy(self)
        on_few.problem = small
        theta, few = small.leaf(), small.first_batch()
        generator = random_numbers(0)
        v = torch.randn(theta.numel(), generator=generator, dtype=torch.float64).to(theta)
        by_graphs = on_few.linearize(theta, few)[0](v)
        try:
            recorded = on_few._recorded(theta, few, torch.ones_like(v)).linear(v[None])[0]
        except CANNOT:
            return False
        return agree(recorded, by_graphs, REORDERED)


class GradientDerivative(ParameterMatrix):
    """The derivative in theta of a gradient, one batch at a time."""

    @abstractmethod
    def gradient(self, theta: Tensor, batch: Batch, *, create_graph: bool) -> tuple[Tensor, float]:
        """One batch's summed gradient at theta, and its number of terms."""

    def linearize(self, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        gradient, count = self.gradient(theta, batch, create_graph=True)
        return derivative_product(gradient, theta), count

    def along(self, theta: Tensor, batch: Batch, v: Tensor) -> tuple[Tensor, float]:
        counts = []

        def field(dual: Tensor) -> Tensor:
            gradient, count = self.gradient(dual, batch, create_graph=False)
            counts.append(count)
            return gradient

        return derivative_along(field, theta, v)[2], counts[0]


class OutputSandwich(ParameterMatrix):
    """J^T W J, with the Jacobian J of the outputs and a matrix W on them, one batch at a time."""

    rows_will_do = True

    @abstractmethod
    def weighting(self, outputs: Tensor, batch: Batch) -> tuple[Product, float]:
        """The product with W at the outputs of a batch, and its number of terms."""

    def linearize(self, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        jacobian = BatchJacobian(self.problem.outputs(theta, batch), theta, by_rows=True)
        weigh, count = self.weighting(jacobian.outputs, batch)
        return lambda v: jacobian.pull(weigh(jacobian.push(v))), count

    def along(self, theta: Tensor, batch: Batch, v: Tensor) -> tuple[Tensor, float]:
        leaf, outputs, pushed = derivative_along(
            lambda dual: self.problem.outputs(dual, batch), theta, v
        )
        weigh, count = self.weighting(outputs, batch)
        if not outputs.requires_grad:
            return torch.zeros_like(v), count
        (pulled,) = torch.autograd.grad(outputs, leaf, weigh(pushed), materialize_grads=True)
        return pulled, count


def worth_recording(problem: Problem, batch: Batch) -> bool:
    """Whether a recording saves, over some tens of products, more than it costs.

    Graphs are expensive to differentiate again where there are convolutions. Where there are none,
    arithmetic sets the price of both.
    """
    return look(problem, batch).convolutions and batch_bytes(problem, batch) >= TAPE_BYTES


def derivative_product(gradient: Tensor, theta: Tensor) -> Product:
    """The product with the derivative in theta of a gradient that has a graph."""
    check_differentiable_again(gradient)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # it does not depend on theta
            return torch.zeros_like(v)
        (result,) = torch.autograd.grad(
            gradient, theta, v, retain_graph=True, materialize_grads=True
        )
        return result

    return product


def each_row(product: Product, *known: tuple[Tensor, Tensor]) -> Block:
    """Multiply the rows of a block one by one; what is known is used once, if it comes first."""
    waiting = list(known)

    def multiply(V: Float[Tensor, "k P"]) -> Float[Tensor, "k P"]:
        at_hand = waiting.pop() if waiting else None
        if at_hand is None or not torch.equal(at_hand[0], V[0]):
            results = [product(v) for v in V]
        else:
            results = [at_hand[1], *map(product, V[1:])]
        return torch.stack(results) if len(results) > 1 else results[0][None]

    return multiply


def _weakly(method: Callable[..., Result]) -> Callable[..., Result]:
    """A method that does not keep its object alive."""
    reference = WeakMethod(method)

    def call(*args: Any) -> Result:
        bound = reference()
        if bound is None:
            raise ReferenceError("the matrix is gone")
        return bound(*args)

    return call
