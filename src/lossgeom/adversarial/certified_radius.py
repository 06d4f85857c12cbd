"""The radius within which no change of an input changes its class."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lossgeom.adversarial._attack import margins
from lossgeom.adversarial._classes import classes
from lossgeom.lipschitz.ball import Norm, check_norm
from lossgeom.lipschitz.certified.frozen_model import all_inputs, graph_of
from lossgeom.lipschitz.certified.graph import Graph
from lossgeom.lipschitz.certified.jacobian_bounds import bounds, everywhere
from lossgeom.lipschitz.certified.propagation import MARGIN
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.isolation import measuring
from lossgeom.problem.minibatches import whole

WIDEST = 2.0**64  # the search ends at this multiple of the radius of the global bound
ROUNDS = 64  # halvings of the interval on a log scale; 17 reach a tolerance of 0.001

Inputs = Float[Tensor, "N ..."]
Numbers = Float[Tensor, " N"]


def certified_radius(
    problem: Problem, *, norm: Norm = "l2", tol: float = 1e-3
) -> Float[Tensor, " N"]:
    r"""The radius round every example within which its class is proved not to change.

    .. math:: r_i = \max \{ r : m_i > \sqrt 2 \, L(B(x_i, r)) \, r \}, \qquad
        m_i = f_y(x_i) - \max_{c \ne y} f_c(x_i),

    with the certified bound L of :func:`lossgeom.lipschitz_local`. Proof: on the ball the outputs
    move by at most L r in l2, a difference of two of them is their scalar product with a vector of
    length :math:`\sqrt 2`, so by Cauchy and Schwarz no margin shrinks by as much as m. The ball
    :math:`\|x' - x\|_\infty \le r / \sqrt D` is within that of radius r in l2, for D inputs.

    The maximum is sought by halving an interval, and every radius that is accepted is certified by
    itself; the true maximum may be larger. Misclassified examples, and ties, have radius 0. The
    margin is the least that rounding allows. As L, the radius is of the function that the
    parameters define in exact arithmetic.

    Cost: that of :func:`lossgeom.lipschitz_local` for some 10 to 17 radii.

    Args:
        problem: as for :func:`lossgeom.lipschitz_global`, with outputs (N, C) and targets that are
            classes (N,) or their probabilities (N, C), of which the likeliest is taken.
        norm: of the changes, ``"l2"`` or ``"linf"``.
        tol: relative, between 0 and 1: where the search ends.

    Returns:
        The radii in the order of the data, in float64, in units of the input; infinite where the
        outputs are constant.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lossgeom.lipschitz_global`.
        ValueError: for outputs or targets of another shape, an unknown norm, or a tolerance out of
            its range.

    Source: Tsuzuku et al., Lipschitz-margin training, arXiv:1802.04034, proposition 1.

    >>> from torch import nn
    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(model.weight)
    >>> data = [(torch.tensor([[3.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))]
    >>> certified_radius(Problem(model, "cross_entropy", data))  # 2 / sqrt(2), and misclassified
    tensor([1.4142, 0.0000], dtype=torch.float64)
    """
    check_norm(norm)
    if not 0 < tol < 1:
        raise ValueError(f"expected a tolerance 0 < tol < 1, got {tol}")
    problem = whole(checked_problem(problem))
    inputs = all_inputs(problem)
    targets = classes(problem)
    with measuring(inputs.device), torch.no_grad():
        return radii(graph_of(problem, inputs), inputs, targets, norm, tol)


def radii(
    graph: Graph, inputs: Inputs, targets: Int64[Tensor, " N"], norm: Norm, tol: float = 1e-3
) -> Numbers:
    """The certified radii of the classes of a traced model."""
    at = bounds(graph, inputs, 0.0)
    index = targets[:, None]
    logits = at.upper.scatter(1, index, at.lower.gather(1, index))
    margin = margins(logits, targets).nan_to_num(0).clamp(min=0)
    found = _largest(graph, inputs, margin / (2**0.5 * MARGIN), at.norm, tol)
    return found / in_l2(1.0, norm, inputs)


def in_l2(radius: float, norm: Norm, inputs: Inputs) -> float:
    """The radius of the l2 ball that holds a ball of the norm."""
    return radius * math.sqrt(inputs[0].numel()) if norm == "linf" else radius


def _largest(graph: Graph, inputs: Inputs, reach: Numbers, at: Numbers, tol: float) -> Numbers:
    """Search for the largest r with L(B(x, r)) r < reach, which holds for what is returned."""

    def holds(r: Numbers) -> Bool[Tensor, " N"]:
        return bounds(graph, inputs, r).norm * r * MARGIN < reach

    anywhere = everywhere(graph, inputs).norm
    low = torch.where(reach > 0, reach / (anywhere * MARGIN), 0)
    high = torch.where(reach > 0, reach / torch.minimum(at, anywhere), 0)
    if anywhere.isinf().any():  # nothing is known of all inputs: from where hardly anything moves
        least = torch.where(high.isinf(), 1.0, high) / WIDEST
        low = torch.where(holds(least), least, 0)
    high = torch.minimum(high, WIDEST * low)
    for _ in range(ROUNDS):
        if not (high > low * (1 + tol)).any():
            break
        middle = low.sqrt() * high.sqrt()
        higher = holds(middle)
        low, high = torch.where(higher, middle, low), torch.where(higher, high, middle)
    return low
