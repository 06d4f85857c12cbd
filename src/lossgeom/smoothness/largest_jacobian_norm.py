"""The largest spectral norm of the input-output Jacobian, found without all the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.linearized import Linearized
from lossgeom.batches import Batch
from lossgeom.problem import Problem, checked_problem
from lossgeom.smoothness._input_function import InputFunction
from lossgeom.smoothness._pieces import pieces
from lossgeom.smoothness.exact import all_rows, checked, from_gram, gram, gram_bound, row_norm
from lossgeom.smoothness.norms import TIE
from lossgeom.smoothness.outputs import Outputs
from lossgeom.smoothness.search import Search

TOGETHER = 8  # eigenproblems between two looks at the maximum


@dataclass(frozen=True)
class LargestJacobianNorm:
    """The largest norm, and the example that has it.

    Attributes:
        value: the largest spectral norm.
        example: its place in the data, up to rounding the first of several.
        examples: how many there are.
        pruned: how many examples a bound was enough for.
    """

    value: float
    example: int
    examples: int
    pruned: int

    def __float__(self) -> float:
        return self.value


def largest_jacobian_norm(
    problem: Problem,
    outputs: Outputs = "logits",
    *,
    wrt: str | int | None = None,
    embedding: str | None = None,
) -> LargestJacobianNorm:
    r"""The largest of the spectral norms over the examples, exactly, in eval mode.

    .. math:: \max_i \|J_i\|_2, \quad \|J_i\|_2 \le \|J_i\|_F, \quad
        \|J_i\|_2^2 \le \min(\|G_i\|_F, \|G_i\|_\infty), \quad G_i = J_i J_i^\top

    (or :math:`J_i^\top J_i`, where that is smaller).
    An example whose Frobenius norm is below the largest norm so far has no Gram matrix, and one
    whose second bound is has no eigenvalues computed. Bounds are given more than the rounding error
    that they can have, so the answer is that of all examples, up to the rounding of eigenvalues.

    Cost: a forward and C backward passes, as for all norms; what is saved are Gram matrices and
    eigenvalues, with n = min(C, D) some C D n and n^3 operations an example. For many outputs
    :func:`jacobian_norms` by Lanczos iteration takes fewer passes; it has no bounds from above, by
    which to prune.

    Args:
        problem: model and data, see :func:`jacobian_norms`.
        outputs: of which the Jacobian is taken.
        wrt: which input to differentiate in.
        embedding: name of a module whose output is differentiated in.

    Returns:
        The largest norm, the example, and how many examples were pruned.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`jacobian_norms` does.

    Source: MacDonald et al., arXiv:2305.14683, section 6; Golub and Van Loan, Matrix Computations
    (2013), section 2.3.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())
    >>> model[0].weight.data.fill_(2.0)
    tensor([[2.]])
    >>> data = [(torch.tensor([[1.0], [0.0]]), torch.ones(2, 1))]
    >>> problem = Problem(model, "squared_error", data)
    >>> largest_jacobian_norm(problem)
    LargestJacobianNorm(value=2.0, example=1, examples=2, pruned=0)
    """
    problem = checked_problem(problem).in_mode("eval")

    def of_share(here: Problem) -> list[LargestJacobianNorm]:
        function = InputFunction(here, outputs, wrt, embedding)
        running, every_row = _Running(), Search(method="exact")

        def of_batch(batch: Batch) -> None:
            for point, _ in pieces(here, function.at, batch, every_row):
                running.see(point)

        here.over_batches(of_batch)
        seen = running.seen
        return [LargestJacobianNorm(running.best, running.place, seen, seen - running.solved)]

    return _largest(problem.rows(of_share))


def _largest(shares: Sequence[LargestJacobianNorm]) -> LargestJacobianNorm:
    """The largest of the norms of some shares of the data, up to rounding in the first of them."""
    best = max(share.value for share in shares)
    place = next(i for i, share in enumerate(shares) if share.value >= best * (1 - TIE))
    before = sum(share.examples for share in shares[:place])
    return LargestJacobianNorm(
        best,
        before + shares[place].example,
        sum(share.examples for share in shares),
        sum(share.pruned for share in shares),
    )


class _Running:
    """The largest norm so far."""

    def __init__(self) -> None:
        self.best, self.place = -math.inf, -1
        self.seen = self.solved = 0

    def see(self, point: Linearized) -> None:
        """Look at some more examples."""
        rows, unit = all_rows(point), point.unit
        slack = 1 + max(point.C, point.D) * torch.finfo(rows.dtype).eps + 1e-9
        alive = self._above(checked(row_norm(rows)) * unit * slack)
        if len(alive):
            G, scale = gram(rows[alive])
            scale = scale * unit[alive]
            bounds = gram_bound(G, scale) * slack
            for some in torch.split(bounds.argsort(descending=True), TOGETHER):
                some = some[self._above(bounds[some])]
                if len(some):
                    self._solve(from_gram(G[some], scale[some]), self.seen + alive[some])
        self.seen += len(point)

    def _above(self, bounds: Float[Tensor, " B"]) -> Tensor:
        return (bounds >= self.best).nonzero()[:, 0]

    def _solve(self, norms: Float[Tensor, " b"], places: Tensor) -> None:
        self.solved += len(norms)
        for value, place in zip(norms.tolist(), places.tolist(), strict=True):
            if value > self.best * (1 + TIE):
                self.place = place
            elif value >= self.best * (1 - TIE):
                self.place = min(self.place, place)
            self.best = max(self.best, value)
