"""How far each layer's block of the Hessian is a Kronecker product, and what its top looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature._layers import Layer
from lossgeom.curvature.kronecker import KroneckerFactors, kronecker_factors
from lossgeom.curvature.kronecker_errors import LayerErrors, kronecker_errors
from lossgeom.curvature.layer_eigenpairs import LayerBlocks
from lossgeom.curvature.named_matrix import Matrix
from lossgeom.linalg import EigenPairs, plain_arithmetic
from lossgeom.linalg.eigenspaces import (
    correspondence_maps,
    eigenspace_overlap,
    energy_along,
    random_overlap,
    rank_one_energy,
)
from lossgeom.messages.checks import check_whole
from lossgeom.messages.reprs import short
from lossgeom.messages.wording import in_columns
from lossgeom.problem import Problem


@dataclass(frozen=True)
class Outliers:
    """The eigenvalues before the largest relative gap.

    Attributes:
        count: how many they are.
        gap: the ratio of the last of them to the next eigenvalue, which is infinite where that is
            zero up to rounding, and NaN, with a count of 0, where an eigenvalue is not finite.
    """

    count: int
    gap: float


def outliers(values: Float[Tensor, " k"]) -> Outliers:
    r"""Find the largest ratio of neighbours in a spectrum.

    .. math:: \mathrm{argmax}_i \; \lambda_i / \lambda_{i+1}

    over positive eigenvalues; what is below rounding counts as zero, and those that are zero from
    the first on as one. The Hessian of a cross-entropy with C classes has C - 1 outliers where
    classes are well apart.

    Args:
        values: descending.

    Raises:
        ValueError: for fewer than two eigenvalues.

    >>> outliers(torch.tensor([9.0, 8.0, 0.5, 0.4]))
    Outliers(count=2, gap=16.0)
    """
    if len(values) < 2:
        raise ValueError(f"expected two eigenvalues or more, got {len(values)}")
    if not values.isfinite().all():
        return Outliers(0, math.nan)
    values = values if values.is_floating_point() else values.double()
    floor = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    cleaned = torch.where(values > floor, values, 0.0).double()
    ratios = (cleaned[:-1] / cleaned[1:]).nan_to_num(nan=0.0, posinf=math.inf)
    place = int(ratios.argmax())
    return Outliers(place + 1, float(ratios[place]))


@dataclass(frozen=True, eq=False, repr=False)
class LayerStructure:
    r"""A layer's block of the Hessian beside its decoupling :math:`E[M] \otimes E[x x^\top]`.

    Attributes:
        name: of the layer.
        eigenpairs: the k largest of the block in its weight, see :func:`layer_eigenpairs`.
        factors: of the decoupling, see :func:`kronecker_factors`.
        errors: of this and other Kronecker products, see :func:`kronecker_errors`; ``None`` where
            they were not asked for.
    """

    name: str
    eigenpairs: EigenPairs
    factors: KroneckerFactors
    errors: LayerErrors | None = None

    __repr__ = short

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs m and inputs n."""
        return len(self.factors.outputs), len(self.factors.inputs)

    @cached_property
    def decoupled(self) -> EigenPairs:
        """The k largest eigenpairs of the decoupling."""
        return self.factors.matrix.top_eigenpairs(len(self.eigenpairs.values))

    @cached_property
    def overlap(self) -> Float[Tensor, " k"]:
        """That of the top j-dimensional eigenspaces of block and decoupling, for j = 1..k."""
        return eigenspace_overlap(self.eigenpairs.vectors, self.decoupled.vectors)

    @property
    def baseline(self) -> Float[Tensor, " k"]:
        """The expected overlap of random spaces."""
        return random_overlap(*reversed(self.eigenpairs.vectors.shape))

    @cached_property
    def spectra(self) -> tuple[Float[Tensor, " m"], Float[Tensor, " n"]]:
        """All eigenvalues of E[M] and of E[x x^T], descending."""
        (outputs, _), (inputs, _) = self._decomposed
        return outputs, inputs

    @cached_property
    def maps(self) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k n"]]:
        """How each top eigenvector divides among those of E[M], and of E[x x^T], largest first."""
        (_, left), (_, right) = self._decomposed
        return correspondence_maps(self.eigenpairs.vectors, left, right)

    @cached_property
    def rank_one_energy(self) -> Float[Tensor, " k"]:
        """The share of the best rank-one matrix in each top eigenvector."""
        return rank_one_energy(self.eigenpairs.vectors, self.shape)

    @cached_property
    def mean_input_energy(self) -> Float[Tensor, " k"]:
        """The share of each top eigenvector that lies along the mean input."""
        return energy_along(self.eigenpairs.vectors, self.factors.mean_input)

    @property
    def input_ratio(self) -> float:
        """The ratio of the two largest eigenvalues of E[x x^T]; NaN for a single input."""
        values = self.spectra[1]
        return float(values[0] / values[1]) if len(values) > 1 else math.nan

    @property
    def mean_alignment(self) -> float:
        """The squared cosine between the top eigenvector of E[x x^T] and the mean input."""
        mean = self.factors.mean_input.double()
        return float((self._decomposed[1][1][:, 0] @ mean).square() / mean.square().sum())

    @property
    def outliers(self) -> Outliers | None:
        """Those among the block's top eigenvalues; ``None`` for a block of a single weight."""
        values = self.eigenpairs.values
        return outliers(values) if len(values) > 1 else None

    @cached_property
    def _decomposed(self) -> list[tuple[Tensor, Tensor]]:
        """Descending eigenvalues and eigenvectors of E[M] and E[x x^T], in float64."""
        with plain_arithmetic(self.factors.inputs.device):
            factors = (self.factors.outputs.double(), self.factors.inputs.double())
            pairs = map(torch.linalg.eigh, factors)
            return [(values.flip(0), vectors.flip(1)) for values, vectors in pairs]


