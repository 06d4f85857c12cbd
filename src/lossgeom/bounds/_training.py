"""Minimise a PAC-Bayes bound over posteriors and the variance of the prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.bounds._complexity import LEAST_LOG_VARIANCE, Complexity, Divergence
from lossgeom.bounds._replayed import Replayed
from lossgeom.bounds.bound import Assumption
from lossgeom.bounds.posterior import Basis, Posterior
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_number, check_whole
from lossgeom.problem import Problem
from lossgeom.problem.minibatches import on_batches

ALPHA, EPS = 0.9, 1e-8  # of RMSprop
PRIOR_LOG_STD = -3.0  # that training begins with
LARGEST_LR = 3e38  # a number in float32
LEAST_STD = 1e-3  # of the prior's, that a posterior begins with


class Epoch(NamedTuple):
    """The state of training after an epoch.

    Attributes:
        epoch: which one, from 1 on.
        surrogate: the mean of the loss over the epoch, in bits; NaN where training ended at a loss
            or parameters that are not finite.
        complexity: the root that is added to it; their sum is what is minimised.
        kl: relative entropy of posterior and prior.
        prior_variance: lambda, not yet rounded to the grid.
    """

    epoch: int
    surrogate: float
    complexity: float
    kl: float
    prior_variance: float


@dataclass(frozen=True)
class Training:
    """How a posterior is trained.

    Attributes:
        epochs: passes over the data.
        lr: of RMSprop.
        every: epochs after which the basis is computed again; never for 0.
        seed: of the noise.
        on_epoch: is called after each epoch.
    """

    epochs: int
    lr: float
    every: int
    seed: int
    on_epoch: Callable[[Epoch], None]

    def __post_init__(self) -> None:
        check_whole(0, epochs=self.epochs)
        check_number("lr", self.lr, 0, LARGEST_LR)


def split(initial: Problem, share: float, training: Training) -> tuple[Problem, Assumption]:
    """Train the mean of a prior on the first batches, and leave the others for the bound."""
    raws = initial.over_batches(lambda batch: batch.raw)
    first = round(share * len(raws))
    if not 0 < first < len(raws):
        raise ValueError(
            f"prior_share={share:g} of {len(raws)} batches leaves none for the "
            f"{'bound' if first else 'prior'}; give smaller batches, or another share"
        )
    mean = _fitted(on_batches(initial, raws[:first]), training)
    statement = (
        f"the prior depends on data: its mean was trained on the first {first} of {len(raws)} "
        "batches, which the bound does not count, from weights that depend on none of the others; "
        "nor does the order of the batches depend on what is in them"
    )
    return on_batches(initial, raws[first:]).at(mean), Assumption(statement, "declared")


def _fitted(problem: Problem, training: Training) -> Float[Tensor, " P"]:
    """Train the parameters of a problem on its loss alone."""
    theta = problem.theta.clone()
    move = _RMSprop(theta, training.lr)
    gradient_at = _BatchGradients(problem.inside_transforms(), training.epochs)
    for batch in problem.over_batches(lambda batch: batch) * training.epochs:
        move(gradient_at(theta, batch)[0])
    return theta


def trained(
    problem: Problem,
    prior: Float[Tensor, " P"],
    basis_at: Callable[[Tensor], Basis],
    complexity: Complexity,
    training: Training,
) -> tuple[Posterior, float, tuple[Epoch, ...]]:
    r"""Minimise the loss of a network drawn from the posterior plus the complexity term.

    With the noise :math:`z = \sigma \varepsilon` in the basis and the gradient g of the loss at
    :math:`\mu + U z`, the loss has the gradients g in mu and :math:`U^\top g \, z` in ln sigma.

    Returns:
        The posterior, the logarithm of the prior's variance, and the epochs.
    """
    basis, unwatched = basis_at(problem.theta), problem.inside_transforms()
    batches = problem.over_batches(lambda batch: batch)
    gradient_at = _BatchGradients(unwatched, training.epochs)
    both, start = _beginning(problem.theta, prior, basis, complexity)
    move, of_prior = _RMSprop(both, training.lr), _Scalar(start, training.lr)
    (mean, log_std), (std, offset) = both, torch.empty_like(both)  # kept, for speed, as is
    in_mean, in_log_std = whole = torch.empty_like(both)
    generator, history = random_numbers(training.seed), list[Epoch]()

    def step(batch: Batch) -> tuple[float, float]:
        torch.exp(log_std, out=std)
        torch.sub(mean, prior, out=offset)
        noise = torch.randn(len(std), generator=generator, dtype=std.dtype).to(std).mul_(std)
        gradient, total, count = gradient_at(mean + basis.unrotate(noise), batch)
        squares = (std.dot(std) + offset.dot(offset)).item()
        at = Divergence(len(std), squares, log_std.sum().item()), 2 * of_prior.x
        precision, by, in_prior = complexity.gradients(*at)
        torch.add(gradient, offset, alpha=precision, out=in_mean)
        torch.mul(basis.rotate(gradient), noise, out=in_log_std)
        in_log_std.addcmul_(std, std, value=precision).sub_(by)
        move(whole)
        of_prior(in_prior, LEAST_LOG_VARIANCE / 2, complexity.largest / 2)
        return total, count

    for epoch in range(1, training.epochs + 1):
        try:
            if training.every and epoch > 1 and (epoch - 1) % training.every == 0:
                basis = basis_at(mean)
            with unwatched.network.undone():
                losses = [step(batch) for batch in batches]
            at = Divergence.of(mean - prior, log_std), 2 * of_prior.x
            history.append(_over(epoch, losses, *at, complexity))
        except ArithmeticError:  # as NonFiniteError is
            history.append(Epoch(epoch, *[math.nan] * 4))
            break
        training.on_epoch(history[-1])
    return Posterior(mean.clone(), log_std.clone(), basis), 2 * of_prior.x, tuple(history)


def _beginning(
    theta: Tensor, prior: Tensor, basis: Basis, complexity: Complexity
) -> tuple[Float[Tensor, "2 P"], float]:
    """The mean with the ln of deviations, and that of the prior, to begin with.

    Deviations are as large as the coordinates, or where theta is the prior as the prior's own.
    """
    start = min(PRIOR_LOG_STD, complexity.largest / 2)
    log_std = torch.full_like(prior, start)
    if not torch.equal(theta, prior):
        log_std = basis.rotate(theta).abs().clamp(min=LEAST_STD * math.exp(start)).log()
    return torch.stack([theta, log_std]), start


def _over(
    epoch: int,
    losses: Sequence[tuple[float, float]],
    apart: Divergence,
    log_variance: float,
    complexity: Complexity,
) -> Epoch:
    """Sum up an epoch that is over, from the summed loss and the count of its batches."""
    kl = apart.kl(log_variance)
    if not math.isfinite(kl):
        raise ArithmeticError("the posterior is not finite")
    surrogate = sum(total for total, _ in losses) / sum(count for _, count in losses)
    root = complexity.root(kl, log_variance)
    return Epoch(epoch, surrogate, root, kl, math.exp(log_variance))


class _BatchGradients:
    """The gradient of the mean loss of a batch in bits, which is at least its error.

    Args:
        problem: as it is inside transforms.
        calls: with each batch.
    """

    def __init__(self, problem: Problem, calls: int) -> None:
        self._problem, self._counts = problem, dict[int, float]()
        self._both = Replayed(problem, self._checked, self._gradient_and_sum, calls)

    def __call__(self, theta: Float[Tensor, " P"], batch: Batch) -> tuple[Tensor, float, float]:
        """Take the gradient; also the sum of the loss, and the number of its terms.

        Raises:
            NonFiniteError: where the loss is NaN or infinite.
        """
        both = self._both(theta, batch)
        if not math.isfinite(total := both[-1].item()):
            self._checked(theta, batch)  # for its error
        count = self._counts[batch.index]
        return both[:-1] * (1 / math.log(2) / (count or 1.0)), total / math.log(2), count

    def _checked(self, theta: Tensor, batch: Batch) -> Tensor:
        return self._gradient_and_sum(theta, batch, self._problem.terms)

    def _gradient_and_sum(
        self, theta: Tensor, batch: Batch, terms: Callable[..., Any] | None = None
    ) -> Tensor:
        """Take the gradient of the summed loss, and put the sum behind it."""
        leaf = theta.detach().requires_grad_()
        outputs = self._problem.outputs(leaf, batch)
        total, count = (terms or self._problem.criterion.terms)(outputs, batch)
        self._counts[batch.index] = float(count)
        (gradient,) = torch.autograd.grad(total, leaf, materialize_grads=True)
        return torch.cat([gradient, total.detach()[None].to(gradient)])


class _RMSprop:
    """Steps of RMSprop in place, as torch's."""

    def __init__(self, x: Tensor, lr: float) -> None:
        self.x, self.lr = x, lr
        self.squares, self.roots = torch.zeros_like(x), torch.empty_like(x)

    def __call__(self, gradient: Tensor) -> None:
        self.squares.mul_(ALPHA).addcmul_(gradient, gradient, value=1 - ALPHA)
        torch.sqrt(self.squares, out=self.roots).add_(EPS)
        self.x.addcdiv_(gradient, self.roots, value=-self.lr)


@dataclass
class _Scalar:
    """Such steps of a number that is kept between two others."""

    x: float
    lr: float
    squares: float = 0.0

    def __call__(self, gradient: float, low: float, high: float) -> None:
        self.squares = ALPHA * self.squares + (1 - ALPHA) * gradient * gradient
        moved = self.x - self.lr * gradient / (math.sqrt(self.squares) + EPS)
        self.x = min(max(moved, low), high)  # NaN stays NaN
