"""What is known of the sharpness along a path, and what it is at the next point of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lossgeom.linalg import EigenPairs

LAST = 3  # measured values that a parabola goes through, and predictions that are judged by
FEWEST = 2  # of these predictions
SAFETY = 2.5  # how much larger an error may be than the largest of the last
LEAST = 0.03  # of the tolerance: what an error counts as at least, so that few agree by chance
BOTH = 4  # measurements, of which one looks at the second eigenvector, too
NEAR = 0.15  # of the value: where the second is as near as that, all of them look
PART = 0.1  # of the tolerance, that values may be off by from which others are predicted
HALF = 0.5  # and where predictions fail anyway
STRAIGHT = 0.9  # cosine of two eigenvectors, above which they are taken for one that turns
KEPT = 4  # eigenvectors, where it turns to and fro; else two
FARTHEST = 2.0  # times its last turn, that it is taken to turn on
ON = 0.5  # the same, of its turn from the one two before


@dataclass(frozen=True)
class Missed:
    """The error of a prediction, relative to what was then measured.

    Attributes:
        error: relative.
        distance: along the path, from the point that was measured before.
        reach: of the parabola.
    """

    error: float
    distance: float
    reach: float


@dataclass(frozen=True, eq=False)
class Track:
    """The path so far.

    Attributes:
        theta: its last point.
        tol: what predictions may be off by, relative.
        place: its length.
        places, values: where sharpness was measured last, and what it was.
        missed: the last predictions.
        vectors: the last largest eigenvectors, the latest last.
        to_and_fro: whether the latest is nearer to the one two before than to the one before, as
            at the edge of stability.
        second: the second eigenvector, as it was when it was last looked at.
        next_value: and its eigenvalue.
        steps: since a search for larger eigenvalues.
        followed: measurements since the second eigenvector was looked at.
    """

    theta: Tensor
    tol: float
    place: float = 0.0
    places: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    missed: tuple[Missed, ...] = ()
    vectors: tuple[Tensor, ...] = ()
    to_and_fro: bool = False
    second: Tensor | None = None
    next_value: float | None = None
    steps: int = 0
    followed: int = 0

    def moved(self, theta: Tensor) -> Track:
        """The path with one more point."""
        way = float(torch.linalg.vector_norm(theta - self.theta, dtype=torch.float64))
        return replace(self, theta=theta, place=self.place + way, steps=self.steps + 1)

    @property
    def distance(self) -> float:
        """The length of the path from the last point that was measured."""
        return self.place - self.places[-1]

    @property
    def reach(self) -> float:
        """The product of the distances from the measured points, which errors are in proportion to.

        The parabola is off by this times a sixth of the third derivative somewhere on the way.
        """
        return math.prod(self.place - place for place in self.places)

    def predicted(self) -> float:
        """The parabola through the last three values, in the length of the path."""
        return through(self.places, self.values, self.place)

    @property
    def error(self) -> float:
        """How far the prediction may be off, relative to it; infinite where nobody can tell.

        As far as the last predictions, in proportion to the reach of the parabola, and no less than
        to the distance; and as far as the parabola is from going on straight.
        """
        value = self.predicted()
        if len(self.missed) < FEWEST or value == 0:
            return math.inf
        least = LEAST * self.tol
        seen = (SAFETY * max(one.error, least) * self._further(one) for one in self.missed)
        straight = through(self.places[1:], self.values[1:], self.place)
        return max(*seen, SAFETY * least, abs(value - straight) / abs(value))

    def _further(self, one: Missed) -> float:
        """How many times as large errors may be as at another prediction."""
        return max(self.reach / one.reach, self.distance / one.distance)

    @property
    def fails(self) -> bool:
        """Whether no prediction was good enough of late, as at the edge of stability."""
        return bool(self.missed) and all(one.error > self.tol for one in self.missed)

    @property
    def near(self) -> bool:
        """Whether the second eigenvalue is near, where what is known of it is soon out of date."""
        value, second = self.predicted(), self.next_value
        return second is not None and value - second < NEAR * abs(value) and not self.fails

    @property
    def looks(self) -> bool:
        """Whether the next measurement looks at the second eigenvector, too."""
        return self.near or self.followed >= BOTH - 1

    @property
    def goal(self) -> float:
        """What the value of the next measurement may be off by."""
        return (HALF if self.fails else PART) * self.tol

    def start(self, *, both: bool) -> Tensor:
        """Vectors to start from: the eigenvector as it turns, and the second one."""
        latest = self._turned_on()
        rows = [latest, self.second] if both and self.second is not None else [latest]
        return torch.stack(rows, dim=1)

    def _turned_on(self) -> Tensor:
        """What the largest eigenvector may have become."""
        if self.to_and_fro:
            return turned(self.vectors[-2::-2], ON)
        stretch = math.inf
        if len(self.places) > 1:
            stretch = self.distance / (self.places[-1] - self.places[-2])
        return turned(self.vectors[-1:-3:-1], stretch if stretch <= FARTHEST else 0.0)

    def measured(self, pairs: EigenPairs, *, searched: bool) -> Track:
        """The path with what was measured at its last point."""
        value, both = pairs.values[0].item(), pairs.vectors.shape[1] > 1
        vectors = pairs.vectors.T.contiguous()  # as a checkpoint holds them
        missed = self.missed
        near = [abs(float(vector @ vectors[0])) for vector in self.vectors[-2:]]
        to_and_fro = len(near) > 1 and near[0] > near[1]
        if len(self.places) == LAST and self.distance > 0:
            error = abs(self.predicted() - value) / abs(value) if value else math.inf
            missed = (*missed, Missed(error, self.distance, self.reach))[-LAST:]
        places, values = self.places, self.values
        if self.places and not self.distance > 0:  # at the same point once more
            places, values = places[:-1], values[:-1]
        return replace(
            self,
            places=(*places, self.place)[-LAST:],
            values=(*values, value)[-LAST:],
            missed=missed,
            vectors=(*self.vectors, vectors[0])[-(KEPT if to_and_fro else 2) :],
            to_and_fro=to_and_fro,
            second=vectors[1] if both else self.second,
            next_value=pairs.values[1].item() if both else self.next_value,
            steps=0 if searched else self.steps,
            followed=0 if both else self.followed + 1,
        )


def turned(vectors: Sequence[Tensor], times: float) -> Tensor:
    """The first of some vectors, turned on by so many times its turn from the second, if small."""
    latest, *earlier = vectors[:2]
    if not (earlier and times):
        return latest
    before = earlier[0] * torch.sign(earlier[0] @ latest)
    return latest + times * (latest - before) if before @ latest > STRAIGHT else latest


def through(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The polynomial through some points, at another (Lagrange)."""
    return math.fsum(
        y * math.prod((x - other) / (own - other) for other in xs if other != own)
        for own, y in zip(xs, ys, strict=True)
    )
