"""How much the input-output Jacobian varies on balls round the examples."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.lipschitz._ascent import Ascent
from lossgeom.lipschitz.bracket import Bracket
from lossgeom.lipschitz.certified.frozen_model import all_inputs, frozen_model
from lossgeom.lipschitz.lipschitz import certified_on_balls, check_radius
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.isolation import measuring
from lossgeom.problem.minibatches import whole


def local_variation(
    problem: Problem, radius: float, *, steps: int = 50, restarts: int = 2, seed: int = 0
) -> Bracket:
    r"""The local variation of the Jacobian on the l2 ball round every example, from both sides.

    .. math:: V_{B(x_i, r)}(J f) = \sup_{x, x' \in B(x_i, r)} \|J f(x) - J f(x')\|_2

    The lower side is the best pair of points that :func:`local_variation_lower` finds, the upper
    side is certified by :func:`local_variation_upper`.

    Args:
        problem: as for :func:`lossgeom.lipschitz_global`.
        radius: of the balls.
        steps: of gradient ascent on the pairs.
        restarts: ascents from each example.
        seed: of the pairs that the ascents begin at, drawn on the CPU.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lossgeom.lipschitz_local`.

    Source: MacDonald et al., arXiv:2305.14683, section 4, which defines it.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    >>> _ = nn.init.constant_(model[0].weight, 2.0)
    >>> problem = Problem(model, "squared_error", [(torch.zeros(1, 1), torch.zeros(1, 1))])
    >>> bracket = local_variation(problem, radius=0.5)  # 2 - 2 / cosh(1)^2 is 1.160
    >>> [round(number, 3) for number in bracket.max]
    [1.16, 1.16]
    """
    upper = local_variation_upper(problem, radius)
    lower = local_variation_lower(problem, radius, steps=steps, restarts=restarts, seed=seed)
    return Bracket(lower, upper)


def local_variation_lower(
    problem: Problem, radius: float, *, steps: int = 50, restarts: int = 2, seed: int = 0
) -> Float[Tensor, " N"]:
    r"""Lower estimates of the local variation of the Jacobian, from pairs of points.

    Gradient ascent on both points of a pair, projected to the ball, from antipodal starts. Where
    the network is piecewise linear, gradients say nothing and the search is at random.

    Cost: restarts x (steps + 6) products with second derivatives for two points per example.

    Args:
        problem: of any model with a single floating-point input.
        radius: of the balls.
        steps: of gradient ascent, each shorter than the one before.
        restarts: ascents from each example.
        seed: of the pairs that the ascents begin at, drawn on the CPU.

    Raises:
        ValueError: if the radius is negative or infinite, steps < 0 or restarts < 1, or the outputs
            of one example depend on another.

    >>> import torch
    >>> from torch import nn
    >>> data = [(torch.zeros(1, 2), torch.zeros(1, 1))]
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", data)
    >>> local_variation_lower(problem, radius=1.0)
    tensor([0.], dtype=torch.float64)
    """
    check_radius(radius)
    problem = whole(checked_problem(problem))
    inputs = all_inputs(problem)
    generator = random_numbers(seed)
    ascent = Ascent(frozen_model(problem), (1.0, -1.0), radius, steps, restarts, generator)
    with measuring(inputs.device):
        return ascent(inputs.flatten(1))[0]


def local_variation_upper(problem: Problem, radius: float) -> Float[Tensor, " N"]:
    r"""Certified upper bounds of the local variation of the Jacobian.

    With the notation of :func:`lossgeom.lipschitz_local`, every Jacobian on the ball is
    :math:`\bar J + \sum_k X_k T_k G_k`, so that two of them differ by at most

    .. math:: 2 \sum_k \|X_k\| g_k.

    The smallest of this, of :math:`2 \|E\|` with entrywise bounds :math:`|J - \bar J| \le E`, of a
    telescoping sum over layers (:math:`\|D J - D' J'\| \le \|D\| \|J - J'\| + \|D - D'\|
    \|J'\|`), of twice the certified bound of the Jacobian itself and, where slopes do not jump, of

    .. math:: 2 r \, \mathrm{Lip}(J) \le 2 r \sum_k \| \mathrm{diag}(c_k s_k)^{1/2} J_k \|^2

    with the largest second derivatives s of activation k and the largest lengths c of the columns
    of the Jacobian from there to the output. It is never above 2 r Lip(J) from the recursion over
    layers, nor, for one hidden layer and one output, above :math:`2 r \sup|\phi''| \,
    \|W_1^T \mathrm{diag}|W_2| W_1\|`. Proof: differentiate :math:`J` along a segment, of length 2 r
    at most; each activation contributes :math:`Y_k \, \mathrm{diag}(\phi_k'' J_k h) J_k`. It is
    left out where these Jacobians have more than 2^22 numbers for one example and layer.

    Args:
        problem: as for :func:`lossgeom.lipschitz_global`.
        radius: of the balls.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lossgeom.lipschitz_local`.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    >>> _ = nn.init.constant_(model[0].weight, 3.0)
    >>> data = [(torch.tensor([[1.0], [0.1]]), torch.zeros(2, 1))]
    >>> problem = Problem(model, "squared_error", data)
    >>> [round(bound, 4) for bound in local_variation_upper(problem, radius=0.5).tolist()]
    [0.0, 3.0]
    """
    return certified_on_balls(problem, radius).variation


def jacobian_lipschitz(problem: Problem, radius: float) -> Float[Tensor, " N"]:
    r"""Certified Lipschitz constants of the Jacobian on the l2 ball round every example.

    .. math:: \|J f(x) - J f(x')\|_2 \le L_i \|x - x'\|_2 \quad \text{for } x, x' \in B(x_i, r)

    from bounds of the second derivatives of the activations, as :func:`local_variation_upper` has
    them: :math:`L = \sum_k \| \mathrm{diag}(c_k s_k)^{1/2} J_k \|^2`. It is infinite on a ball
    where a slope may jump, as that of ReLU, and for models whose Jacobians are too large to expand.

    Cost: as :func:`lossgeom.lipschitz_local`.

    Args:
        problem: as for :func:`lossgeom.lipschitz_global`.
        radius: of the balls.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lossgeom.lipschitz_local`.

    Source: derived here, as for :func:`local_variation_upper`.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    >>> _ = nn.init.constant_(model[0].weight, 2.0)
    >>> problem = Problem(model, "squared_error", [(torch.zeros(1, 1), torch.zeros(1, 1))])
    >>> bound = jacobian_lipschitz(problem, radius=1.0)  # 4 max abs(tanh'') = 16 / 27 ** 0.5
    >>> round(bound.item(), 4)
    3.0792
    """
    return certified_on_balls(problem, radius).curvature
