"""Matrices of a problem, and how a product with one on the parameters is made."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.autodiff.forward_mode import derivative_along
from lossgeom.batches import Batch
from lossgeom.curvature._memory import Kept, Linearization, planned, put_down_block
from lossgeom.curvature._microbatches import pieces
from lossgeom.curvature._recordings import CANNOT, Product, by_forward_mode, by_graph
from lossgeom.linalg import LinearOperator, Memory, plain_arithmetic
from lossgeom.losses.graphs import second_derivative, with_bytes
from lossgeom.problem import NoBatchesError, Problem, checked_problem
from lossgeom.problem.agreement import REORDERED, agree
from lossgeom.problem.model_facts import Key
from lossgeom.problem.nearby import drawn
from lossgeom.problem.reduction import Sum
from lossgeom.problem.remembered import facts_of
from lossgeom.trust.trial import WHOLE, guard, on_few

FEW = 2  # vectors for which a recording does not pay


class ProblemMatrix(LinearOperator):
    """A matrix of a problem, in the dtype and on the device of its parameters.

    Attributes:
        rows: what it has a row for each of.
        columns: what it has a column for each of.
        degree: the power of the loss that it scales with: 0 if the loss plays no part, ``None`` if
            it scales with none.
    """

    rows: ClassVar[Literal["parameters", "outputs"]] = "parameters"
    columns: ClassVar[Literal["parameters", "outputs"]] = "parameters"
    degree: ClassVar[float | None] = 1.0

    problem: Problem

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.theta.dtype

    @property
    def device(self) -> torch.device:
        return self.problem.theta.device

    @property
    def shape(self) -> tuple[int, int]:
        P = self.problem.theta.numel()
        rows, columns = (
            P if space == "parameters" else sum(output_sizes(self.problem))
            for space in (self.rows, self.columns)
        )
        return rows, columns

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self


def output_sizes(problem: Problem) -> list[int]:
    """Count the outputs of each batch, by one forward pass, once."""

    @torch.no_grad()
    def size(batch: Batch) -> int:
        return math.prod(problem.outputs(problem.theta, batch).shape)

    return problem.cache.value(Key(output_sizes), lambda: problem.over_batches(size))


class ParameterMatrix(ProblemMatrix):
    """The symmetric P x P matrix sum_b A_b / sum_b n_b, from two ways to multiply by A_b.

    The two are given a problem, because they are compared on a few examples before forward mode is
    trusted. A matrix that draws random numbers for targets by their places in whole batches says
    that it is ``sampled``, and stays with the graphs of whole batches.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.
        compiled: whether products that are recorded are compiled by ``torch.compile``.
    """

    sampled: ClassVar[bool] = False
    rows_will_do: ClassVar[bool] = False  # as of lossgeom.trust.trial.guard

    def __init__(
        self, problem: Problem, *, memory_budget: int | None = None, compiled: bool = False
    ) -> None:
        self.problem, self._compiled = checked_problem(problem), compiled
        self._here = problem.local  # whose data products go over
        self._kept: Kept[Product] = Kept(self._here, memory_budget, problem.ranks)
        # Whether forward mode saves more over some tens of products of the batch at hand than a
        # recording costs: graphs are expensive to differentiate again where there are convolutions,
        # and where there are none, arithmetic sets the price of both.
        self._forward = False
        self.replays = False  # whether what kept graphs do is recorded, too

    def replayable(self, batch: Batch) -> bool:
        """Whether what graphs do can be recorded, for this matrix and its blocks; tried once."""
        here, key = self._here, Key(type(self), "replays")
        look = partial(on_few, here, batch, self._agrees, "_from_graph")
        return facts_of(here.model, here.evaluation, batch).known(key, look)

    @property
    def memory(self) -> Memory:
        """What a product holds at most, as the first batch shows it."""
        self.problem.ranks.together(self._announced)
        return self._kept.memory

    def _announced(self) -> None:
        with suppress(NoBatchesError):  # where other processes have some
            if not self._kept.memory.steps:
                planned(self._here, self._here.first_batch(), self._kept.memory, self.sampled)

    @abstractmethod
    def linearize(self, problem: Problem, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        """Make the product with one batch's summed matrix at theta; also its number of terms.

        A graph may be freed by a product that is said to be the last one.
        """

    @abstractmethod
    def along(
        self, problem: Problem, theta: Tensor, batch: Batch, v: Tensor
    ) -> tuple[Tensor, float]:
        """Take the same product with one vector in forward mode; also the number of terms."""

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        if not V.shape[1]:
            return torch.zeros_like(V)
        with plain_arithmetic(self.device):
            rows = (V.clone() if V.is_inference() else V.detach()).T.contiguous()
            put_down_block(self._kept.memory, rows)
            found, divisor = self.problem.reduced(partial(self._summed, rows))
            shared = found.untyped_storage()._cdata == rows.untyped_storage()._cdata
            own = found.is_contiguous() and not shared  # else a multiple of I would change V
            return (found.div_(divisor) if own else found / divisor).T

    def _summed(self, rows: Tensor, _: Problem) -> list[tuple[Float[Tensor, "k P"], float]]:
        """Multiply some vectors by the sum of the matrices of all pieces; also count terms."""
        added, made = Sum(), partial(self._made, rows)
        first, use = partial(made, self._kept.memory.budget != 0), partial(each_row, rows)
        self._kept.over_batches(
            first, lambda piece: made(False, piece)[0], use, added.add, self._pieces
        )
        return [(added.total, self._kept.terms)] if added.counts else []

    def _made(
        self, rows: Tensor, keeps: bool, piece: Batch
    ) -> tuple[Tensor, Linearization[Product]]:
        """Multiply some vectors by a piece's matrix; also return what makes further products.

        That is a recording, where it pays and can be trusted, or the graph of a gradient.
        """
        theta = self._kept.theta
        if self._forward and self._recordable(piece):
            with suppress(*CANNOT):
                if not keeps and len(rows) <= FEW:
                    return self._unrecorded(piece, rows)
                return self._recorded(self._here, theta, piece, rows)
        if not keeps:
            product, count = self.linearize(self._here, theta, piece)
            return each_row(rows, product, last=True), Linearization(None, count, {})
        (product, count), storages = with_bytes(self.linearize, self._here, theta, piece)
        room = self._kept.memory.room >= 2 * sum(storages.values())
        if self.replays and room:
            with suppress(*CANNOT):
                return by_graph(product, count, rows)
        return each_row(rows, product), Linearization(product, count, storages)

    def _unrecorded(self, piece: Batch, rows: Tensor) -> tuple[Tensor, Linearization[Product]]:
        """Take the product with each vector in forward mode, and keep nothing."""
        found = [self.along(self._here, self._kept.theta, piece, v) for v in rows]
        products = torch.stack([product for product, _ in found]).detach()
        return products, Linearization(None, found[0][1], {})

    def _recorded(
        self, problem: Problem, theta: Tensor, batch: Batch, rows: Tensor
    ) -> tuple[Tensor, Linearization[Product]]:
        note = self.problem.cache.note if self._compiled and problem is self._here else None
        return by_forward_mode(partial(self.along, problem, theta, batch), rows, note)

    def _from_graph(
        self, problem: Problem, theta: Tensor, batch: Batch, rows: Tensor
    ) -> tuple[Tensor, Linearization[Product]]:
        return by_graph(*self.linearize(problem, theta, batch), rows)

    def _recordable(self, batch: Batch) -> bool:
        """Whether recordings agree with graphs on a few examples, or a large model is unchecked."""
        here, at = self._here, self._here.evaluation
        key, known = Key(type(self), here.network.names), facts_of(here.model, at, batch)
        small = here.theta.numel() <= WHOLE  # enough to be copied in float64
        if not (here.check or small or key in known):
            return True
        look = partial(on_few, here, batch, self._agrees, "_recorded", double=small)
        return at.facts.known(key, lambda: known.known(key, look))

    def _agrees(self, small: Problem, way: str) -> bool:
        theta, few = small.leaf(), small.first_batch()
        v, others = drawn(theta), theta.new_ones(()).expand(1, len(theta))
        by_graphs = self.linearize(small, theta, few)[0](v, last=True)
        with suppress(*CANNOT):
            _, recorded = getattr(self, way)(small, theta, few, others)
            return agree(recorded.linear(v), by_graphs, REORDERED)
        return False

    def _pieces(self, batch: Batch) -> Sequence[Batch]:
        """Compare derivatives on a batch, and cut it where its graphs would be too large."""
        memory = self._kept.memory
        plan = planned(self._here, batch, memory, self.sampled)
        memory.check()
        guard(self._here, batch, rows_will_do=self.rows_will_do)
        cut = pieces(self._here, batch, plan.parts) if plan.parts > 1 else [batch]
        if len(cut) < plan.parts:  # which cannot be done
            plan = planned(self._here, batch, memory, self.sampled, parts=1)
            memory.check()
        self._forward = plan.forward
        return cut


def each_row(rows: Tensor, product: Product, *, last: bool = False) -> Float[Tensor, "k P"]:
    """Multiply the rows of a block one by one; none will follow the last one, if that is said."""
    results = [product(v) for v in rows[:-1]]
    results.append(product(rows[-1], last=True) if last else product(rows[-1]))
    return torch.stack(results) if len(results) > 1 else results[0][None]


class GradientDerivative(ParameterMatrix):
    """The derivative in theta of a gradient, one batch at a time."""

    def differentiated(
        self, problem: Problem, theta: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, float]:
        """What depends on theta, what its gradient is pulled back from, and the number of terms.

        That is one batch's summed loss here, and 1.
        """
        at = problem.evaluation
        total, count = at.terms(at.outputs(theta, batch), batch)
        return total, torch.ones_like(total), count

    def linearize(self, problem: Problem, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        result, u, count = self.differentiated(problem, theta, batch)
        return second_derivative(result, theta, u), count

    def along(
        self, problem: Problem, theta: Tensor, batch: Batch, v: Tensor
    ) -> tuple[Tensor, float]:
        counts = []

        def field(dual: Tensor) -> Tensor:
            result, u, count = self.differentiated(problem, dual, batch)
            counts.append(count)
            if not result.requires_grad:  # it does not depend on theta
                return torch.zeros_like(dual)
            return torch.autograd.grad(result, dual, u, materialize_grads=True)[0]

        return derivative_along(field, theta, v)[2], counts[0]


class OutputSandwich(ParameterMatrix):
    """J^T W J, with the Jacobian J of the outputs and a matrix W on them, one batch at a time."""

    rows_will_do = True

    @abstractmethod
    def weighting(self, problem: Problem, outputs: Tensor, batch: Batch) -> tuple[Product, float]:
        """Make the product with W at the outputs of a batch; also its number of terms."""

    def linearize(self, problem: Problem, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        J = BatchJacobian(problem.outputs(theta, batch), theta, by_rows=True).prepared()
        weigh, count = self.weighting(problem, J.outputs, batch)

        def product(v: Tensor, *, last: bool = False) -> Tensor:  # noqa: ARG001
            return J.pull(weigh(J.push(v)))

        return product, count

    def along(
        self, problem: Problem, theta: Tensor, batch: Batch, v: Tensor
    ) -> tuple[Tensor, float]:
        leaf, outputs, pushed = derivative_along(lambda x: problem.outputs(x, batch), theta, v)
        weigh, count = self.weighting(problem, outputs, batch)
        if not outputs.requires_grad:
            return torch.zeros_like(v), count
        (result,) = torch.autograd.grad(outputs, leaf, weigh(pushed), materialize_grads=True)
        return result, count
