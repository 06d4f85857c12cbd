"""Bounds of Jacobians of a network on l2 balls."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.lipschitz.certified import expansions
from lossgeom.lipschitz.certified.activations import Activation
from lossgeom.lipschitz.certified.graph import Graph, Operation
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.propagation import MARGIN, propagated
from lossgeom.lipschitz.certified.smooth_maps import SmoothMap

BLOCK_NUMBERS = 2**22  # numbers of one value and example up to which all units may deviate
CHUNK_NUMBERS = 2**24  # numbers of one value of a chunk of examples


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds that hold on the ball round each example.

    Attributes:
        norm: upper bound of ||J(x)||.
        variation: upper bound of ||J(x) - J(x')||.
        curvature: upper bound of the Lipschitz constant of J; infinite where J may jump.
        lower: of the outputs.
        upper: of the outputs.
    """

    norm: Float[Tensor, " B"]
    variation: Float[Tensor, " B"]
    curvature: Float[Tensor, " B"]
    lower: Float[Tensor, "B C"]
    upper: Float[Tensor, "B C"]


def bounds(
    graph: Graph, centres: Float[Tensor, "N ..."], radius: float | Float[Tensor, " N"]
) -> Bounds:
    r"""Bounds on balls of one radius, or of one for each example, which may be infinite.

    Every Jacobian of the network on the ball is a product of known matrices and of diagonal ones,
    with the slopes of activations, which the propagation knows in intervals. Several bounds are
    carried along, and the smallest is taken:

    *Norms.* ``||A D J|| <= ||A S|| ||J||`` for ``|D| <= S``, because ``D = S T`` with ``||T|| <=
    1``; sums add. Differences telescope: ``D J - D' J' = D (J - J') + (D - D') J'``.

    *Blocks.* With the middle C and the half width R of the intervals, ``D = C + R^1/2 T R^1/2``,
    and by induction ``J = X_input + sum_k X_k T_k G_k`` with ``G_k = R_k^1/2 J_k`` for the
    Jacobian ``J_k`` before activation k, where the X are products of known matrices. Hence
    ``||J|| <= ||X_input|| + sum_k ||X_k|| gain_k``, where the gain of k bounds ``||G_k||`` in the
    same way, and ``||J(x) - J(x')|| <= 2 sum_k ||X_k|| gain_k``.

    *Entries.* ``|J - X_input| <= E`` entry by entry, by ``E <- |A| E`` and ``E <- |D| E + R |X|``.
    Hence ``||J|| <= ||X_input|| + ||E||`` and ``|| |X_input| + E ||``, and ``||J(x) - J(x')|| <=
    2 ||E||``. It knows that units are far apart, where the blocks know that signs cancel.

    *Second derivatives*, of smooth activations, for what the Jacobian varies on a finite ball.

    A unit whose slope is known on the ball has no column in X_k. For finite balls the columns are
    therefore counted on the way, and an expansion ends where it would take more than 2^26 numbers.

    The intervals themselves follow from the rows of J (which all of these bound too), by the mean
    value theorem on the ball, and from interval arithmetic.
    """
    D = centres[0].numel()
    numbers = _numbers(graph, D)
    expanded = numbers <= BLOCK_NUMBERS
    if math.isfinite(torch.as_tensor(radius).max()):
        expanded |= _numbers(graph, D, switching=False) <= expansions.LARGEST
    chunk = max(1, CHUNK_NUMBERS // (numbers if expanded else BLOCK_NUMBERS))
    radii = torch.as_tensor(radius, dtype=centres.dtype, device=centres.device).expand(len(centres))
    chunks = zip(torch.split(centres, chunk), torch.split(radii, chunk), strict=True)
    with torch.no_grad():
        parts = [_of_chunk(graph, *both, expanded=expanded) for both in chunks]
    names = [each.name for each in fields(Bounds)]
    return Bounds(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _numbers(graph: Graph, D: int, *, switching: bool = True) -> int:
    """The most numbers that the bounds of one value take for one example.

    Slopes that only jump, and winners of windows, may not switch on a ball.
    """
    columns = 2 * D  # those of the Jacobian, and those of the bounds of its entries
    most = columns * D
    for step in graph.steps:
        if _deviates(step.operation, switching=switching):
            columns += math.prod(step.shape)
        most = max(most, columns * math.prod(step.shape))
    return most


def _deviates(operation: Operation, *, switching: bool) -> bool:
    """Whether derivatives of all numbers of a layer vary on a ball, or may switch on it."""
    if isinstance(operation, Activation):
        return switching or operation.rounding > 0  # 0 for straight pieces only
    return isinstance(operation, SmoothMap) or (switching and isinstance(operation, MaxPool))


def _of_chunk(
    graph: Graph, x: Float[Tensor, "B ..."], radius: Float[Tensor, " B"], *, expanded: bool
) -> Bounds:
    output = propagated(graph, x, radius, expanded=expanded)
    norm, variation, expansion = output.norm, output.variation, output.expansion
    curvature = torch.full_like(norm, math.inf)
    if expansion is not None:
        norm = torch.fmin(norm, expansion.norm())
        variation = torch.fmin(variation, 2 * expansion.deviation_norm())
        curvature = expansion.lipschitz()
        variation = torch.fmin(variation, 2 * radius * curvature)
    variation = torch.fmin(variation, 2 * norm)
    norm, variation, curvature = (
        (MARGIN * part).nan_to_num(math.inf, math.inf) for part in (norm, variation, curvature)
    )
    return Bounds(norm, variation, curvature, output.lower.flatten(1), output.upper.flatten(1))


def everywhere(graph: Graph, inputs: Float[Tensor, "N ..."]) -> Bounds:
    """The bounds for all inputs of a shape."""
    return bounds(graph, torch.zeros_like(inputs[:1]), math.inf)


def certified(graph: Graph, inputs: Float[Tensor, "N ..."], radius: float) -> Bounds:
    """The bounds on balls, none of them above those for all inputs."""
    local, anywhere = bounds(graph, inputs, radius), everywhere(graph, inputs)
    norm = torch.minimum(local.norm, anywhere.norm)
    variation = torch.minimum(local.variation, anywhere.variation)
    variation = torch.minimum(variation, 2 * norm)
    curvature = torch.minimum(local.curvature, anywhere.curvature)
    return replace(local, norm=norm, variation=variation, curvature=curvature)
