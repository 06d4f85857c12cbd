"""Layer, group, instance and root mean square normalisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.lipschitz.certified.smooth_maps import (
    ROUNDING,
    Box,
    Groups,
    Linearised,
    SmoothMap,
    evenly,
)

STEEPEST_BEND = 48 / (25 * math.sqrt(5))  # 3 (R^2 - 1)^1/2 / R^5 at R^2 = 5 / 4


@dataclass(frozen=True)
class Normalise(SmoothMap):
    r""":math:`y = c / \sigma`, :math:`\sigma^2 = |c|^2 / n + \epsilon`, with c = x or x - mean(x).

    Its derivative in c, :math:`(I - y y^T / n) / \sigma`, has eigenvalues between 0 and
    :math:`1 / \sigma`. With :math:`c = (n \epsilon)^{1/2} v` it is that of
    :math:`n^{1/2} \nabla (1 + |v|^2)^{1/2}`, whose second derivative is a symmetric trilinear form,
    hence largest on its diagonal. On a line at distance s from its point next to 0, and with
    :math:`R^2 = 1 + |v|^2`, that is

    .. math:: 3 (R^2 - s^2) |s| / R^5 \le \frac{2}{\sqrt 3 R^2}, \qquad s^2 \le R^2 - 1,

    and never above :math:`3 (1/4)^{1/2} / (5/4)^{5/2}`. So the derivative changes by at most
    :math:`n^{-1/2} \min(2 / (\sqrt 3 \sigma^2), 0.859 / \epsilon)` times the change of c.

    Attributes:
        centred: whether the mean is subtracted.
        eps: added to the mean square.
    """

    centred: bool
    eps: float

    def __call__(self, x: Groups) -> Groups:
        """The normalised numbers."""
        c = self._centre(x)
        return c / self._sigma(c.square().sum(-1, keepdim=True), x)

    def _sigma(self, square: Tensor, x: Tensor) -> Tensor:
        return (square / x.shape[-1] + self.eps).sqrt()

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def _summed(self, x: Tensor) -> Tensor:
        """Centre magnitudes, whose signs are not known."""
        return x + x.mean(-1, keepdim=True) if self.centred else x

    def on(self, box: Box) -> Linearised:
        """The derivatives, with the least sigma where c is next to 0."""
        n, c = box.value.shape[-1], self._centre(box.value)
        size, summed = lengths(c, -1)[..., None], self._summed(box.value.abs())
        distance = box.distance + ROUNDING * lengths(summed, -1)[..., None]
        sigma = self._sigma(size.square(), c)
        least = self._sigma((size - distance).clamp(min=0).square(), c)
        most = self._sigma((size + distance).square(), c)
        anywhere = c.new_tensor(STEEPEST_BEND) / self.eps
        bend = torch.fmin(2 / (math.sqrt(3) * least.square()), anywhere) / math.sqrt(n)
        root = torch.fmin(bend * distance, 1 / least).sqrt().expand_as(c)
        lower, upper = self._centred_range(box, c, distance)
        y, farthest = (c / sigma)[:, None], torch.maximum(-lower, upper) / least
        farthest = farthest.clamp(max=math.sqrt(n))[:, None]

        def linear(h: Tensor) -> Tensor:
            h = self._centre(h)
            return (h - y * (y * h).mean(-1, keepdim=True)) / sigma[:, None]

        def absolute(h: Tensor) -> Tensor:
            h = self._summed(h)
            return (h + farthest * (farthest * h).mean(-1, keepdim=True)) / least[:, None]

        lower, upper = (
            lower / torch.where(lower < 0, least, most),
            upper / torch.where(upper > 0, least, most),
        )
        return Linearised(
            linear=linear,
            absolute=absolute,
            absolute_norm=4 / sigma.amin((1, 2)),
            terms=n,
            norm=(1 / least).amax((1, 2)),
            steepness=1 / least,
            spread=root.square().amax((1, 2)),
            out=root,
            into=root,
            bend=evenly(bend.expand_as(c)),
            magnitude=summed / least + (c / sigma).abs(),
            lower=lower.clamp(min=-math.sqrt(n)),
            upper=upper.clamp(max=math.sqrt(n)),
        )

    def _centred_range(self, box: Box, c: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the numbers less their mean."""
        middle, half = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
        reach = self._summed(half + ROUNDING * (middle.abs() + half))
        middle = self._centre(middle)
        return torch.fmax(middle - reach, c - distance), torch.fmin(middle + reach, c + distance)
