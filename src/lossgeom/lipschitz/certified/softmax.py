"""Softmax, of each group of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.lipschitz.certified.smooth_maps import ROUNDING, Box, Groups, Linearised, SmoothMap

THIRD = math.sqrt(2 / 27)  # the largest third cumulant of numbers of unit length
CANCELLED = 1e-12  # error of a sum less one of its terms, relative to the sum


@dataclass(frozen=True)
class Softmax(SmoothMap):
    r""":math:`p_i = e^{z_i} / \sum_j e^{z_j}`.

    Its derivative :math:`D = \mathrm{diag}(p) - p p^T` is positive semidefinite. It is at most
    diag(p), and at most :math:`\max_i 2 p_i (1 - p_i)` by its row sums, which is less where some
    p_i > 1/2 and is reached there.

    The second derivative is a symmetric trilinear form, hence largest on its diagonal,
    :math:`\mathrm{E}(u - \mathrm{E} u)^3` for a number that is u_i with probability p_i. Those lie
    in an interval of length :math:`\sqrt 2 |u|`, so that for unit u this is at most
    :math:`(\sqrt 2)^3 / (6 \sqrt 3) = (2/27)^{1/2}`, which two probabilities
    :math:`1/2 \pm 1/\sqrt{12}` reach, and at most :math:`\sqrt 2 \|D\|`.
    """

    def __call__(self, x: Groups) -> Groups:
        """The probabilities."""
        return x.softmax(-1)

    def on(self, box: Box) -> Linearised:
        """The derivatives, from bounds of the probabilities."""
        least, most = _probabilities(box.lower, box.upper)
        nearest = torch.minimum(torch.maximum(least, least.new_tensor(0.5)), most)
        norms = torch.minimum(nearest, 2 * nearest * (1 - nearest))
        steepness = norms.amax(-1, keepdim=True)
        bend = (math.sqrt(2) * steepness).clamp(max=THIRD)
        root = torch.fmin(bend * box.distance, steepness).sqrt().expand_as(least)
        p, steepest, likeliest = self(box.value)[:, None], nearest * (1 - nearest), most[:, None]

        def linear(h: Tensor) -> Tensor:
            return p * (h - (p * h).sum(-1, keepdim=True))

        def absolute(h: Tensor) -> Tensor:
            all_of_them = (likeliest * h).sum(-1, keepdim=True)
            others = (all_of_them - likeliest * h).clamp(min=0) + CANCELLED * all_of_them
            return steepest[:, None] * h + likeliest * others

        return Linearised(
            linear=linear,
            absolute=absolute,
            absolute_norm=2 * torch.ones_like(p[:, 0, 0, 0]),
            terms=p.shape[-1],
            steepness=steepness,
            out=root,
            into=root,
            curvature=bend.expand_as(least),
            magnitude=torch.ones_like(least),
            lower=least,
            upper=most,
        )


def _probabilities(lower: Groups, upper: Groups) -> tuple[Groups, Groups]:
    """Bounds of the probabilities, from one number at one end and the others at the other."""
    all_lower = (lower.logsumexp(-1, keepdim=True) - upper).exp()
    all_upper = (upper.logsumexp(-1, keepdim=True) - lower).exp()
    others_lower = (1 - CANCELLED) * all_lower - (lower - upper).exp()
    others_upper = (1 + CANCELLED) * all_upper - (upper - lower).exp()
    least, most = 1 / (1 + others_upper.clamp(min=0)), 1 / (1 + others_lower.clamp(min=0))
    least, most = least.nan_to_num(0.0) - ROUNDING, most.nan_to_num(1.0) + ROUNDING
    return least.clamp(min=0), most.clamp(max=1)
