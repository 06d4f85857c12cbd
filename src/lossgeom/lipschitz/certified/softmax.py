"""Softmax, of each group of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.lipschitz.certified.smooth_maps import (
    ROUNDING,
    Box,
    Groups,
    Known,
    Linearised,
    SmoothMap,
)

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

    That is the same in all directions. With :math:`C = I - 1 p_0^T` and a change d of p, which sums
    to zero, :math:`D - D_0 = C^T (\mathrm{diag}(d) - d d^T) C`, of which the middle is
    :math:`\mathrm{diag}(q)^{1/2} T \mathrm{diag}(q)^{1/2}` for :math:`|d| \le q`, with
    :math:`\|T\| \le 1 + \sum_i q_i`; it may also be D - D_0 itself, because D 1 = 0. Likewise
    :math:`D'[h] = C_p^T \mathrm{diag}(p) \mathrm{diag}(C_p h) C_p` and :math:`C_p = C - 1 d^T C`.
    """

    def __call__(self, x: Groups) -> Groups:
        """The probabilities."""
        return x.softmax(-1)

    def on(self, box: Box) -> Linearised:
        """The derivatives, from bounds of the probabilities."""
        p, least, most = self(box.value), *_probabilities(box.lower, box.upper)
        nearest = torch.minimum(torch.maximum(least, p.new_tensor(0.5)), most)
        steepness = torch.minimum(nearest, 2 * nearest * (1 - nearest)).amax(-1, keepdim=True)
        bend, slopes = (math.sqrt(2) * steepness).clamp(max=THIRD), nearest * (1 - nearest)
        even = torch.fmin(bend * box.distance, steepness).expand_as(p)
        change = torch.fmin(
            torch.maximum(most - p, p - least), math.sqrt(2) * slopes * box.distance
        )
        change = change + ROUNDING * p
        uneven = change * (1 + change.sum(-1, keepdim=True))
        smaller = lengths(uneven, -1) <= lengths(even, -1)
        root = torch.where(smaller[..., None], uneven, even).sqrt()

        def linear(h: Tensor) -> Tensor:
            return p[:, None] * (h - (p[:, None] * h).sum(-1, keepdim=True))

        def absolute(h: Tensor) -> Tensor:
            all_of_them = (most[:, None] * h).sum(-1, keepdim=True)
            others = (all_of_them - most[:, None] * h).clamp(min=0) + CANCELLED * all_of_them
            return slopes[:, None] * h + most[:, None] * others

        inner, outer = _centring(p)
        return Linearised(
            linear=linear,
            absolute=absolute,
            norm=steepness.amax((1, 2)),
            absolute_norm=torch.full_like(inner.norm, 2.0),
            terms=p.shape[-1],
            steepness=steepness,
            spread=even.amax((1, 2)),
            out=root,
            into=root,
            bend=_bend(most, change),
            magnitude=torch.ones_like(p),
            lower=least,
            upper=most,
            inner=inner,
            outer=outer,
        )


def _bend(most: Groups, change: Groups) -> Callable[[Groups], Groups]:
    """Weights of the second derivative, from most and change of the probabilities."""

    def bend(columns: Groups) -> Groups:
        weights = most * (columns + (change * columns).sum(-1, keepdim=True))
        roots = weights.sqrt()
        moved = lengths(torch.where(change > 0, change / roots, 0), -1) * lengths(roots, -1)
        return weights * (1 + moved.nan_to_num(0.0, math.inf)[..., None]).square()

    return bend


def _centring(p: Groups) -> tuple[Known, Known]:
    """I - 1 p^T and its transpose."""
    q, norm = p[:, None], (1 + lengths(p, -1) * math.sqrt(p.shape[-1])).amax(1)

    def known(sign: float, transposed: bool) -> Callable[[Tensor], Tensor]:
        def apply(h: Tensor) -> Tensor:
            if transposed:
                return h + sign * q * h.sum(-1, keepdim=True)
            return h + sign * (q * h).sum(-1, keepdim=True)

        return apply

    inner, outer = (
        Known(known(-1.0, t), known(1.0, t), norm, norm, p.shape[-1]) for t in (False, True)
    )
    return inner, outer


def _probabilities(lower: Groups, upper: Groups) -> tuple[Groups, Groups]:
    """Bounds of the probabilities, from one number at one end and the others at the other."""
    all_lower = (lower.logsumexp(-1, keepdim=True) - upper).exp()
    all_upper = (upper.logsumexp(-1, keepdim=True) - lower).exp()
    others_lower = (1 - CANCELLED) * all_lower - (lower - upper).exp()
    others_upper = (1 + CANCELLED) * all_upper - (upper - lower).exp()
    least, most = 1 / (1 + others_upper.clamp(min=0)), 1 / (1 + others_lower.clamp(min=0))
    least, most = least.nan_to_num(0.0) - ROUNDING, most.nan_to_num(1.0) + ROUNDING
    return least.clamp(min=0), most.clamp(max=1)
