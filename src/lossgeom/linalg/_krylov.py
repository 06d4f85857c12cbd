"""The Krylov basis of a symmetric operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._lanczos_vectors import NEW, Orthogonality, Polynomials
from lossgeom.linalg.arithmetic import dots, lengths
from lossgeom.linalg.operator import ASYMMETRY, LinearOperator, check_symmetric
from lossgeom.linalg.probes import BLOCK

ROWS = 16  # of memory taken at a time
PIECE = 2**18  # numbers of each row that are combined at a time
AGAIN = 0.7  # what loses more of its length by becoming orthogonal has to become so once more
WAIT = 0.01  # of the norm of A: what is longer may be made orthogonal to most rows a step later


@dataclass
class Products:
    """An operator whose products are counted.

    Attributes:
        limit: how many a search may take.
        spent: how many were taken.
        norm: of A, as far as it has been seen.
        finite: whether all products were, as far as they were looked at.
    """

    A: LinearOperator
    limit: int
    spent: int = 0
    norm: float = 0.0
    finite: bool = True

    @property
    def rounding(self) -> float:
        """What counts as rounding error of a product, below normal numbers, too."""
        numbers = torch.finfo(self.A.dtype)
        return max(10 * numbers.eps * self.norm, numbers.tiny) if self.norm else 0.0

    def of(self, rows: Float[Tensor, "j n"], *, measured: bool = True) -> Float[Tensor, "j n"]:
        """Multiply rows of unit length, a block at a time, wherever they are."""
        parts = (part.T.to(self.A.device) for part in torch.split(rows, BLOCK))
        blocks = [self.A.matmat(part).T.to(rows.device) for part in parts]
        images = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        self.spent += len(rows)
        if measured:
            self.norm = max(self.norm, lengths(images).max().item())
        return images


class Krylov:
    r"""Orthonormal rows V and F with :math:`A V^\top = V^\top T + F^\top C`, and with more rows.

    The residual of a Ritz pair with weights s is :math:`F^\top C s`: it is known without the
    image of V. V grows by a vector out of the span of F. From one start vector that is Lanczos
    iteration, with one row in F; a start block and random vectors make F longer. T and C are small
    and in float64.

    Attributes:
        projection: T.
        coupling: C.
        rows: V, and F below it.
        locked: orthonormal rows that all others are orthogonal to.
        of_one_vector: whether V is in the Krylov space of the vector that it began with.
        followed: the combination of V that was grown by last.
        polynomials: in A that the rows are of that vector.

    Args:
        products: with A.
        start: rows to begin with; a random one where they span nothing.
        locked: orthonormal rows.
        capacity: how many rows there may be, or about so many.
        generator: of random vectors.
        nearly: whether rows need be orthogonal to the root of the unit of rounding only. Where V
            is to yield one vector, that is no worse, and most rows are then not read in most steps.
    """

    def __init__(
        self,
        products: Products,
        start: Float[Tensor, "j n"],
        locked: Float[Tensor, "l n"],
        capacity: int,
        generator: torch.Generator,
        nearly: bool = False,
    ) -> None:
        self.products, self.locked, self.generator = products, locked, generator
        self.projection, self._capacity = torch.zeros(0, 0).double(), capacity
        self.followed, self.of_one_vector = torch.zeros(0).double(), len(start) <= 1
        eps = torch.finfo(start.dtype).eps
        self.polynomials = Polynomials(eps)
        self._orthogonality = Orthogonality(eps**0.5 if nearly else 0.0)
        self._waits = False  # whether the last row was made orthogonal to the latest ones only
        self.rows = self._memory = start[:0]
        self._checked = products.A.T is products.A
        for vector in start:
            self._append(vector)
        count = len(self.rows)
        self.coupling = torch.zeros(count, 0).double()
        if count:
            self._expand(count)
        else:
            self.grow(self.followed)

    @property
    def room(self) -> int:
        """How many directions there are outside V and the locked rows."""
        return self._memory.shape[1] - len(self.locked) - len(self.projection)

    def grow(self, weights: Float[Tensor, " v"]) -> None:
        """Move the residual of a combination of V from F to V, or a random vector if it has none.

        The combination is kept in the next restart, together with what it has become by then.
        """
        self.followed, direction = weights, self.coupling @ weights
        if self._waits and (len(direction) != 1 or not direction.any()):
            self.wait_no_more()
        if not direction.any():
            self.of_one_vector = self.of_one_vector and not len(weights)
            if self.room > len(self.coupling):  # there is more than F
                n = self._memory.shape[1]
                while not self._append(torch.randn(n, generator=self.generator).to(self._memory)):
                    pass
                zeros = self.coupling.new_zeros(1, len(self.projection))
                self.coupling = torch.cat([self.coupling, zeros])
            direction = torch.eye(len(self.coupling)).double()[-1]
        if len(direction) > 1:  # turn F so that the direction comes first, up to its sign
            eye = torch.eye(len(direction)).to(direction)
            turn = torch.linalg.qr(torch.cat([direction[:, None], eye], 1))[0]
            self._combine(len(self.projection), turn)
            self.coupling = turn.T @ self.coupling
        self._expand(1)

    def restart(self, weights: Float[Tensor, "v j"], *, few: bool = True) -> Float[Tensor, "v i"]:
        """Keep only some Ritz vectors and, of few, the one followed last, as it was then.

        Together they hold nearly all of what the whole basis knew of the one that is followed, as
        the last two vectors of conjugate gradients do. What A adds to them goes to F, from where on
        all vectors are made orthogonal to all; without it what follows is Lanczos iteration again.
        Returns the weights of what is kept.
        """
        self.wait_no_more()
        v = len(self.projection)
        before = weights.new_zeros(v, int(few))
        before[: len(self.followed)] = self.followed[:, None]
        weights = torch.linalg.qr(torch.cat([weights, before], 1))[0]
        j = weights.shape[1]
        beyond = self.projection @ weights[:, j - few :]  # that of Ritz vectors is not
        both = torch.linalg.qr(torch.cat([weights, beyond], 1))[0]
        weights, image = both[:, :j], self.projection @ both[:, :j]
        kept = torch.eye(v + len(self.coupling)).double()[:, v - both.shape[1] :]
        kept[:v, : both.shape[1]] = both
        coupling = torch.cat([both[:, j:].T @ image, self.coupling @ weights])
        if len(coupling) > j:
            turn, sizes, right = torch.linalg.svd(coupling, full_matrices=False)
            kept, coupling = torch.cat([kept[:, :j], kept[:, j:] @ turn], 1), sizes[:, None] * right
        self._combine(0, kept)
        T = weights.T @ image
        self.projection, self.coupling = (T + T.T) / 2, coupling
        return weights

    def _combine(self, first: int, weights: Float[Tensor, "r s"]) -> None:
        """Replace the rows from the first on by combinations of them, a piece at a time."""
        turn = weights.T.to(self.rows)
        for piece in torch.split(self.rows[first:], PIECE, dim=1):
            piece[: len(turn)] = turn @ piece
        self.rows = self._memory[: first + len(turn)]
        self.polynomials.steps.append((first, weights))

    def _expand(self, b: int) -> None:
        """Move the first b rows of F to V, and what is new in their images to F."""
        v, since = len(self.projection), len(self.rows)
        images = self.products.of(self.rows[v : v + b], measured=False)
        place = self._next_row() if b == 1 else None
        latest = self.rows[max(0, v - b) : v + b]  # where the most is: one pass over all does then
        first = dots(images, latest)
        images = torch.addmm(images, first.to(images), latest, alpha=-1, out=place)
        first = first.cpu()
        left, turn = lengths(images), None
        self.products.norm = max(self.products.norm, left.cpu().hypot(lengths(first)).max().item())
        rounding = self.products.rounding
        if self._may_wait(b, first, left):
            along, residuals, self._waits = torch.zeros(1, since).double(), images, True
        elif self._waits:
            turn, along, residuals, left = self._split_with_last(images, rounding, left)
        else:
            along, residuals, left = self._split(images, self.rows, rounding, left)
            self._orthogonality.estimates = None
        along[:, max(0, v - b) : v + b] += first
        if not along.isfinite().all():
            self.products.finite = False
            return
        if v and not self._checked:
            check_symmetric(self.coupling[:b], along[:, :v], ASYMMETRY * self.products.norm)
            self._checked = True
        between, C = along[:, v : v + b], self.coupling
        columns = [self.projection, C[:b]], [C[:b].T, (between + between.T) / 2]
        self.projection = torch.cat([torch.cat(column) for column in columns], 1)
        sizes = left.tolist()
        alone = b == 1 and sizes[0] > rounding
        residuals = residuals if alone or b > 1 else residuals.clone()  # not where rows go
        for residual, length in zip(residuals, sizes, strict=True):
            if length > rounding:
                self._append(residual, since, length)
            elif len(self.locked):  # a small eigenvalue outside of them stands out in it
                self._append(residual)
        new = left.cpu()[None] if alone else dots(self.rows[since:], residuals).cpu()
        rest = torch.cat([C[b:], along[:, v + b :].T], 1)
        self.coupling = torch.cat([rest, torch.cat([new.new_zeros(len(new), v), new], 1)])
        if len(new):
            self.polynomials.steps.append((v, torch.cat([along[0], new[:, 0]])))
        if turn is not None:
            self._turned(turn)

    def _may_wait(self, b: int, onto: Float[Tensor, "b w"], left: Float[Tensor, " b"]) -> bool:
        """Whether what is left of an image may stay as it is for a step, or for good.

        In Lanczos iteration only rounding is along other rows than the latest. It is taken out
        together with that of the next image, so that all rows are read once in place of twice. Of
        what A makes of it until then, all but the square is along the rows, and taken out, too. For
        good, where it is orthogonal enough by all that is known.
        """
        C, norm, eps = self.coupling, self.products.norm, torch.finfo(self.rows.dtype).eps
        lanczos = b == len(C) == 1 and C.shape[1] > b and not C[0, :-1].any()
        if not (lanczos and self._checked) or len(self.locked):
            return False
        length = left.item()
        if self._orthogonality.allowed:
            T = torch.cat([self.projection, C])
            if self._orthogonality.kept(T, onto[0], length, eps * norm):
                return True
        return length > WAIT * norm and not self._waits

    def _split_with_last(self, images: Tensor, rounding: float, left: Tensor) -> tuple[Tensor, ...]:
        """Split an image, or none, by all rows, the last of which has waited and comes first."""
        self._orthogonality.estimates = None
        both = self._memory[len(self.rows) - 1 :][: 1 + len(images)]  # they are side by side
        left = torch.cat([left.new_ones(1), left])
        along, both, left = self._split(both, self.rows[:-1], rounding, left)
        self.projection[-1, -1] += self.coupling[-1, -1] * along[0, -1]
        last, residuals = both[:1], both[1:]
        self._waits, onto = False, dots(residuals, last)
        residuals.addmm_(onto.to(both), last, alpha=-1)
        return along[0], torch.cat([along[1:], onto.cpu()], 1), residuals, left[1:]

    def wait_no_more(self) -> None:
        """Make the last row orthogonal to all before."""
        if self._waits:
            none = self.rows[:0]
            self._turned(self._split_with_last(none, 0.0, lengths(none))[0])

    def _turned(self, along: Float[Tensor, " v"]) -> None:
        """Put down that something along those before was taken out of a row."""
        turn = torch.eye(len(self.rows)).double()
        turn[: len(along), len(along)] = -along
        self.polynomials.steps.append((0, turn))

    def _split(
        self, vectors: Tensor, rows: Tensor, rounding: float, left: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split vectors, of known lengths or not, in what is along rows and, in place, the rest."""
        along = torch.zeros(len(vectors), len(rows)).double()
        left = lengths(vectors) if left is None else left
        for _ in range(4):
            coefficients = dots(vectors, rows)
            vectors.addmm_(coefficients.to(vectors), rows, alpha=-1)
            if len(self.locked):
                vectors.addmm_(dots(vectors, self.locked).to(vectors), self.locked, alpha=-1)
            along += coefficients.cpu()
            before, left = left, lengths(vectors)
            if ((left > AGAIN * before) | (left <= rounding)).all():
                break
        return along, vectors, left

    def _append(self, vector: Tensor, since: int = 0, length: float | None = None) -> bool:
        """Append what is new in a vector that is orthogonal to the rows before; tell if any is."""
        count, length = len(self.rows), lengths(vector[None]).item() if length is None else length
        if not length > 0:
            return False
        if not 0 < since == count:  # there are others that it may not be orthogonal to
            _, (vector,), left = self._split((vector / length)[None], self.rows[since:], 0.0)
            if not (length := left.item()) > NEW * torch.finfo(vector.dtype).eps:
                return False
        torch.div(vector, length, out=self._next_row()[0])
        self.rows = self._memory[: count + 1]
        return True

    def _next_row(self) -> Float[Tensor, "1 n"]:
        """The memory of the next row."""
        count, n = self.rows.shape
        if count == len(self._memory):  # on a CPU memory is taken when it is written to
            all_at_once = self.rows.device.type == "cpu" and count < self._capacity
            self._memory = self.rows.new_empty(self._capacity if all_at_once else count + ROWS, n)
            self.rows = self._memory[:count].copy_(self.rows)
        return self._memory[count : count + 1]
