"""The PAC-Bayes bound and its minimisation by slow, dense, plain code."""

import math
from collections.abc import Sequence

import torch
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import functional_call

from lossgeom.linalg import random_numbers


def inverse(q: float, c: float) -> float:
    def too_far(x: float) -> float:
        first = q * math.log(q / x) if q else 0.0
        return first + (1 - q) * math.log((1 - q) / (1 - x)) - c

    return brentq(too_far, max(q, 1e-300), 1 - 1e-16, xtol=1e-15)


def divergence(mean: Tensor, covariance: Tensor, prior: Tensor, variance: float) -> float:
    of_prior = MultivariateNormal(prior.double(), variance * torch.eye(len(prior)).double())
    return kl_divergence(MultivariateNormal(mean.double(), covariance.double()), of_prior).item()


def complexity(kl: float, variance: float, N: int, delta: float, b: float, p: float) -> float:
    j = p * math.log(b / variance)
    share = delta * 6 / (math.pi * j) ** 2
    return (kl + math.log(N / share)) / (N - 1)


def sample(mean: Tensor, log_std: Tensor, U: Tensor, generator: torch.Generator) -> Tensor:
    normal = torch.randn(len(mean), generator=generator, dtype=mean.dtype)
    return mean + U @ (log_std.exp() * normal)


def posterior(
    model: nn.Module,
    prior: Tensor,
    batches: Sequence[tuple[Tensor, Tensor]],
    loss: nn.Module,
    U: Tensor,
    *,
    epochs: int,
    lr: float,
    delta: float,
    b: float,
    p: float,
) -> tuple[Tensor, Tensor, float]:
    """Autograd through everything, and torch's RMSprop."""
    N = sum(len(y) for _, y in batches)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    mean = theta.clone().requires_grad_()
    log_std = (U.T @ theta).abs().log().requires_grad_()
    log_prior_std = torch.tensor(-3.0, dtype=theta.dtype, requires_grad=True)
    optimizer = torch.optim.RMSprop([mean, log_std, log_prior_std], lr=lr, alpha=0.9)
    generator = random_numbers(0)
    for _ in range(epochs):
        for x, y in batches:
            drawn = sample(mean, log_std, U, generator)
            pieces = drawn.split([q.numel() for q in model.parameters()])
            named = {
                name: piece.view_as(q)
                for (name, q), piece in zip(model.named_parameters(), pieces, strict=True)
            }
            bits = loss(functional_call(model, named, (x,)), y) / math.log(2)
            variance = (2 * log_prior_std).exp()
            squares = (2 * log_std).exp().sum() + (mean - prior).square().sum()
            kl = squares / variance - len(mean) + len(mean) * variance.log() - 2 * log_std.sum()
            union = 2 * (p * (math.log(b) - variance.log())).log()
            root = (kl / 2 + union + math.log(math.pi**2 * N / (6 * delta))) / (2 * (N - 1))
            optimizer.zero_grad()
            (bits + root.sqrt()).backward()
            optimizer.step()
            with torch.no_grad():
                log_prior_std.clamp_(max=(math.log(b) - 1 / p) / 2)
    return mean.detach(), log_std.detach(), log_prior_std.item()
