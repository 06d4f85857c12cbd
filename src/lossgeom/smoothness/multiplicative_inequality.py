"""Gradients in what a linear layer is called with beside those in its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness._example_gradients import MEMORY_BUDGET, power_norms, reduced_gradients
from lossgeom.smoothness._linear_layer import LinearLayer, layer_at
from lossgeom.smoothness.sobolev import checked_orders, seminorm


@dataclass(frozen=True, eq=False)
class MultiplicativeInequality:
    """Both sides of the inequality for p = 2k.

    Attributes:
        layer: name of the layer.
        k: the order.
        left: norms of the gradients in the input of the layer.
        right: what they are bounded by.
        operator_norm: of the transposed layer, or a bound on it; that of a convolution of inputs
            of several sizes is the largest, while ``right`` has that of the example's size.
        inputs: the l_2k norms of the inputs of the layer.
        in_weights: those of the gradients in its weights.
    """

    layer: str
    k: int
    left: Float[Tensor, "N C"]
    right: Float[Tensor, "N C"]
    operator_norm: float
    inputs: Float[Tensor, " N"]
    in_weights: Float[Tensor, "N C"]

    __repr__ = short

    @property
    def smallest_input(self) -> float:
        """The smallest norm of an input."""
        return self.inputs.min().item()

    @property
    def input_seminorm(self) -> float:
        """The left side averaged: g_x of order k, where the layer is the first."""
        return seminorm(self.left.flatten(), self.k, len(self.left))

    @property
    def layer_seminorm(self) -> float:
        """Of the gradients in the weights of the layer: g_W1 of order k for the first."""
        return seminorm(self.in_weights.flatten(), self.k, len(self.in_weights))

    @property
    def ratio(self) -> Float[Tensor, "N C"]:
        """Left over right, at most 1 up to rounding; 0 where both are 0."""
        return self.left / torch.where(self.right > 0, self.right, 1)

    @property
    def max_ratio(self) -> float:
        """The largest ratio."""
        return self.ratio.max().item()

    @property
    def averaged_right(self) -> float:
        """What the input seminorm is bounded by; infinite if an input is zero."""
        if self.smallest_input == 0:
            return math.inf
        return self.operator_norm / self.smallest_input * self.layer_seminorm


def multiplicative_inequality(
    problem: Problem,
    orders: Sequence[int] = (1, 2),
    *,
    layer: str | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> dict[int, MultiplicativeInequality]:
    r"""How far gradients in a layer's weights bound those in its input, in eval mode.

    For a model :math:`f(x) = h(W_1 x + b)` and p = 2k, at every example i and output c,

    .. math:: \|\nabla_x f_c(x_i)\|_p \le \frac{\|W_1^\top\|_{p \to p}}{\|x_i\|_p}
        \|\mathrm{vec} \nabla_{W_1} f_c(x_i)\|_p,

    since the gradient in W_1 is :math:`u x_i^\top` and that in the input :math:`W_1^\top u`, with
    u the gradient in what the layer puts out. Averaged as :func:`lossgeom.sobolev_seminorms` does,

    .. math:: g_x^{(k)} \le \frac{\|W_1^\top\|_{p \to p}}{\min_i \|x_i\|_p} \, g_{W_1}^{(k)}.

    The same holds for any other layer l, with what it is called with, :math:`h_{l-1}(x_i)`, in the
    place of x_i: ``layer`` names it. Where :math:`h_{l-1}` reaches the outputs in other ways, too,
    as by a residual connection, the gradient is the one along the way through the layer.

    The gradient in the input comes from autograd, not from u, and that it is :math:`W_1^\top u`
    is checked at every example and output. It is a theorem, so neither is ever violated, up to
    rounding.

    The first layer is the Linear or convolutional module that is called with the model's input,
    as it is or flattened. W_1 is the matrix that it multiplies with, apart from other uses of the
    same parameters. That of a convolution is **unrolled**: every position has weights of its own,
    and zeros are weights, too. Gradients in the weights of the convolution itself are sums over
    positions, which may cancel, and bound nothing.

    For k = 1 the norm of :math:`W_1^\top` is exact, up to what covers rounding, for Linear layers
    and small convolutions; of large ones it is that of a periodic convolution on a larger grid, an
    upper bound, or one by sums of rows and columns where that is costly. For k > 1 it is the upper
    bound :math:`\|A\|_2^{2/p} \|A\|_\infty^{1-2/p}` by interpolation. At an example that is zero,
    the right side is its limit, :math:`\|W_1^\top\|_{p \to p} \|u\|_p`; the averaged bound is
    infinite then.

    Cost: N C gradients of an output, batched, and as many products with the first layer.

    Args:
        problem: model and data; the loss plays no part, and the mode is always eval.
        orders: k, integers of at least 1.
        layer: name of a Linear or convolutional layer that is called once; by default the one that
            is called with the input of the model.
        memory_budget: bytes of gradients and graphs that are held at a time; 64 MiB.

    Returns:
        Both sides by order k, in units of output per unit of the layer's input.

    Raises:
        TypeError: if the model takes several inputs.
        ValueError: if there is no such layer, its weight is shared between positions, the outputs
            depend on the input by another way than through it, there is autocast, or as
            :func:`lossgeom.sobolev_seminorms`.
        NonFiniteError: where an output or a gradient is NaN or infinite.

    Source: Ma and Ying, arXiv:2105.13462, for the first layer; the form for each example and any p
    follows in one line. Every linear layer is what Chen et al., arXiv:2310.01770, take.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1)
    >>> model.weight.data = torch.tensor([[3.0, 4.0]])
    >>> data = [(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 1))]
    >>> found = multiplicative_inequality(Problem(model, "squared_error", data))[1]
    >>> found.left.item(), found.layer_seminorm, round(found.averaged_right, 9)
    (5.0, 2.0, 5.0)
    """
    orders = checked_orders(orders)
    problem = checked_problem(problem).in_mode("eval")
    if problem.autocast is not None:
        raise ValueError(
            "expected a problem without autocast, which rounds by more than what is compared here"
        )

    def of_batch(here: Problem, batch: Batch) -> _Sides:
        batch = here.in_examples(batch)
        return _sides(here, batch, layer_at(here, batch, layer), orders, memory_budget)

    batches = problem.rows(lambda here: here.over_batches(partial(of_batch, here)))
    if len({sides.left.shape[1] for sides in batches}) > 1:
        raise ValueError("expected as many outputs in every batch; measure the batches one by one")
    return {k: _joined(batches, k, place) for place, k in enumerate(orders)}


@dataclass(frozen=True, eq=False)
class _Sides:
    """Norms at the examples of a batch for every order.

    Attributes:
        layer: name of the layer.
        operator_norms: of the transposed layer, or bounds on them, for every order.
        left: norms of the gradients in the input.
        u: norms of the gradients in what the layer puts out.
        inputs: norms of the inputs.
    """

    layer: str
    operator_norms: tuple[float, ...]
    left: Float[Tensor, "B C r"]
    u: Float[Tensor, "B C r"]
    inputs: Float[Tensor, "B r"]


def _sides(
    problem: Problem,
    batch: Batch,
    first: LinearLayer,
    orders: Sequence[int],
    memory_budget: int,
) -> _Sides:
    relative = torch.finfo(problem.theta.dtype).eps ** 0.5 * first.spectral_norm

    def norms(rows: Float[Tensor, "M p"]) -> Float[Tensor, "M r"]:
        D = first.input_shape.numel()
        gradient, u = rows[:, :D], rows[:, D:]
        error = torch.linalg.vector_norm(first.transposed(u, first.weight) - gradient, dim=1)
        if not (error <= relative * torch.linalg.vector_norm(u, dim=1)).all():
            raise ValueError(
                f"expected the outputs to depend on the input through W x of the layer "
                f"{first.label!r} alone, but its transpose does not give the gradient in the "
                "input; is there another path, or a layer that does more than multiply?"
            )
        return torch.cat([power_norms(gradient, orders), power_norms(u, orders)], 1)

    found = reduced_gradients(problem, lambda b: first.at(problem, b), batch, norms, memory_budget)
    left, u = found.chunk(2, dim=2)
    inputs = power_norms(first.inputs(problem, batch), orders)
    return _Sides(first.label, tuple(map(first.transposed_norm, orders)), left, u, inputs)


def _joined(batches: Sequence[_Sides], k: int, place: int) -> MultiplicativeInequality:
    """Both sides for order k; the norm of u x^T is that of u times that of x."""
    operator_norms = [sides.operator_norms[place] for sides in batches]
    left = torch.cat([sides.left[..., place] for sides in batches])
    right = [n * sides.u[..., place] for n, sides in zip(operator_norms, batches, strict=True)]
    in_weights = [sides.u[..., place] * sides.inputs[:, None, place] for sides in batches]
    return MultiplicativeInequality(
        batches[0].layer,
        k,
        left,
        torch.cat(right),
        max(operator_norms),
        torch.cat([sides.inputs[:, place] for sides in batches]),
        torch.cat(in_weights),
    )
