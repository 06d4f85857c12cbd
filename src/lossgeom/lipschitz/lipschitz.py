"""Lipschitz constants of the outputs in the input: lower, certified global, certified local."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.lipschitz._ascent import Ascent
from lossgeom.lipschitz.certified.frozen_model import all_inputs, frozen_model, graph_of
from lossgeom.lipschitz.certified.jacobian_bounds import Bounds, certified, everywhere
from lossgeom.lipschitz.certified.products import Product
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.isolation import measuring
from lossgeom.problem.minibatches import whole
from lossgeom.smoothness.jacobian_norm import jacobian_norms


@dataclass(frozen=True, eq=False)
class LipschitzLower:
    """A lower estimate of a Lipschitz constant, with the point where it was found.

    Attributes:
        value: the norm of the Jacobian at the point; the constant is at least that, up to rounding.
        point: an input of the model, in float64.
        example: the index of the example that the ascent began at.
        at_data: the largest norm at the examples themselves, as well known as the value.
    """

    value: float
    point: Float[Tensor, " ..."]
    example: int
    at_data: float

    __repr__ = short

    def __float__(self) -> float:
        return self.value


def lipschitz_lower(
    problem: Problem,
    *,
    radius: float = math.inf,
    starts: int = 16,
    steps: int = 50,
    restarts: int = 2,
    seed: int = 0,
) -> LipschitzLower:
    r"""A lower estimate of the Lipschitz constant of the outputs in the input, in l2.

    .. math:: \mathrm{Lip}(f) = \sup_x \|J f(x)\|_2 \ge \max_i \|J f(x_i)\|_2

    From the examples with the largest norms, gradient ascent on the input looks for a larger one.
    The model is evaluated in float64 and eval mode. Nothing says how far below the constant the
    estimate is; see :func:`lipschitz_global` for a bound from above.

    Cost: :func:`jacobian_norms` on all data, and restarts x (steps + 6) products with second
    derivatives for ``starts`` examples at once.

    At a kink, which a search hits with probability zero but data may lie on, the Jacobian is the
    one that autograd chooses. The certified bounds allow for every choice.

    Args:
        problem: model and data, of any model with a single floating-point input.
        radius: of the l2 ball round each example that the ascent stays in; without end by default.
        starts: how many examples to begin at, at most.
        steps: of gradient ascent, each shorter than the one before.
        restarts: ascents from each example; the first begins at the example, others near it.
        seed: of random directions, drawn on the CPU.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`jacobian_norms`.
        ValueError: if the radius is negative, or a number of steps, starts or restarts too small.

    Source: MacDonald et al., arXiv:2305.14683, section 4, for the norm at the data.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    >>> _ = nn.init.constant_(model[0].weight, 3.0)
    >>> data = [(torch.tensor([[0.5]]), torch.zeros(1, 1))]
    >>> lower = lipschitz_lower(Problem(model, "squared_error", data), radius=1.0)
    >>> round(lower.at_data, 3), round(lower.value, 3)  # the slope of tanh(3 x) at 0.5 and at 0
    (0.542, 3.0)
    """
    check_at_least(1, starts=starts)
    problem = whole(checked_problem(problem))
    inputs = all_inputs(problem)
    ascent = Ascent(frozen_model(problem), (1.0,), radius, steps, restarts, random_numbers(seed))
    norms = jacobian_norms(problem).values.double()
    best = norms.topk(min(starts, len(norms))).indices
    centres = inputs[best].flatten(1)
    with measuring(norms.device):
        at_data = ascent.at(centres)
        values, points = ascent(centres)
    top = int(values.argmax())
    point = points[0, top].reshape(inputs.shape[1:])
    return LipschitzLower(values[top].item(), point, int(best[top]), at_data.max().item())


def lipschitz_global(problem: Problem) -> float:
    r"""A certified upper bound of the Lipschitz constant of the outputs in the input, in l2.

    .. math:: \|f(x) - f(x')\|_2 \le L \|x - x'\|_2 \quad \text{for all inputs } x, x'

    The smallest of three bounds. One is the product of the norms of the layers, where a residual
    sum adds; convolutions and pooling have norms bounded from above (Fourier blocks on a larger
    torus, row and column sums, or the whole matrix). Another writes each slope as its middle plus
    a deviation, :math:`D_l = c + \rho T_l` with :math:`\|T_l\| \le 1`, and bounds each term of the
    expanded product by the norms of its factors between deviations, at most

    .. math:: L \le \sum_{l_1 < ... < l_k} \rho^k c^{m - k} \|W_{m+1} \cdots W_{l_k + 1}\| \cdots
        \|W_{l_1} \cdots W_1\|,

    for m activations, summed by dynamic programming; it is exact for linear networks. The third
    bounds how far each entry of the Jacobian is from that at the middle slopes; it is never above
    the norm of the product of the absolute values of the weights. The last two are taken where the
    matrices have at most 2^22 numbers. Proof: every Jacobian is a product of the layers with slopes
    in [c - rho, c + rho] between, submultiplicativity bounds each term, and a segment between
    inputs integrates the Jacobian. The arithmetic is float64, with margins for rounding.

    The bound is for inputs shaped as those of the data, whose values play no part. It is of the
    function that the parameters define in exact arithmetic.

    Cost: eigenvalues of one matrix per layer (of C_out x C_in s^d for each frequency of a
    convolution with stride s) and of one per pair of activations.

    Args:
        problem: a model of linear and convolutional layers, also transposed, batch normalisation
            (in eval mode, folded into its neighbours), average and max-pooling, activations,
            rearranging and slicing, sums, means and concatenations, constants that are added or
            multiplied by; layer, group, instance and root mean square normalisation, softmax,
            attention, and products of two values that both depend on the input.

    Raises:
        TypeError: for a model that cannot be traced, or an operation that no bound is known for, or
            products of values that grow with the input, such as attention that nothing normalises.
        ValueError: if inputs are not floating point, or differ in shape.
        NonFiniteError: if outputs are NaN or infinite.

    Source: Szegedy et al., arXiv:1312.6199, section 4.3, for the product; Combettes and Pesquet,
    Lipschitz certificates for layered network structures (2020), section 4, for the expansion.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> model[0].weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> model[2].weight.data = torch.tensor([[1.0, 0.0]])
    >>> data = [(torch.ones(1, 2), torch.zeros(1, 1))]
    >>> round(lipschitz_global(Problem(model, "squared_error", data)), 6)  # the product is 4
    3.0
    """
    problem = whole(checked_problem(problem))
    inputs = all_inputs(problem)
    with measuring(inputs.device):
        graph = graph_of(problem, inputs)
        bound = everywhere(graph, inputs).norm.item()
    if math.isinf(bound) and any(isinstance(step.operation, Product) for step in graph.steps):
        raise TypeError(
            "no bound over all inputs is known for this model, which multiplies values that grow "
            "with its input, as attention does; lipschitz_local bounds it on balls, and attention "
            "to normalised values, as from LayerNorm, has a bound everywhere"
        )
    return bound


def lipschitz_local(problem: Problem, radius: float) -> Float[Tensor, " N"]:
    r"""Certified upper bounds of the Lipschitz constant on the l2 ball round every example.

    .. math:: L_i \ge \sup_{\|x - x_i\|_2 \le r} \|J f(x)\|_2

    Intervals of the values before each activation on the ball give intervals of its slopes; dead
    and saturated units drop out. As in :func:`lipschitz_global`, a slope is then its middle plus a
    deviation, :math:`D = C + R^{1/2} T R^{1/2}` with the half widths R of the intervals, and
    :math:`J = \bar J + \sum_k X_k T_k G_k`, where :math:`X_k` goes from activation k to the
    output at the middle slopes, so that

    .. math:: \|J(x)\| \le \|\bar J\| + \sum_k \|X_k\| g_k, \qquad
        g_k \ge \|R_k^{1/2} J_k(x)\|,

    with :math:`J_k` the Jacobian before activation k, bounded in the same way. The intervals come
    from the rows of :math:`J_k` and the mean value theorem on the ball, and from interval
    arithmetic. The smallest of this, of :math:`\|\bar J\| + \|E\|` and
    :math:`\|\,|\bar J| + E\,\|` with entrywise bounds :math:`|J - \bar J| \le E`, of the product of
    the layers' norms with their largest slopes, and of the global bound is returned. As the radius
    goes to 0, it goes to the norm at the example where the network is differentiable, if it is
    small enough for these matrices.

    Normalisation, softmax and products are expanded at the centre of the ball, with bounds of how
    far their derivatives are from those there, which follow from their second derivatives.

    Cost: for each example, the Jacobian of every layer in all inputs and in all activations before
    it whose slope is not known (few of a ReLU network on a small ball, all of a smooth one), and
    eigenvalues of one matrix per pair of activations. That is done for one layer at a time, while
    the Jacobians of its result have at most 2^26 numbers, with a peak of about 3 GiB then; seconds
    for each example are usual. Where they have more, only norms are propagated from there on, which
    is fast and loose.

    Args:
        problem: as for :func:`lipschitz_global`.
        radius: of the balls.

    Returns:
        The bounds in the order of the data, in float64.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lipschitz_global`.
        ValueError: if the radius is negative or infinite.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    >>> _ = nn.init.constant_(model[0].weight, 3.0)
    >>> data = [(torch.tensor([[1.0], [-1.0], [0.1]]), torch.zeros(3, 1))]
    >>> problem = Problem(model, "squared_error", data)
    >>> [round(bound, 4) for bound in lipschitz_local(problem, radius=0.5).tolist()]
    [3.0, 0.0, 3.0]
    """
    return certified_on_balls(problem, radius).norm


def certified_on_balls(problem: Problem, radius: float) -> Bounds:
    """All that is certified on the balls round the examples."""
    check_radius(radius)

    def of_share(here: Problem) -> list[Bounds]:
        inputs = all_inputs(here)
        with measuring(inputs.device):
            return [certified(graph_of(here, inputs), inputs, radius)]

    parts = checked_problem(problem).rows(of_share)
    return Bounds(*(torch.cat([getattr(p, each.name) for p in parts]) for each in fields(Bounds)))


def check_radius(radius: float) -> None:
    """Raise for a radius that is negative, infinite or NaN."""
    if not (radius >= 0 and math.isfinite(radius)):
        raise ValueError(f"expected a finite radius >= 0, got {radius}")
