"""Products of two values that both depend on the input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator_norms import dense_norm
from lossgeom.lipschitz.certified.smooth_maps import (
    ROUNDING,
    Box,
    Groups,
    Linearised,
    Results,
    SmoothMap,
    evenly,
)

UNBALANCED = 1e3  # the largest ratio at which one factor's deviations are weighed against another's


@dataclass(frozen=True)
class Product(SmoothMap):
    r"""The matrix product X W of two parts (X, W) of each group; of single numbers with k = 1.

    Its derivative :math:`H \mapsto X H_W + H_X W` is linear in (X, W). Where they are off by
    :math:`\|\Delta_X\| \le a`, :math:`\|\Delta_W\| \le b`, it is off by
    :math:`\Delta_X H_W + H_X \Delta_W`, of length at most
    :math:`(a c + b d)^{1/2} ((a / c) |H_W|^2 + (b / d) |H_X|^2)^{1/2}` for any c, d > 0; those in
    proportion to the Jacobians of W and X are best, because |H_W| and |H_X| are as large. The
    second derivative is constant, and
    :math:`|\mathrm{tr} U^T (G_X H_W + H_X G_W)| \le |U| (|G_X| |H_W| + |H_X| |G_W|)`.

    Attributes:
        rows: of X.
        inner: columns of X and rows of W.
        columns: of W.
    """

    rows: int
    inner: int
    columns: int

    @property
    def parts(self) -> tuple[int, ...]:
        """The sizes of X and W."""
        return (self.rows * self.inner, self.inner * self.columns)

    def factors(self, x: Float[Tensor, "*B n"]) -> tuple[Tensor, Tensor]:
        """The matrices X and W."""
        X, W = self.split(x)
        return (
            torch.unflatten(X, -1, (self.rows, self.inner)),
            torch.unflatten(W, -1, (self.inner, self.columns)),
        )

    def __call__(self, x: Groups) -> Results:
        """The products."""
        X, W = self.factors(x)
        return (X @ W).flatten(-2)

    def on(self, box: Box) -> Linearised:
        """The derivatives, with deviations weighed by the sizes of the Jacobians of X and W."""
        X, W = (factor[:, None] for factor in self.factors(box.value))
        largest_x, largest_w = (factor[:, None] for factor in self.factors(box.magnitudes()))
        exact = torch.stack([dense_norm(W[:, 0]), dense_norm(X[:, 0])], -1)
        largest = torch.stack([dense_norm(largest_w[:, 0]), dense_norm(largest_x[:, 0])], -1)
        a, b = box.distance.unbind(-1)
        ratio = (box.sizes[..., 1] / box.sizes[..., 0]).nan_to_num(1.0)
        ratio = ratio.clamp(1 / UNBALANCED, UNBALANCED)  # c / d
        into = self._spread(torch.stack([b, a / ratio], -1).sqrt())
        out = (a * ratio + b).sqrt()[..., None].expand(-1, -1, self.rows * self.columns)

        def linear(h: Tensor) -> Tensor:
            H_X, H_W = self.factors(h)
            return (X @ H_W + H_X @ W).flatten(-2)

        def absolute(h: Tensor) -> Tensor:
            H_X, H_W = self.factors(h)
            return (largest_x @ H_W + H_X @ largest_w).flatten(-2)

        lower, upper = self._range(box)
        steepness = torch.fmin(exact + box.distance.flip(-1), largest)
        return Linearised(
            linear=linear,
            absolute=absolute,
            absolute_norm=lengths(box.value, -1).amax(-1) * 2**0.5,
            terms=2 * self.inner,
            norm=lengths(steepness, 2).amax(1),
            steepness=steepness,
            spread=lengths(box.distance, 2).amax(1),
            out=out,
            into=into,
            bend=evenly(self._spread(torch.stack([ratio, 1 / ratio], -1))),
            magnitude=(largest_x @ largest_w)[:, 0].flatten(-2),
            lower=lower,
            upper=upper,
        )

    def _spread(self, numbers: Float[Tensor, "B G 2"]) -> Groups:
        """One number for X and one for W, at all of their places."""
        sizes = torch.tensor(self.parts, device=numbers.device)
        return numbers.repeat_interleave(sizes, -1)

    def _range(self, box: Box) -> tuple[Results, Results]:
        """Bounds of the products, from the middles and half widths of the factors."""
        X, W = self.factors((box.lower + box.upper) / 2)
        A, B = self.factors((box.upper - box.lower) / 2)
        centre, magnitude = (X @ W).flatten(-2), ((X.abs() + A) @ (W.abs() + B)).flatten(-2)
        reach = (X.abs() @ B + A @ (W.abs() + B)).flatten(-2) + ROUNDING * magnitude
        return centre - reach, centre + reach
