"""The two examples between which targets change most, for how far their inputs are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lossgeom.messages.checks import check_number

LEAF = 32  # points of a box at most
BOXES = 64  # that are compared with another one at a time
CHUNK = 2**21  # numbers that a step works on at a time
MARGIN = 1 + 1e-9  # for the rounding of what is left out


@dataclass(frozen=True)
class SteepestPair:
    """Two examples with the largest quotient of distances.

    Attributes:
        ratio: of the distance of targets, less the slack, and of the distance of inputs; 0 where
            no targets are farther apart than the slack, and infinite for two of the same input.
        first: index of one example, the smaller one.
        second: of the other; both are -1 for a ratio of 0.
        compared: pairs whose distances were computed, some of them twice.
    """

    ratio: float
    first: int
    second: int
    compared: int


@dataclass(frozen=True, eq=False)
class Boxes:
    """Points in boxes of few neighbours each, with copies of the first one where they run out."""

    points: Float[Tensor, "N D"]
    members: Int64[Tensor, "k m"]

    @classmethod
    def of(cls, points: Float[Tensor, "N D"]) -> Boxes:
        """Halve the points at the median of the widest coordinate until few are together."""
        halvings = max(0, math.ceil(math.log2(len(points) / LEAF)))
        size = math.ceil(len(points) / 2**halvings) * 2**halvings
        members = torch.arange(size).where(torch.arange(size) < len(points), 0)[None]
        for _ in range(halvings):
            inside = points[members]
            widest = (inside.amax(1) - inside.amin(1)).argmax(1)
            along = inside.gather(2, widest[:, None, None].expand(-1, size // len(members), 1))
            order = along[..., 0].argsort(1)
            members = members.gather(1, order).reshape(2 * len(members), -1)
        return cls(points, members)

    def ends(self, values: Float[Tensor, "N C"]) -> tuple[Tensor, Tensor]:
        """The least and largest values (k, C) in each box."""
        inside = values[self.members]
        return inside.amin(1), inside.amax(1)


def steepest_pair(
    inputs: Float[Tensor, "N D"], targets: Float[Tensor, "N C"], slack: float = 0.0
) -> SteepestPair:
    r"""The largest slope between two examples, exactly, without comparing all pairs.

    .. math:: \max_{i \ne j} \frac{\|y_i - y_j\|_2 - s}{\|x_i - x_j\|_2}

    Points are put into boxes of at most 32. The boxes of inputs and targets of two groups bound
    their quotient from above, and only pairs of groups whose bound is above the best quotient so
    far are compared, those with the largest bounds first. Points closer together than the best
    pair are never left out, so that the maximum is exact up to the rounding of distances.

    Cost: :math:`(N / 32)^2` bounds, and distances of the pairs that are left. For 50,000 points of
    two dimensions that is up to a few percent of all pairs, a third where y is linear in x, and
    seconds; where inputs have many dimensions it is nearly all, as products of matrices: a minute
    for 64 of them. Memory: five times the examples in float64, and a few times 16 MiB.

    Args:
        inputs: x, as rows.
        targets: y, as rows.
        slack: s >= 0, which is taken off every distance of targets.

    Raises:
        ValueError: for a negative slack, inputs and targets that are no rows of the same examples,
            or numbers that are not finite, or have squares that are not.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [2.0], [3.0]])
    >>> steepest_pair(x, y)
    SteepestPair(ratio=2.0, first=0, second=1, compared=9)
    >>> steepest_pair(x, y, slack=1.5).ratio
    0.5
    """
    check_number("slack", slack, 0, at_low=True)
    x, y = inputs.double(), targets.double()
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not x.numel():
        raise ValueError(
            "expected inputs (N, D) and targets (N, C), a flat row of each for every example, got "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not (x.square().sum().isfinite() and y.square().sum().isfinite()):
        raise ValueError("expected inputs and targets that are finite, to take distances of")
    boxes, best = Boxes.of(x), SteepestPair(0.0, -1, -1, 0)
    pairs = Pairs(x, y, Squares.of(x), Squares.of(y), slack)
    for members in boxes.members:
        best = pairs.best(members, members, best)
    compared = boxes.members.numel() * boxes.members.shape[1]
    of_x, of_y = boxes.ends(x), boxes.ends(y)
    for box, members in enumerate(boxes.members):
        far = _apart(of_y, box)[1] - slack
        bounds = MARGIN * far.clamp(min=0) / _apart(of_x, box)[0]
        bounds[: box + 1] = 0
        order = bounds.nan_to_num(0, math.inf).argsort(descending=True)
        for others in torch.split(order, BOXES):
            others = others[bounds[others] > best.ratio]
            if not len(others):
                break
            compared += len(members) * boxes.members[others].numel()
            second = pairs.near_enough(members, boxes.members[others], far[others], best)
            best = pairs.best(members, second, best)
    return replace(best, compared=compared)


@dataclass(frozen=True, eq=False)
class Squares:
    """Squared distances of points, as products of two matrices.

    Attributes:
        left: rows -2 x, 1, x^2.
        right: rows x, x^2, 1, for x less the mean.
        rounding: how far a product may be from the square of the distance.
    """

    left: Float[Tensor, "N k"]
    right: Float[Tensor, "N k"]
    rounding: float

    @classmethod
    def of(cls, points: Float[Tensor, "N D"]) -> Squares:
        """Prepare the products of some points."""
        x = points - points.mean(0)
        squares = x.square().sum(1, keepdim=True)
        one = torch.ones_like(squares)
        rounding = 2**-50 * (x.shape[1] + 4) * squares.max().item()
        return cls(torch.cat([-2 * x, one, squares], 1), torch.cat([x, squares, one], 1), rounding)

    def __call__(self, first: Tensor, second: Tensor) -> Float[Tensor, "m k"]:
        """Those of two groups of points."""
        return self.left[first] @ self.right[second].T


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of two groups of points.

    Attributes:
        x: inputs.
        y: targets.
        of_x: squared distances of inputs.
        of_y: squared distances of targets.
        slack: what is taken off distances of targets.
    """

    x: Float[Tensor, "N D"]
    y: Float[Tensor, "N C"]
    of_x: Squares
    of_y: Squares
    slack: float

    def near_enough(
        self,
        first: Int64[Tensor, " m"],
        boxes: Int64[Tensor, "k m"],
        far: Float[Tensor, " k"],
        best: SteepestPair,
    ) -> Int64[Tensor, " n"]:
        """Points of some boxes that are so near to a group that their targets may suffice.

        Where inputs have many dimensions, this leaves hardly any, for a product of matrices.
        """
        second = boxes.flatten()
        if not best.ratio:
            return second
        reach = (MARGIN * far / best.ratio).square() + self.of_x.rounding
        nearest = self.of_x(first, second).amin(0)
        return second[nearest < reach.repeat_interleave(boxes.shape[1])]

    def best(
        self, first: Int64[Tensor, " m"], second: Int64[Tensor, " k"], so_far: SteepestPair
    ) -> SteepestPair:
        """The steepest of the pairs of two groups, and of the best pair so far."""
        near = (self.of_x(first, second) - self.of_x.rounding).clamp(min=0).sqrt()
        far = (self.of_y(first, second) + self.of_y.rounding).clamp(min=0).sqrt() - self.slack
        places = (far > so_far.ratio * near).flatten().nonzero()[:, 0]
        for part in torch.split(places, max(1, CHUNK // self.x.shape[1])):
            so_far = self._exactly(first, second, part, so_far)
        return so_far

    def _exactly(
        self, first: Tensor, second: Tensor, places: Tensor, so_far: SteepestPair
    ) -> SteepestPair:
        i, j = first[places // len(second)], second[places % len(second)]
        far = torch.linalg.vector_norm(self.y[i] - self.y[j], dim=1) - self.slack
        near = torch.linalg.vector_norm(self.x[i] - self.x[j], dim=1)
        ratios = torch.where(far > 0, far / near, 0)
        if not (ratios > so_far.ratio).any():
            return so_far
        ratio, top = ratios.max(0)
        smaller, larger = sorted((int(i[top]), int(j[top])))
        return SteepestPair(ratio.item(), smaller, larger, 0)


def _apart(ends: tuple[Tensor, Tensor], box: int) -> tuple[Tensor, Tensor]:
    """The least and largest distance of points in one box and in each."""
    lower, upper = ends
    gaps = torch.maximum(lower - upper[box], lower[box] - upper)
    spans = torch.maximum(upper - lower[box], upper[box] - lower)
    norm = torch.linalg.vector_norm
    return norm(gaps.clamp(min=0), dim=1), norm(spans, dim=1)
