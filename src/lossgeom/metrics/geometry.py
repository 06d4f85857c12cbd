"""The geometry of a loss at one point, part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lossgeom.curvature import GaussNewton, Hessian, Residual
from lossgeom.estimate import Estimate
from lossgeom.linalg import (
    LinearOperator,
    Which,
    frobenius_norm,
    spectral_density,
    top_eigenpairs,
    trace,
)
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import in_table
from lossgeom.problem import NonFiniteError, Problem, checked_problem

Labels = dict[str, str]

MATRICES: dict[str, tuple[str, Callable[[Problem], LinearOperator], tuple[Which, ...]]] = {
    "hessian": ("Hessian", Hessian, ("largest", "smallest")),
    "gauss_newton": ("Gauss-Newton matrix", GaussNewton, ("largest",)),
    "residual": ("residual term", Residual, ("largest", "smallest")),
}
GRADIENT = "norm of the gradient"
EXTREMES: dict[Which, str] = {
    "largest": "largest eigenvalue",
    "smallest": "most negative eigenvalue",
}


@dataclass(frozen=True)
class Found:
    """What a part has found.

    Attributes:
        estimates: by the name of the quantity.
        arrays: eigenvalues or a density, by name.
        message: why there is no number, where there is none.
        facts: about the arrays; anything that JSON can hold.
    """

    estimates: dict[str, Estimate]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    message: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Quantities that come from the same products.

    Attributes:
        name: key in records.
        title: what it is, for people.
        matrix: what they are quantities of.
        labels: of the quantities, by name, for people.
        products: matrix-vector products that it takes at most.
    """

    name: str
    title: str
    matrix: str
    labels: Labels
    products: int
    _compute: Callable[[], Found]

    def measure(self) -> Found:
        """Measure; where the loss is NaN or infinite, so is every quantity."""
        try:
            return self._compute()
        except NonFiniteError as error:
            nan = Estimate(math.nan, converged=False)
            return Found(dict.fromkeys(self.labels, nan), message=str(error))


