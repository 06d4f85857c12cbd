"""How far the data that is measured on may be from other data of its kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.batches import Batch
from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.linalg import EigenPairs, random_numbers, top_eigenpairs
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics._of_step import top_pair
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem
from lossgeom.problem.agreement import COARSE, REORDERED, agree
from lossgeom.problem.batch_norm import has_batch_statistics
from lossgeom.stability import UndefinedError
from lossgeom.trust.trial import DerivativeError

Of = Literal["loss", "sharpness"]
MOST = 64  # groups of examples, with which a standard error is known to a tenth of it
FEWEST = 2


class Share(NamedTuple):
    """What a group of examples adds to a sum and to the number of its terms."""

    part: float
    terms: float


@dataclass(frozen=True)
class SamplingError:
    r"""The standard error that the choice of the data puts on the loss or the sharpness.

    .. math:: \sqrt{\frac{m}{m - 1} \sum_{i=1}^m (s_i - \bar s n_i)^2} \Big/ \sum_i n_i, \quad
        \bar s = \sum_i s_i \Big/ \sum_i n_i

    with the summed loss :math:`s_i` and the number of terms :math:`n_i` of m groups of examples;
    for the sharpness, with :math:`s_i = v^\top H_i v` at the top eigenvector v, which is what the
    largest eigenvalue changes by, to first order, where the weights of examples do. A group is an
    example, or one of 64 random groups where there are more, which tell the error to a tenth of it;
    where examples depend on each other, as with BatchNorm in train mode, it is a batch. The unit is
    that of what it is of.

    It answers how far the number would be from that on all of the data that these examples were
    drawn from, independently. What it cannot tell: whether they are all of the data already, or
    all that training is on, where there is no such error; and the bias of the largest eigenvalue,
    which is larger on few examples than on many.

    Cost: of the loss a forward pass, and a call of the loss for each group; of the sharpness about
    as much as two to three products with the Hessian, and, without those of a step, the products
    for its eigenvector.

    Args:
        of: ``"loss"`` or ``"sharpness"``.
        tol: of the eigenvector, as of :func:`lossgeom.sharpness`.
        max_matvecs: products to spend on it.
        seed: of its random start, and of the groups.

    >>> SamplingError().name, SamplingError("sharpness").name
    ('loss_sampling_error', 'sharpness_sampling_error')
    """

    of: Of = "loss"
    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, {"of": ("loss", "sharpness")})
        check_number("tol", self.tol, 0, 1)
        check_at_least(1, max_matvecs=self.max_matvecs)
        check_at_least(0, seed=self.seed)

    @property
    def name(self) -> str:
        """Key in records."""
        return f"{self.of}_sampling_error"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: if there is one group only, or the loss is a sum and no mean.
            NonFiniteError: where the loss is NaN or infinite.
        """
        if self.of == "loss":
            return _error(_shares(problem, None, self.seed))
        pairs = top_eigenpairs(
            Hessian(problem), tol=self.tol, max_matvecs=self.max_matvecs, seed=self.seed
        )
        return _of_sharpness(problem, pairs, self.seed)

    def of_step(self, step: Step) -> Estimate:
        """Measure, at the eigenvector that other metrics of the step have found."""
        if self.of == "loss":
            return self(step.before)
        pairs = top_pair(step, Hessian(step.before), self.tol, self.max_matvecs, self.seed)
        return _of_sharpness(step.before, pairs, self.seed)


def _of_sharpness(problem: Problem, pairs: EigenPairs, seed: int) -> Estimate:
    """The error of the eigenvalue, whose shares must make it up.

    Raises:
        DerivativeError: if they do not, which third derivatives that are wrong would show.
    """
    shares, top = _shares(problem, pairs.vectors[:, 0], seed), pairs.top
    terms = math.fsum(share.terms for share in shares)
    whole = math.fsum(share.part for share in shares) / terms
    size = math.fsum(abs(share.part) for share in shares) / terms
    if not abs(whole - top.value) <= COARSE * size:
        raise DerivativeError(
            f"expected the curvatures of groups of examples to make up the sharpness "
            f"{top.value:.6g}, got {whole:.6g}; the model has a wrong third derivative"
        )
    return replace(_error(shares), converged=top.converged)


