"""The spectral density of a symmetric matrix by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._ritz import EigenPairs
from lossgeom.linalg._sampled_spectrum import Sampled, resolution, sample
from lossgeom.linalg.arithmetic import plain_arithmetic, random_numbers
from lossgeom.linalg.operator import ASYMMETRY, LinearOperator, check_symmetric, square_operator
from lossgeom.linalg.probes import VANISHING_PRODUCTS, columns, exact_estimate, mean_estimate
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import html_table, short, sparkline

GRID_POINTS = 1_001
MOST_GRID_POINTS = 100_001


@dataclass(frozen=True)
class SpectralDensity:
    """The distribution of the eigenvalues of a matrix, as fractions of them.

    Attributes:
        nodes: Ritz values, a row for each probe; one row, of eigenvalues, where they are exact.
        weights: of the nodes; each row is positive and sums to 1.
        outliers: how many nodes, the first of every row, are eigenvalues that were taken out.
        grid: points, ascending.
        density: at these points, the mean over probes; its integral over the real line is 1.
        stderr: standard error of the density over probes; 0 where it is exact, and where no probe
            has a node nearby; infinite for a single probe.
        width: standard deviation of the Gaussian that stands for each node.
        mass: integral of the density over the grid, by the trapezoidal rule. Far from 1, the grid
            misses a part of the spectrum or is coarser than the width.
        size: n, the number of eigenvalues.
        reorthogonalized: whether the Lanczos vectors were kept orthogonal.
        matvecs: matrix-vector products spent.
        rounding: of the products, relative.
    """

    nodes: Float[Tensor, "r m"]
    weights: Float[Tensor, "r m"]
    outliers: int
    grid: Float[Tensor, " g"]
    density: Float[Tensor, " g"]
    stderr: Float[Tensor, " g"]
    width: float
    mass: float
    size: int
    reorthogonalized: bool
    matvecs: int
    rounding: float

    __repr__ = short

    def _repr_html_(self) -> str:
        points = (self.grid.tolist(), self.density.clamp(min=1e-3 / self.size).tolist())
        rows = [
            ("eigenvalues", str(self.size)),
            ("from", f"{self.nodes.min().item():.6g}"),
            ("to", f"{self.nodes.max().item():.6g}"),
            ("density, logarithmic", sparkline(*points, log=True)),
            ("width", f"{self.width:.3g}"),
            ("mass on the grid", f"{self.mass:.4g}"),
            ("products", str(self.matvecs)),
        ]
        return html_table(type(self).__name__, rows)

    @property
    def exact(self) -> bool:
        """Whether nodes are the eigenvalues themselves."""
        return self.nodes.shape[1] == self.size

    def on(self, grid: Tensor | None = None, width: float | None = None) -> SpectralDensity:
        """Take the same quadrature on another grid or with another width, without any product."""
        _check_kernel(grid, width)
        width = self.width if width is None else width
        return replace(self, **_smoothed(self.nodes, self.weights, self.size, grid, width))

    def mean(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """The mean of a function over all eigenvalues; n times it is the trace of f(A).

        The standard error is that of the probes; what a quadrature of few nodes makes of a function
        that is no polynomial comes on top, such as of ``abs`` where eigenvalues are close to zero.
        Where fewer than 18 probes agree, the standard error is infinite: that may be chance. It is
        of a single probe, too.

        >>> A = torch.diag(torch.tensor([1.0, 4.0]))
        >>> spectral_density(A).mean(torch.sqrt).value
        1.5
        """
        parts = self.weights * function(self.nodes)
        if self.exact:
            return exact_estimate(parts.sum().item(), self.matvecs)
        known, rest = parts[0, : self.outliers].sum().item(), parts[:, self.outliers :]
        rounding = self.rounding * parts.shape[1] * parts.abs().sum(1)  # each of the terms has it
        return mean_estimate(rest.sum(1), rounding, self.matvecs, known)

    def moment(self, k: int) -> Estimate:
        """The mean of the k-th powers of the eigenvalues: ``tr(A^k) / n``."""
        return self.mean(lambda nodes: nodes**k)

    def fraction(self, low: float, high: float) -> Estimate:
        """The fraction of the eigenvalues from low to high.

        The standard error is that of the probes. Where eigenvalues lie close to an end of the
        interval, a quadrature is besides wrong by up to the weight of the nodes next to that end.
        Where r < 7 probes see all eigenvalues or none of them there, 6 / r eigenvalues may be
        missed, and the standard error says so: each is unseen by all with probability 1 / 2**r. Of
        a single probe's share it says only that it is between all eigenvalues and none.

        >>> spectral_density(torch.diag(torch.arange(-1.0, 3.0))).fraction(-math.inf, 0).value
        0.5
        """

        def within(nodes: Tensor) -> Tensor:
            return ((low <= nodes) & (nodes <= high)) + 0 * nodes

        inside = self.mean(within)
        if self.exact or inside.stderr != math.inf:
            return inside
        known = within(self.nodes[0, : self.outliers]).sum().item() / self.size
        return replace(inside, stderr=self._unseen(inside.value - known))

    def _unseen(self, share: float) -> float:
        """What a sampled share may be wrong by where all of too few probes agree on it."""
        whole = 1 - self.outliers / self.size
        r, ends = len(self.nodes), (0, whole)
        if r > 1 and any(math.isclose(share, end, abs_tol=self.rounding) for end in ends):
            return ((VANISHING_PRODUCTS - 1) // r) / self.size
        return max(share, whole - share)

    def count(self, low: float, high: float) -> Estimate:
        """How many eigenvalues are from low to high, with the reservation of :meth:`fraction`."""
        share = self.fraction(low, high)
        error = self.size * (share.stderr or 0.0)
        return Estimate(self.size * share.value, error, None, share.converged, self.matvecs)


def spectral_density(
    A: LinearOperator | Tensor | Any,
    *,
    probes: int = 10,
    steps: int = 60,
    grid: Tensor | None = None,
    width: float | None = None,
    known: EigenPairs | None = None,
    memory_budget: int = 2 * 2**30,
    seed: int = 0,
) -> SpectralDensity:
    r"""The density of the eigenvalues of a symmetric n x n matrix.

    .. math:: \phi_\sigma(t) = \frac1n \sum_{i=1}^n g_\sigma(t - \lambda_i)
        = E \, \frac{z^\top g_\sigma(t I - A) \, z}{n}

    for probes z of random signs, with g the density of a normal variable of standard deviation
    ``width``. Each probe's quadratic form is a Gauss quadrature with ``steps`` nodes from a Lanczos
    iteration: exact for polynomials of degree up to 2 ``steps`` - 1. Of the probes that make this
    right on average, signs have the least variance: none at all for a diagonal matrix.

    Lanczos vectors are kept orthogonal where that fits the memory; otherwise probes go in smaller
    groups, and at last without. The quadrature stays right then, because copies of a Ritz value
    share its weight (Greenbaum; Cullum and Willoughby), but the copies are steps lost.

    Outliers are counted exactly and taken out of the probes, where they would have most of the
    variance: the ``known`` eigenpairs, or else those to which the first iteration has converged,
    where there is memory for a basis. With q of them and the projection P beside them, probes go on
    with q steps fewer, but half of the steps at least:

    .. math:: \phi_\sigma(t) = \frac1n \sum_{j \le q} g_\sigma(t - \lambda_j)
        + \frac{n - q}n \, E \, \frac{z^\top P g_\sigma(t I - A) P z}{z^\top P z}

    The first iteration goes on by up to half of the steps while outliers that stand apart are about
    to converge; a single one, while there are any, and all its nodes stay. Eigenpairs that have
    converged do not depend on the vector that found them, so that it is a probe as good as the
    others, at no further product. Of a multiple eigenvalue it sees nothing beside the pair found;
    where other probes do, one more takes its place.

    Without knowing them, a number of k outliers to within a relative e takes 2 / (k e^2) probes or
    more, because each has a weight of variance 2 in all but special directions.

    Where ``probes`` times ``steps`` products would be n or more, all columns of A are taken
    instead, and its eigenvalues are exact.

    Cost: probes x steps products, in blocks of at most 8; with q known outliers, 1 + probes x
    (steps - q); with q that the first iteration finds, ``steps`` + (probes - 1) x (steps - q), and
    at most ``steps / 2`` more in that iteration; where they have copies, steps - q more.

    Args:
        A: symmetric n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        probes: at least 1. Errors fall with the root of their number. A single probe's are unknown,
            and given as infinite; it sees an eigenvalue that has copies as one.
        steps: Lanczos steps of each. Details finer than the spectrum's range divided by them are
            not seen, except close to its ends.
        grid: points to take the density at; by default 1001 or more, from five widths below all
            nodes to five above.
        width: of the Gaussian; by default the range of the nodes divided by the number of them in
            a row; if they are all the same, 1 % of their size, and 1 at zero.
        known: eigenpairs to take out, such as those of :func:`top_eigenpairs`, as far as they have
            converged and are orthonormal; up to half of the steps count them.
        memory_budget: bytes that the vectors of a group may take; 2 GiB.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The density with nodes, weights and standard errors; NaN where products are not finite.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square or not symmetric, probes < 1, steps < 1, the width is not
            positive, the grid is no ascending vector, or known eigenpairs are not those of A.

    Source: Lin, Saad and Yang, Approximating spectral densities of large matrices (2016), section
    3.2.2; Ghorbani, Krishnan and Xiao, arXiv:1901.10159.

    >>> density = spectral_density(torch.diag(torch.tensor([0.0, 1.0, 1.0, 2.0])))
    >>> round(density.mass, 4), density.count(0.5, 1.5).value, density.moment(2).value
    (1.0, 2.0, 1.5)
    """
    A = square_operator(A)
    check_at_least(1, probes=probes, steps=steps, memory_budget=memory_budget)
    _check_kernel(grid, width)
    n, eps = A.shape[0], torch.finfo(A.dtype).eps
    with plain_arithmetic(A.device), torch.no_grad():
        if probes * steps >= n:
            nodes = _eigenvalues(A)[None]
            sampled = Sampled(nodes, torch.full_like(nodes, 1 / n), 0, True, n)
        else:
            sampled = sample(A, probes, steps, memory_budget, random_numbers(seed), known)
        return SpectralDensity(
            **vars(sampled),
            size=n,
            rounding=eps,
            **_smoothed(sampled.nodes, sampled.weights, n, grid, width),
        )


def _eigenvalues(A: LinearOperator) -> Float[Tensor, " n"]:
    matrix = torch.cat([block for _, block in columns(A)], dim=1).cpu()
    if not matrix.isfinite().all():
        return matrix.new_full((len(matrix),), math.nan)
    check_symmetric(matrix, matrix.T, ASYMMETRY * matrix.norm() / len(matrix) ** 0.5)
    values: Tensor = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return values


def _smoothed(
    nodes: Float[Tensor, "r m"],
    weights: Float[Tensor, "r m"],
    size: int,
    grid: Tensor | None,
    width: float | None,
) -> dict[str, Any]:
    """The curve of a density, the error of which is that of the mean of independent rows."""
    width = resolution(nodes) if width is None else float(width)
    grid = _grid(nodes, width) if grid is None else grid.detach().double().cpu()
    rows = torch.stack([_kernel(grid, *row, width) for row in zip(nodes, weights, strict=True)])
    density, r = rows.mean(0), len(rows)
    unknown = 0.0 if nodes.shape[1] == size else math.inf
    return {
        "grid": grid,
        "density": density,
        "stderr": rows.std(0) / math.sqrt(r) if r > 1 else torch.full_like(density, unknown),
        "width": width,
        "mass": torch.trapezoid(density, grid).item(),
    }


def _kernel(grid: Tensor, nodes: Tensor, weights: Tensor, width: float) -> Float[Tensor, " g"]:
    heights = torch.exp(-0.5 * ((grid[:, None] - nodes) / width).square())
    return heights @ weights / (width * math.sqrt(2 * math.pi))


def _grid(nodes: Float[Tensor, "r m"], width: float) -> Float[Tensor, " g"]:
    """Fine enough for the trapezoidal rule."""
    low, high = nodes.min().item() - 5 * width, nodes.max().item() + 5 * width
    if not math.isfinite(high - low):
        return torch.full((GRID_POINTS,), math.nan, dtype=torch.float64)
    points = max(GRID_POINTS, math.ceil(2 * (high - low) / width))
    return torch.linspace(low, high, min(points, MOST_GRID_POINTS), dtype=torch.float64)


def _check_kernel(grid: Tensor | None, width: float | None) -> None:
    if width is not None and not 0 < width < math.inf:
        raise ValueError(f"expected a positive width, got {width}")
    if grid is None:
        return
    if grid.ndim != 1 or len(grid) < 2 or not (grid.diff() > 0).all():
        raise ValueError(
            "expected grid to be a vector of at least two ascending points, got shape "
            f"{tuple(grid.shape)}"
        )
