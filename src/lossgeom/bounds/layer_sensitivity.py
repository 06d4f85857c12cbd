"""How outputs respond to what the layers of a model are called with, from how flat the loss is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.bounds._numbers import Number, Terms, bounded, checked, mapped, rounded
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.lipschitz import Bracket
from lossgeom.messages.checks import check_whole
from lossgeom.messages.reprs import short
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness import (
    layer_singular_values,
    multiplicative_inequality,
    sobolev_seminorms,
    vector_layers,
)

SOURCE = (
    "derived here, after the inequalities that Chen, Recanatesi and Shea-Brown (arXiv:2310.01770) "
    "name in their abstract"
)
EVERY = "all layers"
VECTORS = Assumption("each of these layers maps one vector of an example", "declared")


def network_sensitivity(ratios: Number, trace: Number) -> Bound:
    r"""Bound the network maximum local sensitivity by the trace of the Hessian.

    .. math:: \frac1n \sum_i \sum_l \|J_l(x_i)\|_2 \le
        \Big( \frac1n \sum_i \sum_l \frac{\|W_l\|_2^2}{\|h_{l-1}(x_i)\|^2} \Big)^{1/2} \sqrt{T}

    with the Jacobian :math:`J_l` of the outputs in :math:`h_{l-1}`, what layer l is called with,
    and :math:`T = \frac1n \sum_i \|\nabla_\theta f(x_i)\|_F^2`, the trace of the Hessian of
    ``"squared_error"`` where every example is fitted. Of a single layer it is the maximum local
    sensitivity. Proof: :math:`J_l = U W_l` and :math:`\nabla_{W_l} f_c = u_c h^\top`, so that
    :math:`\|J_l\|_2 \le \|W_l\|_2 \|U\|_F = \|W_l\|_2 \|\nabla_{W_l} f\|_F / \|h\|`; then by Cauchy
    and Schwarz over examples and layers, whose gradients have squares that sum up to T at most.

    Args:
        ratios: of the norms of :math:`W_l` and :math:`h_{l-1}(x_i)` (L, N). With a trained bias,
            whose gradient is u, the latter may be the root of :math:`\|h\|^2 + 1`.
        trace: T.

    Returns:
        An upper bound, in outputs per unit of what layers are called with.

    Raises:
        ValueError: for negative numbers.

    Source: derived here, after Chen, Recanatesi and Shea-Brown, arXiv:2310.01770.

    >>> round(network_sensitivity(torch.tensor([[1.0, 7.0]]), 4.0).value, 9)  # 2 sqrt(50 / 2)
    10.0
    """

    def root_mean_square(ratios: Float[Tensor, "L N"]) -> Tensor:
        return ratios.square().sum(0).mean().sqrt()

    numbers = {"root mean square ratio": mapped(ratios, root_mean_square), "trace": trace}
    return _summed("maximum local sensitivity", numbers, lambda ratio, T: ratio * T.sqrt())


def network_volume(ratios: Number, trace: Number, outputs: int) -> Bound:
    r"""Bound the network volumetric ratio by the trace of the Hessian.

    .. math:: \frac1n \sum_i \sum_l \sqrt{\det J_l J_l^\top} \le
        \frac1n \Big( \frac{n T}{C} \Big)^{C/2} \max_{i, l} \frac{\|W_l\|_2^C}{\|h_{l-1}(x_i)\|^C}

    for C > 1 outputs, in the notation of :func:`network_sensitivity`, which it is for C = 1. Proof:
    of the squares of the singular values the geometric mean is at most the arithmetic one,
    :math:`\|J_l\|_F^2 / C`, with :math:`\|J_l\|_F \le \|W_l\|_2 \|\nabla_{W_l} f\|_F / \|h\|`; and
    a sum of powers C / 2 of squares that sum up to n T is at most :math:`(n T)^{C/2}`.

    Args:
        ratios: as for :func:`network_sensitivity`.
        trace: T.
        outputs: C.

    Returns:
        An upper bound.

    Raises:
        ValueError: for negative numbers, or fewer outputs than one.

    Source: derived here, after Chen, Recanatesi and Shea-Brown, arXiv:2310.01770.

    >>> round(network_volume(torch.tensor([[3.0, 2.0]]), 4.0, outputs=2).value, 9)  # 9 * 4 / 2
    18.0
    """
    check_whole(1, outputs=outputs)
    if outputs == 1:
        return network_sensitivity(ratios, trace)
    n = (ratios.lower if isinstance(ratios, Bracket) else torch.as_tensor(ratios)).shape[-1]

    def volume(ratio: Tensor, T: Tensor) -> Tensor:
        return ratio**outputs * (n * T / outputs) ** (outputs / 2) / n

    numbers = {"largest ratio": mapped(ratios, torch.max), "trace": trace}
    return _summed("local volumetric ratio", numbers, volume)


def _summed(
    quantity: str, numbers: dict[str, Number], term: Callable[[Tensor, Tensor], Tensor]
) -> Bound:
    def terms(*known: Tensor) -> Terms:
        # without bounds where a layer is called with zero, whatever the trace
        return {"layers": float(term(*known).nan_to_num(math.inf, math.inf))}

    return bounded(
        numbers, terms, epsilon=0.0,
        quantity=f"the {quantity}, summed over layers,", assumptions=(VECTORS,), source=SOURCE,
        trivial=math.inf,
    )  # fmt: skip


@dataclass(frozen=True)
class LayerSensitivity:
    """Mean response of the outputs to what each layer is called with, and its bounds.

    Each by the layer's name, and for ``"all layers"`` together.

    Attributes:
        sensitivity: spectral norms of Jacobians, in the mean over examples.
        sensitivity_bounds: see :func:`network_sensitivity`.
        volume: roots of the determinants of :math:`J J^T`, in the mean.
        volume_bounds: see :func:`network_volume`.
    """

    sensitivity: Mapping[str, float]
    sensitivity_bounds: Mapping[str, Bound]
    volume: Mapping[str, float]
    volume_bounds: Mapping[str, Bound]

    __repr__ = short


def layer_sensitivity(problem: Problem) -> LayerSensitivity:
    r"""Measure how outputs respond to the inputs of all linear layers, beside what flatness allows.

    The layers are those of :func:`lossgeom.smoothness.vector_layers`: convolutions, and layers that
    map every token, have gradients that may cancel, and are left out on both sides.

    Cost: for each layer, that of :func:`lossgeom.multiplicative_inequality` and C more backward
    passes.

    Args:
        problem: model and data; the loss plays no part, and the mode is always eval.

    Returns:
        Both sides, certified for a problem in float64.

    Raises:
        ValueError: if there is no such layer, and as :func:`lossgeom.multiplicative_inequality`.
        TypeError, NonFiniteError: as there.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False).double()
    >>> model.weight.data = torch.tensor([[3.0, 4.0]]).double()
    >>> x = torch.tensor([[0.0, 1.0], [0.0, 2.0]]).double()
    >>> found = layer_sensitivity(Problem(model, "squared_error", [(x, model(x).detach())]))
    >>> found.sensitivity["all layers"], round(found.sensitivity_bounds["all layers"].value, 6)
    (5.0, 6.25)
    """
    problem = checked_problem(problem).in_mode("eval")
    layers = vector_layers(problem)
    if not layers:
        raise ValueError("expected a Linear layer that maps one vector of each example, found none")
    ratios, values = list[Tensor](), list[Tensor]()
    for name, biased in layers.items():
        sides = multiplicative_inequality(problem, [1], layer=name)[1]
        ratio = sides.operator_norm / (sides.inputs.square() + biased).sqrt()
        ratios.append(ratio.nan_to_num(0.0, math.inf))  # 0 where the layer is
        values.append(layer_singular_values(problem, name))
    C = sides.left.shape[1]
    trace = rounded(problem, sobolev_seminorms(problem, "parameters", [1]).elementwise[1] ** 2)
    every = rounded(problem, torch.stack(ratios))
    alone = {name: rounded(problem, each[None]) for name, each in zip(layers, ratios, strict=True)}
    bounded_by = {**alone, EVERY: every}
    return LayerSensitivity(
        _with_sum(layers, [each[:, 0].mean() for each in values]),
        {name: checked(network_sensitivity(ratio, trace)) for name, ratio in bounded_by.items()},
        _with_sum(layers, [_volumes(each, C).mean() for each in values]),
        {name: checked(network_volume(ratio, trace, C)) for name, ratio in bounded_by.items()},
    )


def _with_sum(layers: Mapping[str, bool], means: list[Tensor]) -> dict[str, float]:
    found = {name: float(mean) for name, mean in zip(layers, means, strict=True)}
    return {**found, EVERY: math.fsum(found.values())}


def _volumes(values: Float[Tensor, "N n"], C: int) -> Float[Tensor, " N"]:
    """Volumes of dimension C; 0 where a layer is called with fewer numbers."""
    return values.prod(1) if values.shape[1] == C else values.new_zeros(len(values))