@dataclass(frozen=True)
class Geometry:
    r"""The numbers that describe a loss at one point, with the accuracy to measure them at.

    Of the loss: its value and the norm of its gradient. Of the Hessian H: the k largest
    eigenvalues, of which the first is the sharpness, the most negative one, trace, Frobenius norm,
    stable rank and spectral density. Of the Gauss-Newton matrix G the same but for the most
    negative one, and of the residual term H - G both extreme eigenvalues and the trace. Each number
    has its error, and every matrix is let go before the next one is made.

    The stable rank is the squared Frobenius norm over the squared spectral norm, which is the
    outermost node of the density.

    Cost: products with the three matrices, each about two gradients. With the defaults about 600
    for each density, 100 for each trace and each Frobenius norm, and some ten for each eigenvalue.

    Args:
        k: largest eigenvalues of H and of G; all of them in fewer than k parameters.
        tol: of eigenvalues, see :func:`lossgeom.top_eigenpairs`.
        max_matvecs: products for each search of eigenvalues; what has not converged by then says
            so. Default max(100, 20 k) for k eigenvalues.
        matvecs: for each trace and each Frobenius norm, see :func:`lossgeom.trace`.
        probes: for each density, see :func:`lossgeom.spectral_density`.
        steps: of each of them.
        seed: of all probes and random starts.

    Raises:
        ValueError: for settings out of their range.

    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> problem = Problem(model, "squared_error", [(x, torch.zeros(2, 1))])
    >>> for part in Geometry(k=2).parts(problem):
    ...     if part.name == "hessian_largest":
    ...         found = part.measure()
    >>> round(found.estimates["sharpness"].value, 4)
    8.0
    >>> [round(value, 4) for value in found.arrays["values"].tolist()]
    [8.0, 2.0]
    """

    k: int = 10
    tol: float = 1e-3
    max_matvecs: int | None = None
    matvecs: int = 100
    probes: int = 10
    steps: int = 60
    seed: int = 0

    _repr_html_ = in_table

    def __post_init__(self) -> None:
        check_at_least(0, seed=self.seed)
        check_at_least(1, k=self.k, steps=self.steps, max_matvecs=self.max_matvecs)
        check_at_least(2, matvecs=self.matvecs, probes=self.probes)
        if not 0 < self.tol < 1:
            raise ValueError(f"expected 0 < tol < 1, got {self.tol}")

    def parts(self, problem: Problem) -> Iterator[Part]:
        """All parts, in order; nothing is computed until a part is told to measure.

        Measure each part before going on to the next one: a matrix is kept for its own parts only.
        """
        yield from _of_the_loss(checked_problem(problem))
        for matrix, (_, make, _) in MATRICES.items():
            yield from self._of_a_matrix(matrix, make(problem))

    def _of_a_matrix(self, matrix: str, A: LinearOperator) -> Iterator[Part]:
        title, _, extremes = MATRICES[matrix]
        whole = matrix != "residual"  # which has fewer numbers of interest
        for which in extremes:
            k = min(self.k, A.shape[0]) if whole and which == "largest" else 1
            yield self._extreme(matrix, A, k, which)
        name, products = f"{matrix}_trace", min(A.shape[0], self.matvecs)
        measure = partial(self._trace, name, A)
        yield Part(name, f"trace of the {title}", matrix, {name: "trace"}, products, measure)
        if whole:
            labels = {
                f"{matrix}_frobenius_norm": "Frobenius norm",
                f"{matrix}_stable_rank": "effective rank (stable)",
            }
            products += min(A.shape[0], self.probes * self.steps)
            name, title = f"{matrix}_density", f"spectral density of the {title}"
            measure = partial(self._density, matrix, A)
            yield Part(name, title, matrix, labels, products, measure)

    def _extreme(self, matrix: str, A: LinearOperator, k: int, which: Which) -> Part:
        limit = max(100, 20 * k) if self.max_matvecs is None else max(self.max_matvecs, 2 * k)
        name, label = f"{matrix}_{which}", EXTREMES[which]
        what = f"{k} largest eigenvalues" if k > 1 else label
        title = f"{what} of the {MATRICES[matrix][0]}"
        sharpness = {"sharpness": f"sharpness, the {label}"}
        labels = sharpness if name == "hessian_largest" else {name: label}

        def compute() -> Found:
            pairs = top_eigenpairs(
                A, k, which=which, tol=self.tol, max_matvecs=limit, verify=True, seed=self.seed
            )
            arrays = {name: getattr(pairs, name).double() for name in ("values", "residuals")}
            return Found(dict.fromkeys(labels, pairs.top), arrays | {"converged": pairs.converged})

        return Part(name, title, matrix, labels, limit, compute)

    def _trace(self, name: str, A: LinearOperator) -> Found:
        return Found({name: trace(A, matvecs=self.matvecs, seed=self.seed)})

    def _density(self, matrix: str, A: LinearOperator) -> Found:
        density = spectral_density(A, probes=self.probes, steps=self.steps, seed=self.seed)
        names = ("nodes", "weights", "grid", "density", "stderr")
        arrays = {name: getattr(density, name) for name in names}
        arrays["width"] = torch.tensor(density.width, dtype=torch.float64)
        norm = frobenius_norm(A, matvecs=self.matvecs, seed=self.seed)
        norm = replace(norm, matvecs=norm.matvecs + density.matvecs)
        rank = _stable_rank(norm, density.nodes.abs().max().item())
        return Found({f"{matrix}_frobenius_norm": norm, f"{matrix}_stable_rank": rank}, arrays)


def _of_the_loss(problem: Problem) -> Iterator[Part]:
    def gradient_norm() -> float:
        norm: Tensor = torch.linalg.vector_norm(problem.gradient(), dtype=torch.float64)
        return norm.item()

    def found(name: str, compute: Callable[[], float]) -> Found:
        return Found({name: Estimate(compute())})

    measure = partial(found, "loss", problem.loss)
    yield Part("loss", "loss", "loss", {"loss": "loss"}, 0, measure)
    labels, measure = {"gradient_norm": GRADIENT}, partial(found, "gradient_norm", gradient_norm)
    yield Part("gradient", GRADIENT, "loss", labels, 0, measure)


def _stable_rank(norm: Estimate, spectral: float) -> Estimate:
    """The squared Frobenius norm over the squared spectral norm; 0 for the zero matrix."""
    if spectral == 0:
        return replace(norm, value=0.0, stderr=0.0)
    error = 2 * norm.value * (norm.stderr or 0.0) / spectral**2
    return replace(norm, value=(norm.value / spectral) ** 2, stderr=error)
