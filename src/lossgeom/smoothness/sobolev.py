"""Seminorms of the gradients of the outputs on the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.linearized import Linearized
from lossgeom.batches import Batch
from lossgeom.messages.wording import one_of
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness._example_gradients import (
    MEMORY_BUDGET,
    finite,
    power_norms,
    reduced_gradients,
)
from lossgeom.smoothness._input_function import differentiable_input, linearized_in
from lossgeom.smoothness._parameter_function import parameter_function, runs_together
from lossgeom.smoothness.outputs import chosen
from lossgeom.trust.trial import guard, tried

Of = Literal["input", "parameters"]
OF: tuple[Of, ...] = ("input", "parameters")


@dataclass(frozen=True)
class SobolevSeminorms:
    """Seminorms by their order k.

    Attributes:
        of: what the outputs were differentiated in.
        elementwise: with the l_2k norm of every gradient.
        euclidean: with its Euclidean norm; the same for k = 1.
    """

    of: Of
    elementwise: dict[int, float]
    euclidean: dict[int, float]


def sobolev_seminorms(
    problem: Problem,
    of: Of = "input",
    orders: Sequence[int] = (1, 2, 3),
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> SobolevSeminorms:
    r"""Sobolev seminorms of a model on the data, in its input or in its parameters, in eval mode.

    .. math:: g^{(k)} = \Big( \frac{1}{N} \sum_{i=1}^N \sum_{c=1}^C
        \| \nabla f_c(x_i) \|^{2k} \Big)^{1/2k}

    with the norm of the gradient either elementwise,
    :math:`\|v\|_{2k} = (\sum_j |v_j|^{2k})^{1/2k}`, or Euclidean. Outputs are summed over and
    examples averaged over; the outputs are those of the model, without a softmax. In the input it
    is the Sobolev seminorm g_x on the sample, in the parameters the gradient seminorm g_W, of all
    parameters of the problem: ``problem.with_parameters("0.*")`` has fewer. The square of
    g_W of order 1 is the trace of the Gauss-Newton matrix of ``"squared_error"``.

    Powers are taken of scaled gradients and summed in float64. All orders come from one pass.

    Cost: N C gradients of an output, batched; models that torch cannot batch over examples (such
    as recurrent layers) take them one by one, with the same result.

    Args:
        problem: model and data; the loss plays no part, and the mode is always eval. The outputs
            of an example are flattened to C numbers.
        of: ``"input"`` or ``"parameters"``.
        orders: k, integers of at least 1.
        memory_budget: bytes of gradients and graphs that are held at a time, unless those of four
            examples need more; 64 MiB. The peak is a few times that.

    Returns:
        The seminorms, in units of output per unit of input or of parameter, whatever k.

    Raises:
        TypeError: if the model takes several inputs, for those of the input.
        ValueError: for other arguments, inputs that are not floating point, outputs that are not
            one row per example, or outputs of one example that depend on another.
        NonFiniteError: where an output or a gradient is NaN or infinite.

    Source: Ma and Ying, arXiv:2105.13462, and its code.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> model.weight.data = torch.tensor([[3.0, 4.0]])
    >>> problem = Problem(model, "squared_error", [(torch.ones(5, 2), torch.zeros(5, 1))])
    >>> found = sobolev_seminorms(problem, orders=[1, 2])
    >>> [round(found.elementwise[k], 4) for k in (1, 2)], round(found.euclidean[2], 4)
    ([5.0, 4.2846], 5.0)
    """
    if of not in OF:
        raise ValueError(f"expected of to be one of {one_of(OF)}, got {of!r}")
    orders = checked_orders(orders)
    problem = checked_problem(problem).in_mode("eval")
    every = [1, *orders]  # the first is Euclidean

    def of_share(here: Problem) -> list[Tensor]:
        if of == "parameters":
            guard(here, here.first_batch(), order=1)
        norms = _parameter_norms if of == "parameters" else _input_norms
        return here.over_batches(lambda b: norms(here, here.in_examples(b), every, memory_budget))

    batches = problem.rows(of_share)
    N = sum(len(norms) for norms in batches)
    norms = torch.cat([norms.flatten(0, 1) for norms in batches])
    return SobolevSeminorms(
        of,
        {k: seminorm(norms[:, place], k, N) for place, k in enumerate(orders, 1)},
        {k: seminorm(norms[:, 0], k, N) for k in orders},
    )


def _input_norms(
    problem: Problem, batch: Batch, orders: Sequence[int], memory_budget: int
) -> Float[Tensor, "B C r"]:
    """The l_2k norm of the gradient of every output in the input, for each order k."""

    def linearize(batch: Batch) -> Linearized:
        return linearized_in(problem, "logits", batch, differentiable_input(batch))

    return reduced_gradients(
        problem, linearize, batch, lambda G: power_norms(G, orders), memory_budget
    )


def _parameter_norms(
    problem: Problem, batch: Batch, orders: Sequence[int], memory_budget: int
) -> Float[Tensor, "B C r"]:
    """The l_2k norm of the gradient of every output in the parameters, for each order k.

    The norm of u x^T is that of u times that of x.
    """
    function = parameter_function(problem, "logits", batch, scaled=False)
    others = function.others > 0
    sizes = [function.others] * others + function.widths

    def norms(rows: Float[Tensor, "M p"]) -> Float[Tensor, "M rl"]:
        parts = [power_norms(part, orders) for part in torch.split(rows, sizes, dim=1)]
        return torch.stack(parts, 2).flatten(1)

    if others:
        with torch.no_grad():
            chosen(problem, "logits", problem.outputs(problem.theta, batch), batch)
    u = reduced_gradients(
        problem,
        function.at,
        batch,
        norms,
        memory_budget,
        alone=others,
        together=function.together if others and tried(problem, batch, runs_together) else None,
    )
    x = [power_norms(x, orders) for x in function.inputs(batch)]
    x = [torch.ones_like(u[:, 0, : len(orders)])] * others + x
    parts = finite(u.reshape(*u.shape[:2], len(orders), -1) * torch.stack(x, 2)[:, None])
    whole = [power_norms(parts[:, :, i].flatten(0, 1), [k]) for i, k in enumerate(orders)]
    return torch.cat(whole, 1).reshape(*u.shape[:2], -1)


def checked_orders(orders: Sequence[int]) -> tuple[int, ...]:
    """Return the orders, if they are integers of at least 1."""
    found = tuple(orders)
    if not found or any(not isinstance(k, int) or k < 1 for k in found):
        raise ValueError(
            f"expected orders to be integers of at least 1, such as (1, 2), got {orders}"
        )
    return found


def seminorm(norms: Float[Tensor, " M"], k: int, N: int) -> float:
    """The 2k-th root of the sum of the 2k-th powers of norms, divided by N."""
    scale = norms.max()
    if scale == 0:
        return 0.0
    return float(scale * ((norms / scale).pow(2 * k).sum() / N) ** (0.5 / k))
