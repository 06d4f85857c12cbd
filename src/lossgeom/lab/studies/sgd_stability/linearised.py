"""SGD on linear models of few examples, whose batches can all be listed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.extras import required

POINTS = ((1.0, 0.0), (1.0, 1.0), (0.0, 2.0), (1.0, -1.0))
"""Gradients of four examples in two parameters, for which thresholds are tabulated."""

Sampling = Literal["without replacement", "with replacement"]
SAMPLINGS: tuple[Sampling, ...] = ("without replacement", "with replacement")
BURN_IN = 0.25  # of the steps of a population, until it has the shape with which it grows


def random_problems(number: int, seed: int) -> Iterator[Float[Tensor, "5 3"]]:
    """Gradients of five examples in three parameters."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        yield torch.randn(5, 3, generator=generator, dtype=torch.float64)


def every_batch(
    gradients: Float[Tensor, "n r"], batch_size: int, sampling: Sampling
) -> Float[Tensor, "M r r"]:
    """The Hessian of every batch, all of which are as likely as each other."""
    n = len(gradients)
    listed = (
        combinations(range(n), batch_size)
        if sampling == "without replacement"
        else product(range(n), repeat=batch_size)
    )
    chosen = gradients[torch.tensor(list(listed))]
    return chosen.mT @ chosen / batch_size


def growth(batches: Float[Tensor, "M r r"], lr: float) -> float:
    """The spectral radius of a step's map on second moments, as a matrix, batch by batch."""
    r = batches.shape[-1]
    steps = torch.eye(r, dtype=batches.dtype) - lr * batches
    whole = torch.einsum("mij,mkl->ikjl", steps, steps).reshape(r * r, r * r) / len(steps)
    return float(torch.linalg.eigvalsh(whole).abs().max())


def threshold(batches: Float[Tensor, "M r r"]) -> float:
    """The learning rate at which second moments begin to grow, by trying."""
    edge = 2 / torch.linalg.eigvalsh(batches.mean(0))[-1].item()
    found = required("scipy.optimize").brentq(
        lambda lr: growth(batches, lr) - 1, 1e-3 * edge / len(batches), (1 + 1e-9) * edge
    )
    return float(found)


def population_growth(
    batches: Float[Tensor, "M r r"], lr: float, replicas: int, steps: int, seed: int
) -> float:
    """The factor of a step on second moments, of replicas that branch as their squares grow.

    After each step, replicas are drawn anew in proportion to what their square has grown by, so
    that they are where the second moment is, however few would get there by themselves.
    """
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(batches.shape[-1], replicas, generator=generator, dtype=torch.float64)
    places = torch.arange(replicas, dtype=torch.float64)
    log_means = torch.empty(steps, dtype=torch.float64)
    for step in range(steps):
        w, grown = _stepped(w / w.square().sum(0).sqrt(), batches, lr, generator)
        log_means[step] = grown.mean().log()
        shift = torch.rand(1, generator=generator, dtype=torch.float64)
        shares = grown.cumsum(0) * (replicas / grown.sum())
        w = w[:, torch.searchsorted(shares, places + shift).clamp_max(replicas - 1)]
    return log_means[int(BURN_IN * steps) :].mean().exp().item()


def plain_growth(
    batches: Float[Tensor, "M r r"], lr: float, replicas: int, steps: int, seed: int
) -> float:
    """The factor of a step on the mean square of replicas that go their own ways."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(batches.shape[-1], replicas, generator=generator, dtype=torch.float64)
    before = w.square().mean().log()
    for _ in range(steps):
        w, _ = _stepped(w, batches, lr, generator)
    return ((w.square().mean().log() - before) / steps).exp().item()


def _stepped(
    w: Float[Tensor, "r R"],
    batches: Float[Tensor, "M r r"],
    lr: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "r R"], Float[Tensor, " R"]]:
    """Take a step on a batch of each replica's own; return by what its square has grown, too."""
    drawn = torch.randint(len(batches), (w.shape[1],), generator=generator)
    hessians = batches.permute(1, 2, 0).contiguous()[:, :, drawn]
    after = w - lr * (hessians * w).sum(1)
    return after, after.square().sum(0) / w.square().sum(0)
