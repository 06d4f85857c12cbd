"""The PAC-Bayes bound of Dziugaite and Roy, in bases that curvature gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from lossgeom.bounds._bases import BASES, basis_at
from lossgeom.bounds._classification import classes, copies, one_by_one, sampled_errors
from lossgeom.bounds._complexity import Complexity, Divergence
from lossgeom.bounds._prior import Prior, differing, held_fixed, prior_mean
from lossgeom.bounds._telling import diverged, errors_at, told
from lossgeom.bounds._training import Epoch, Training, split, trained
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.bounds.kl_inverse import kl_inverse
from lossgeom.bounds.posterior import Posterior
from lossgeom.estimate import Estimate
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_number, check_whole
from lossgeom.messages.reprs import short
from lossgeom.messages.wording import unknown
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.isolation import measuring
from lossgeom.problem.minibatches import in_larger_batches

QUANTITY = (
    "the error on new examples{} of networks drawn at random around the trained one, a new one for "
    "each example,"
)
SOME = " that the loss counts, as it does {} of these {},"
AFTERWARDS = 1  # sets networks of other draws apart from those of the bound
SOURCE = "Dziugaite and Roy (arXiv:1703.11008), with the bases of Wu et al. (arXiv:2010.04261)"
INDEPENDENT = Assumption(
    "the examples were drawn independently of each other, from the distribution that new ones "
    "come from",
    "unverifiable",
)
UNTRAINED = Assumption(
    "neither the prior, which is its mean, b and p, nor anything that the model holds fixed or "
    "closes over depends on the examples that are counted",
    "declared",
)


@dataclass(frozen=True, eq=False)
class PacBayes:
    """A PAC-Bayes bound on the error of a randomised network; ``print`` tells all of it.

    Attributes:
        bound: on the error on new examples, with its assumptions.
        basis: of the posterior, by name.
        kl: relative entropy of posterior and prior, in nats.
        prior_variance: lambda, on the grid.
        empirical_error: the mean error of the networks drawn, on the examples of the bound.
        posterior: the distribution that networks are drawn from.
        history: where training was after each epoch.
        held: what the model holds fixed, by name.
    """

    bound: Bound
    basis: str
    kl: float
    prior_variance: float
    empirical_error: Estimate
    posterior: Posterior = field(repr=False)
    history: tuple[Epoch, ...] = field(repr=False)
    held: Mapping[str, Tensor] = field(repr=False)

    @property
    def value(self) -> float:
        """The bound."""
        return self.bound.value

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """All that it rests on."""
        return self.bound.assumptions

    @property
    def vacuous(self) -> bool:
        """Whether it says no more than that an error is at most 1."""
        return self.bound.vacuous

    @property
    def diverged(self) -> bool:
        """Whether training ended early, at a loss or parameters that are not finite."""
        return diverged(self.history)

    def __float__(self) -> float:
        return self.value

    __repr__ = short

    def __str__(self) -> str:
        return str(self.bound)

    def stochastic_error(self, problem: Problem, *, samples: int = 100, seed: int = 1) -> Estimate:
        """The error of networks drawn from the posterior, on the examples of a problem.

        Cost: a forward pass over them for each network.

        Args:
            problem: the same model and loss on any examples, such as those of a test set.
            samples: networks to draw, at least 2.
            seed: of the draws.

        Returns:
            The mean, with the standard error that the draws leave, which is 1 / samples where all
            agree; that of the examples is not in it.

        Raises:
            ValueError: as of :func:`pac_bayes`, and for a model with other parameters, or with
                others that are held fixed.
        """
        check_whole(2, samples=samples)
        here = checked_problem(problem).at(self.posterior.mean)
        if others := differing(held_fixed(here), self.held):
            raise ValueError(
                f"expected what the model of the bound holds fixed, got another {others[0]}: make "
                "the problem of the same model, with the same parameters="
            )
        drawn = random_numbers(seed, AFTERWARDS)
        return _mean(sampled_errors(here, classes(here), self.posterior, samples, drawn))


def _mean(errors: Tensor) -> Estimate:
    agree = bool((errors == errors[0]).all())
    stderr = 1 / len(errors) if agree else (errors.var() / len(errors)).sqrt().item()
    return Estimate(errors.mean().item(), stderr)


def pac_bayes(
    problem: Problem,
    *,
    prior: Prior,
    basis: str = "decoupled",
    epochs: int = 300,
    lr: float = 2e-3,
    samples: int = 1000,
    delta: float = 0.025,
    delta_prime: float = 0.01,
    b: float = 0.1,
    p: float = 100.0,
    every: int = 10,
    prior_share: float = 0.0,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> PacBayes:
    r"""Bound the error of a randomised network by how far it is from its initial parameters.

    A posterior :math:`Q = N(\mu, U \mathrm{diag}(\sigma^2) U^\top)` over parameters is trained,
    from those of the problem on, to classify well and to be close to a prior
    :math:`N(\theta_0, \lambda I)`. With probability :math:`1 - \delta - \delta'`,

    .. math::
        e(Q) \le \mathrm{kl}^{-1}\Big(\mathrm{kl}^{-1}\Big(\hat e, \frac{\ln(2/\delta')}{n}\Big),
        \frac{KL(Q \| P) + 2 \ln j + \ln(\pi^2 N / 6 \delta)}{N - 1}\Big), \quad
        \lambda = b e^{-j/p}

    with the error :math:`\hat e` of n networks drawn from Q on the N examples,
    :func:`lossgeom.bounds.kl_inverse`, and

    .. math:: KL = \tfrac12 \Big(\frac{\sum_i \sigma_i^2 + \|\mu - \theta_0\|^2}{\lambda} - P
        + P \ln \lambda\Big) - \sum_i \ln \sigma_i.

    What is minimised by RMSprop in mu, ln sigma and ln lambda is the loss of one network drawn for
    each batch, in bits, plus the root of half of the second argument; lambda is kept below
    :math:`b e^{-1/p}` and afterwards rounded to the better of its neighbours on the grid. Any mu,
    sigma and U may depend on the examples, so that a poor minimum costs tightness, not validity.

    Cost: a gradient for each batch and epoch, two rotations into the basis beside it (each m n (m +
    n) multiplications for a layer with m outputs and n inputs), and ``samples`` forward passes;
    a basis costs what :func:`lossgeom.kronecker_factors` does, or P Hessian products for "exact".
    A rotation is cheaper than the gradient of a batch where m + n is below its size. Bases and
    drawn networks go over small batches in larger ones; what a small network does on a batch is
    recorded and replayed, where that gives the same. Memory: all batches, which are read once, ten
    vectors like theta, 64 MiB of networks at a time and as much for recordings.

    Args:
        problem: a classifier on its training examples: ``"cross_entropy"`` with class indices, or
            ``nn.BCEWithLogitsLoss()`` or ``nn.SoftMarginLoss()`` of one output, with labels 0 and
            1 or, of the last, -1 and 1. What the loss leaves out, such as an ``ignore_index`` or
            a class of weight 0, is not counted, and the bound says nothing of it.
        prior: the model as it was initialised, its state dict, or a vector like ``problem.theta``.
            What a model or state dict says of buffers and frozen parameters must be so here.
        basis: U: ``"standard"`` for the unit vectors; ``"decoupled"`` for the eigenvectors of the
            Kronecker factors of every layer at the parameters of the problem, and of E[M] for its
            bias; ``"recomputed"`` for the same, computed again at mu as training goes on;
            ``"exact"`` for those of the Hessian in every parameter, of at most 4,096 numbers each.
            Parameters that have no Kronecker factors keep the unit vectors.
        epochs: passes over the batches, in their order.
        lr: of RMSprop, whose alpha is 0.9; below 3e38.
        samples: n, at least 2.
        delta: the probability that the bound on the error fails, in (0, 1).
        delta_prime: that its estimate from n networks does; with delta, below 1. To choose the best
            of several bounds, divide it by their number, and delta, too, if their priors differ.
        b: larger than the largest prior variance of the grid.
        p: how fine the grid is.
        every: epochs after which ``basis="recomputed"`` is computed again.
        prior_share: the share of batches, in [0, 1), that the mean of the prior is trained on
            first, from ``prior`` on with as many epochs. The posterior then starts there, wherever
            the problem is, and N counts the other examples only: a prior that depends on data, by
            sample splitting, as long as ``prior`` depends on none of them.
        seed: of noise and networks drawn, on the CPU from generators of their own.
        on_epoch: is called with each ``Epoch`` when it is over.

    Returns:
        The bound with its posterior. Training that diverges ends early, and ``diverged`` says so;
        the bound is then that of the last posterior, and NaN where that is not finite.

    Raises:
        TypeError, ValueError: for what is not such a problem or prior, a model with running
            statistics or frozen parameters that are not those of the prior, one without layers
            that the basis needs, or settings out of their range.
        NonFiniteError: where the loss is NaN or infinite at the parameters of the problem, and a
            basis is made there, or on the way to a prior.

    Source: Dziugaite and Roy, arXiv:1703.11008, sections 2 and 3 (the bound, its grid and its
    minimisation); Langford and Caruana, Not Bounding the True Error (2001); Wu et al.,
    arXiv:2010.04261 (the bases); Ambroladze et al., Tighter PAC-Bayes Bounds (2006), for priors
    from a part of the data.

    >>> import torch
    >>> from torch import nn
    >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> batches = [(x, x[:, :1].gt(0).float())]
    >>> model = nn.Linear(2, 1)
    >>> initial = torch.zeros(3)
    >>> _ = nn.init.ones_(model.weight), nn.init.zeros_(model.bias)
    >>> problem = Problem(model, nn.BCEWithLogitsLoss(), batches)
    >>> result = pac_bayes(problem, prior=initial, epochs=20, lr=0.1, samples=50)
    >>> result.empirical_error.value < result.value < 1, result.vacuous
    (True, False)
    """
    checked_problem(problem)
    _check(basis, every, samples, delta, delta_prime, prior_share)
    training = Training(epochs, lr, every if basis == "recomputed" else 0, seed, on_epoch)
    with measuring(problem.theta.device):
        problem, large, mean, assumptions = _started(problem, prior, prior_share, training)
        labels = classes(large)
        N, examples = sum(int((own >= 0).sum()) for own in labels), sum(map(len, labels))
        complexity = Complexity(N, delta, b, p)
        make = partial(basis_at, basis, large)
        posterior, log_variance, history = trained(problem, mean, make, complexity, training)
        errors = sampled_errors(large, labels, posterior, samples, random_numbers(seed + 1))
        at = [] if prior_share else errors_at(large, labels, [problem.theta, mean])
    c, kl, log_variance = _on_grid(complexity, posterior, mean, log_variance)
    variance, empirical = math.exp(log_variance), _mean(errors)
    value = kl_inverse(kl_inverse(empirical.value, math.log(2 / delta_prime) / samples), c)
    ceiling = b if math.isclose(log_variance, complexity.largest) else None
    bound = Bound(
        value,
        QUANTITY.format("" if examples == N else SOME.format(N, examples)),
        1 - delta - delta_prime,
        {"N": N, "KL": kl, "lambda": variance, "b": b, "p": p, "delta": delta}
        | {"error of samples": empirical.value, "samples": samples, "delta'": delta_prime},
        assumptions,
        SOURCE,
        **told(value, empirical.value, at, history, ceiling),
    )
    return PacBayes(bound, basis, kl, variance, empirical, posterior, history, held_fixed(problem))


def _check(
    basis: str, every: int, samples: int, delta: float, delta_prime: float, prior_share: float
) -> None:
    if basis not in BASES:
        raise ValueError(unknown("basis", basis, BASES))
    check_whole(1, every=every)
    check_whole(2, samples=samples)
    check_number("delta", delta, 0, 1)
    check_number("delta_prime", delta_prime, 0, 1)
    check_number("delta + delta_prime", delta + delta_prime, 0, 1)
    check_number("prior_share", prior_share, 0, 1, at_low=True)


def _started(
    problem: Problem, prior: Prior, share: float, training: Training
) -> tuple[Problem, Problem, Tensor, tuple[Assumption, ...]]:
    """The problem to start at, also in larger batches, the prior's mean, and the assumptions."""
    labels, mean, alone = classes(problem), prior_mean(problem, prior), one_by_one(problem)
    found = UNTRAINED, alone, INDEPENDENT, *copies(problem, labels)
    if share:
        problem, assumption = split(problem.at(mean), share, training)
        mean, found = problem.theta, (assumption, *found)
    large = in_larger_batches(problem) if alone.status == "checked" else problem
    return problem, large, mean, found


def _on_grid(
    complexity: Complexity, posterior: Posterior, mean: Tensor, log_variance: float
) -> tuple[float, float, float]:
    """The second argument of the bound, KL and ln lambda, at the better neighbour on the grid."""
    kl_at = Divergence.of(posterior.mean - mean, posterior.log_std).kl
    c, at = min((complexity(kl_at(v), v), v) for v in complexity.neighbours(log_variance))
    return c, kl_at(at), at
