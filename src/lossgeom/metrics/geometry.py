"""The geometry of a loss at one point, part by part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

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
from lossgeom.problem import NonFiniteError, Problem, checked_problem

Labels = dict[str, str]

MATRICES = {
    "hessian": "Hessian",
    "gauss_newton": "Gauss-Newton matrix",
    "residual": "residual term",
}
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
    """

    estimates: dict[str, Estimate]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    message: str | None = None


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
    r"""Which numbers describe a loss at one point, and how well to know them.

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

    def __post_init__(self) -> None:
        least = {"k": 1, "matvecs": 2, "probes": 2, "steps": 1, "seed": 0}
        for name, limit in least.items():
            if getattr(self, name) < limit:
                raise ValueError(f"expected {name} >= {limit}, got {getattr(self, name)}")
        if not 0 < self.tol < 1:
            raise ValueError(f"expected 0 < tol < 1, got {self.tol}")
        if self.max_matvecs is not None and self.max_matvecs < 1:
            raise ValueError(f"expected max_matvecs >= 1, got {self.max_matvecs}")

    def parts(self, problem: Problem) -> Iterator[Part]:
        """All parts, in order; nothing is computed until a part is told to measure.

        Measure each part before going on to the next one: a matrix is kept for its own parts only.
        """
        yield from _of_the_loss(checked_problem(problem))
        H = Hessian(problem)
        largest = {"sharpness": "sharpness, the largest eigenvalue"}
        smallest = {"hessian_smallest": EXTREMES["smallest"]}
        yield self._extreme("hessian_largest", H, self.k, "largest", largest)
        yield self._extreme("hessian_smallest", H, 1, "smallest", smallest)
        yield from self._shape("hessian", H)
        del H
        G = GaussNewton(problem)
        largest = {"gauss_newton_largest": EXTREMES["largest"]}
        yield self._extreme("gauss_newton_largest", G, self.k, "largest", largest)
        yield from self._shape("gauss_newton", G)
        del G
        R = Residual(problem)
        for which in EXTREMES:
            name = f"residual_{which}"
            yield self._extreme(name, R, 1, which, {name: EXTREMES[which]})
        yield self._trace("residual", R)

    def _extreme(self, name: str, A: LinearOperator, k: int, which: Which, labels: Labels) -> Part:
        k = min(k, A.shape[0])
        limit = max(100, 20 * k) if self.max_matvecs is None else max(self.max_matvecs, 2 * k)

        def compute() -> Found:
            pairs = top_eigenpairs(
                A,
                k,
                which=which,
                tol=self.tol,
                max_matvecs=limit,
                verify=True,
                seed=self.seed,
            )
            arrays = {
                "values": pairs.values.double(),
                "residuals": pairs.residuals.double(),
                "converged": pairs.converged,
            }
            return Found(dict.fromkeys(labels, pairs.top), arrays)

        matrix = name.rpartition("_")[0]
        what = f"{k} largest eigenvalues" if k > 1 else EXTREMES[which]
        return Part(name, f"{what} of the {MATRICES[matrix]}", matrix, labels, limit, compute)

    def _shape(self, matrix: str, A: LinearOperator) -> Iterator[Part]:
        yield self._trace(matrix, A)
        labels = {
            f"{matrix}_frobenius_norm": "Frobenius norm",
            f"{matrix}_stable_rank": "effective rank (stable)",
        }
        products = sum(min(A.shape[0], n) for n in (self.probes * self.steps, self.matvecs))
        title = f"spectral density of the {MATRICES[matrix]}"
        compute = partial(self._density, matrix, A)
        yield Part(f"{matrix}_density", title, matrix, labels, products, compute)

    def _trace(self, matrix: str, A: LinearOperator) -> Part:
        name = f"{matrix}_trace"

        def compute() -> Found:
            return Found({name: trace(A, matvecs=self.matvecs, seed=self.seed)})

        title, products = f"trace of the {MATRICES[matrix]}", min(A.shape[0], self.matvecs)
        return Part(name, title, matrix, {name: "trace"}, products, compute)

    def _density(self, matrix: str, A: LinearOperator) -> Found:
        density = spectral_density(A, probes=self.probes, steps=self.steps, seed=self.seed)
        arrays = {
            name: getattr(density, name)
            for name in ("nodes", "weights", "grid", "density", "stderr")
        }
        arrays["width"] = torch.tensor(density.width, dtype=torch.float64)
        norm = frobenius_norm(A, matvecs=self.matvecs, seed=self.seed)
        norm = replace(norm, matvecs=norm.matvecs + density.matvecs)
        rank = _stable_rank(norm, density.nodes.abs().max().item())
        return Found({f"{matrix}_frobenius_norm": norm, f"{matrix}_stable_rank": rank}, arrays)


def _of_the_loss(problem: Problem) -> Iterator[Part]:
    def loss() -> Found:
        return Found({"loss": Estimate(problem.loss())})

    def gradient() -> Found:
        norm = torch.linalg.vector_norm(problem.gradient(), dtype=torch.float64)
        return Found({"gradient_norm": Estimate(norm.item())})

    yield Part("loss", "loss", "loss", {"loss": "loss"}, 0, loss)
    label = "norm of the gradient"
    yield Part("gradient", label, "loss", {"gradient_norm": label}, 0, gradient)


def _stable_rank(norm: Estimate, spectral: float) -> Estimate:
    """The squared Frobenius norm over the squared spectral norm; 0 for the zero matrix."""
    if spectral == 0:
        return replace(norm, value=0.0, stderr=0.0)
    error = 2 * norm.value * (norm.stderr or 0.0) / spectral**2
    return replace(norm, value=(norm.value / spectral) ** 2, stderr=error)