class LayerStructures(tuple[LayerStructure, ...]):
    """The structure of layers, which prints as a table."""

    def __repr__(self) -> str:
        k = max((len(own.overlap) for own in self), default=1)
        headings = [
            "layer", "size", "outliers", "gap", "overlap of 1", f"of {k}", "random", "rank one",
            "along E[x]", "mu1/mu2",
        ]  # fmt: skip
        return "\n".join(in_columns([headings, *map(_row, self)]))

    __str__ = __repr__


def _row(own: LayerStructure) -> list[str]:
    """A layer's line of the table: its overlaps are of one and of all dimensions."""
    found, shares = own.outliers, (own.overlap[0], own.overlap[-1], own.baseline[-1])
    return [
        own.name,
        "{} x {}".format(*own.shape),
        "" if found is None else f"{found.count} of {len(own.overlap)}",
        "" if found is None else f"{found.gap:.3g}",
        *(f"{share:.2g}" for share in shares),
        f"{own.rank_one_energy[0]:.2g}",
        f"{own.mean_input_energy[0]:.2g}",
        f"{own.input_ratio:.3g}",
    ]


def layer_structure(
    problem: Problem,
    k: int = 20,
    *,
    matrix: Matrix = "hessian",
    errors: bool = True,
    tol: float = 1e-3,
    seed: int = 0,
) -> LayerStructures:
    r"""Compare each layer's exact block of the Hessian with the decoupling conjecture.

    .. math:: H_l \approx E[M] \otimes E[x x^\top], \qquad
        \mathrm{overlap}(j) = \frac1j \|V_j^\top \hat V_j\|_F^2

    with the top eigenvectors V of the block in the weights of a layer and those of the decoupling,
    :math:`u \otimes x`. Where inputs have a large mean, as after ReLUs, the top eigenvectors are
    nearly of rank one and lie along it; centred inputs destroy that, and BatchNorm weakens it.

    Cost: that of :func:`layer_eigenpairs` and of :func:`kronecker_factors`; with errors, that of
    :func:`kronecker_errors`. Memory: k vectors of a layer's size for each.

    Args:
        problem: the loss and where to take it; its mode decides about BatchNorm.
        k: how many eigenpairs; as many as there are weights in smaller layers.
        matrix: ``"hessian"``, or ``"gauss_newton"``, whose blocks are decoupled where activations
            are smooth.
        errors: whether to take those of Kronecker products, too.
        tol: of eigenpairs.
        seed: of random starts, probes and targets.

    Returns:
        The structure of each layer that :func:`layer_eigenpairs` has pairs of, in a tuple that
        prints as a table.

    Raises:
        ValueError: as :func:`layer_eigenpairs` and :func:`kronecker_factors`.
        NonFiniteError: where the loss is NaN or infinite.

    Source: Wu et al., Dissecting Hessian, arXiv:2010.04261.

    >>> from torch import nn
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(x, torch.zeros(2, 1))])
    >>> (layer,) = layer_structure(problem, errors=False)
    >>> f"{layer.overlap[0]:.4f}, {layer.input_ratio:.4f}", layer.outliers.count
    ('1.0000, 4.0000', 1)
    """
    check_whole(1, k=k)
    check_whole(0, seed=seed)
    blocks = LayerBlocks(problem, matrix)
    return LayerStructures(
        structure_of(blocks, layer, k, errors=errors, tol=tol, seed=seed) for layer in blocks.layers
    )


def structure_of(
    blocks: LayerBlocks, layer: Layer, k: int, *, errors: bool, tol: float, seed: int
) -> LayerStructure:
    """The structure of one layer; what is taken for all layers at once is kept with the problem."""
    problem = blocks.problem
    factors = {own.name: own for own in problem.cached(kronecker_factors)}
    every = problem.cached(kronecker_errors, seed=seed).layers if errors else ()
    named = {own.name: own for own in every}
    pairs = blocks.top(layer, k, tol=tol, seed=seed)
    return LayerStructure(layer.name, pairs, factors[layer.name], named.get(layer.name))
