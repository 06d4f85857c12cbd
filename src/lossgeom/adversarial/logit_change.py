"""How far small changes of an input move the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lossgeom.adversarial._worst_case import Eps, Found, OwnAttack, WorstCase
from lossgeom.adversarial.certified_radius import in_l2
from lossgeom.lipschitz.ball import Box, Norm
from lossgeom.lipschitz.certified.frozen_model import all_inputs, frozen_model, graph_of
from lossgeom.lipschitz.certified.graph import Graph
from lossgeom.lipschitz.certified.jacobian_bounds import certified
from lossgeom.lipschitz.certified.propagation import MARGIN
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.agreement import EXACT
from lossgeom.problem.isolation import measuring
from lossgeom.problem.minibatches import whole


@dataclass(frozen=True, eq=False)
class LogitChange:
    r"""The largest :math:`\|f(x') - f(x)\|_2` round every example, for K attack sizes.

    Attributes:
        eps: (K,), the attack sizes.
        lower: what was found, less what rounding can add to a difference of outputs: the maximum is
            at least that. It is 0 where rounding hides the change.
        first_order: :math:`\epsilon \|J(x)\|_2`, exact, for l2; ``None`` for l_inf.
        first_order_lower: a lower estimate of :math:`\epsilon \max_{\|s\|_\infty \le 1} \|J s\|_2`
            for l_inf, where the maximum is NP-hard to find; ``None`` for l2.
        upper: certified; ``None`` where it was not asked for or is not known.
        notes: what else there is to know, such as why nothing is certified.
    """

    eps: Float[Tensor, " K"]
    lower: Float[Tensor, "K N"]
    first_order: Float[Tensor, "K N"] | None
    first_order_lower: Float[Tensor, "K N"] | None
    upper: Float[Tensor, "K N"] | None
    notes: tuple[str, ...] = ()

    __repr__ = short


def logit_change(
    problem: Problem,
    eps: Eps,
    *,
    norm: Norm = "l2",
    steps: int = 40,
    restarts: int = 4,
    seed: int = 0,
    bounds: Box | None = None,
    certify: bool = True,
) -> LogitChange:
    r"""How far the outputs move when an input does: found, predicted and certified.

    .. math:: \max_{\|x' - x\| \le \epsilon} \|f(x') - f(x)\|_2 \quad
        \begin{cases} \approx \epsilon \max_{\|s\| \le 1} \|J(x) s\|_2 \\
        \le \epsilon \, L(B(x, \epsilon)) \end{cases}

    From below by projected gradient ascent, which begins at both ends of a line through the example
    in the direction of the first-order maximum, and at random points. To first order, in l2, by the
    spectral norm of the Jacobian, from all rows up to 32 outputs and by Lanczos iteration above. In
    l_inf that norm is NP-hard; alternating maximisation, :math:`s \leftarrow \mathrm{sign}(J^\top J
    s)`, which never lowers :math:`\|J s\|`, gives a lower estimate of it from ``restarts`` starts.
    From above by :func:`lossgeom.lipschitz_local` on the l2 ball, of radius
    :math:`\sqrt D \epsilon` for l_inf.

    Cost: for each eps, (restarts + 1) (steps + 1) forward and backward passes over the data; for
    the first order, one backward pass for each output; that of :func:`lossgeom.lipschitz_local`
    for each eps.

    Args:
        problem: any model with a single floating-point input; the loss and the targets play no
            part.
        eps: as for :func:`robustness`.
        norm: as there.
        steps: as there.
        restarts: as there.
        seed: as there.
        bounds: as there.
        certify: as there.

    Returns:
        All of it side by side, see :class:`lossgeom.LogitChange`.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`robustness`, but for outputs and targets.

    Source: Madry et al., arXiv:1706.06083, for the ascent; Journee et al., Generalized power method
    for sparse principal component analysis (2010), section 2, for alternating maximisation.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    >>> _ = nn.init.constant_(model[0].weight, 2.0)
    >>> problem = Problem(model, "squared_error", [(torch.zeros(1, 1), torch.zeros(1, 1))])
    >>> change = logit_change(problem, eps=0.5)
    >>> change.lower.item(), change.first_order.item(), change.upper.item()  # tanh(1) is 0.7616
    (0.7615..., 1.0, 1.0...)
    """
    search = WorstCase(eps, norm, steps, restarts, seed, bounds)
    problem = whole(checked_problem(problem))
    inputs = all_inputs(problem)
    return measured(problem, search, inputs, certify=certify)[0]


def measured(
    problem: Problem,
    search: WorstCase,
    inputs: Float[Tensor, "N ..."],
    targets: Int64[Tensor, " N"] | None = None,
    own: OwnAttack | None = None,
    *,
    certify: bool,
) -> tuple[LogitChange, Found, Graph | None]:
    """Attack, predict and certify; the graph is ``None`` where nothing is certified."""
    model = frozen_model(problem)
    with measuring(inputs.device):
        found = search.of(model, inputs, targets, own)
        graph, notes = _graph_or_note(problem, inputs) if certify else (None, [])
        eps = torch.tensor(search.sizes, dtype=torch.float64, device=inputs.device)
        upper = None if graph is None else _upper(graph, inputs, search)
    slopes, change = eps[:, None] * found.slope, found.change
    left = int((~found.converged).sum())
    if search.norm == "l2" and left:
        notes.append(f"Lanczos iteration has not converged for {left} examples")
    if upper is not None:
        hidden = EXACT * found.size.max()  # a smaller change may be nothing but rounding
        change = torch.where((change > upper) & (change <= hidden), 0, change)
    exact, lower = (slopes, None) if search.norm == "l2" else (None, slopes)
    return LogitChange(eps, change, exact, lower, upper, tuple(notes)), found, graph


def _graph_or_note(
    problem: Problem, inputs: Float[Tensor, "N ..."]
) -> tuple[Graph | None, list[str]]:
    """The graph, or a note that says why there is none."""
    try:
        return graph_of(problem, inputs), []
    except TypeError as error:
        return None, [f"nothing is certified: {error}"]


def _upper(graph: Graph, inputs: Float[Tensor, "N ..."], search: WorstCase) -> Float[Tensor, "K N"]:
    radii = [in_l2(size, search.norm, inputs) for size in search.sizes]
    return torch.stack([certified(graph, inputs, r).norm * r * MARGIN for r in radii])