def _error(shares: Sequence[Share]) -> Estimate:
    """The standard error of a ratio of sums."""
    m, terms = len(shares), math.fsum(share.terms for share in shares)
    if m < FEWEST:
        raise UndefinedError(
            "the error of sampling needs at least two examples that do not depend on each other, "
            "or two batches where they do, as with BatchNorm in train mode"
        )
    mean = math.fsum(share.part for share in shares) / terms
    squares = math.fsum((share.part - mean * share.terms) ** 2 for share in shares)
    return Estimate(math.sqrt(m / (m - 1) * squares) / terms)


def _shares(problem: Problem, direction: Float[Tensor, " P"] | None, seed: int) -> list[Share]:
    """The shares of all groups in the loss, or in the curvature along a unit direction."""
    if not problem.criterion.average:
        raise UndefinedError(
            f"the loss {problem.criterion.name!r} is a sum, which has no value for other data"
        )
    examples = problem.cached(_examples)

    def of_batch(batch: Batch) -> list[Share]:
        leaf = problem.leaf() if direction is not None else problem.theta
        most = max(1, MOST * len(batch) // max(examples, 1))
        with torch.set_grad_enabled(direction is not None):
            outputs = problem.outputs(leaf, batch)
            sums, terms = _by_group(problem, outputs, batch, most, seed)
            if direction is not None:
                sums = _curvatures(sums, leaf, direction)
        return [Share(*each) for each in zip(sums.tolist(), terms, strict=True)]

    found = problem.rows(lambda here: here.over_batches(of_batch))
    return [share for shares in found for share in shares]


def _examples(problem: Problem) -> int:
    return sum(problem.rows(lambda here: here.over_batches(len)))


def _by_group(
    problem: Problem, outputs: Tensor, batch: Batch, most: int, seed: int
) -> tuple[Float[Tensor, " m"], list[float]]:
    """The summed losses of groups of examples and their numbers of terms.

    The whole batch is one group where its examples cannot be taken apart.
    """
    total, count = problem.terms(outputs, batch)
    if not _depend(problem) and len(outputs) > 1:
        try:
            apart = problem.in_examples(batch)
            order = torch.randperm(len(apart), generator=random_numbers(seed)).to(outputs.device)
            groups = order.tensor_split(min(most, len(order)))
            found = [problem.terms(outputs[i], apart.each_row(itemgetter(i))) for i in groups]
        except Exception:  # of whatever a loss says to a part of a batch
            found = []
        sums, terms = [each for each, _ in found], [count for _, count in found]
        same = math.isclose(math.fsum(terms), count, rel_tol=REORDERED)
        if found and same and agree(torch.stack(sums).sum(), total, REORDERED):
            return torch.stack(sums), terms
    return total[None], [count]


def _depend(problem: Problem) -> bool:
    """Whether the outputs of an example depend on the others in its batch."""
    statistics = has_batch_statistics(problem.network.module) and problem.mode == "train"
    return statistics or bool(problem.evaluation.facts.first_look.mixed)


def _curvatures(
    sums: Float[Tensor, " m"], leaf: Float[Tensor, " P"], v: Float[Tensor, " P"]
) -> Float[Tensor, " m"]:
    """The curvature of each of some functions along a direction, from one function of all.

    It is the derivative of that of their weighted sum in the weights.
    """
    weights = torch.ones_like(sums, requires_grad=True)
    one = sums.new_ones(())
    slope = pulled(sums, leaf, weights, create_graph=True) @ v
    curvature = pulled(slope, leaf, one, create_graph=True) @ v
    return pulled(curvature, weights, one)
