"""The curvature that Gauss-Newton matrices leave out: of single examples, and downwards."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.curvature import Hessian
from lossgeom.linalg import MatrixFree, plain_arithmetic, random_numbers, top_eigenpairs
from lossgeom.losses.graphs import check_differentiable_again
from lossgeom.problem import Problem
from lossgeom.stability.sgd._outputs import example_outputs
from lossgeom.trust.trial import DerivativeError

TOL = 0.02  # of the most negative eigenvalue
FLAT = 1e-3  # of the sharpness: negative curvature that counts as none
PROBES = 10  # sums of examples with random signs, and of examples that are taken one by one
UNLIKELY = 1.479  # what chi-squared with as many degrees of freedom is below once in 1000 times


def lowest_curvature(problem: Problem, sharpness: float) -> float | None:
    """Find the smallest eigenvalue of the Hessian; ``None`` where that is not known.

    One that is zero has no relative error. Where it comes out positive and is not known to the
    tolerance, it is looked for to a part of the sharpness, and no more than it is returned.
    """
    H = Hessian(problem)
    try:
        found = top_eigenpairs(H, which="smallest", tol=TOL, verify=True)
        lowest = float(found.values[0])
        if bool(found.converged[0]) or lowest < 0:
            return lowest
        shifted = MatrixFree.like(H, lambda V: H.matmat(V) - sharpness * V, lambda: shifted)
        start = found.vectors
        found = top_eigenpairs(shifted, which="smallest", tol=FLAT / 2, start=start, verify=True)
    except (DerivativeError, RuntimeError):
        return None
    least = float(found.values[0]) + sharpness - float(found.residuals[0])
    return least if bool(found.converged[0]) else None


def residual_along(problem: Problem, v: Float[Tensor, " P"]) -> Float[Tensor, " n"] | None:
    r"""Take the residual part of each example along v, in its own terms.

    .. math:: v^\top (\nabla^2 \ell_i - H_i) v = \nabla_f \ell_i \cdot f_i''[v, v]

    with the second derivative of the outputs along v, by reverse mode in one number. ``None`` where
    the model has no such derivative.
    """
    try:
        with plain_arithmetic(problem.theta.device):
            parts = problem.over_batches(lambda batch: _of_batch(problem, batch, v))
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    found = torch.cat([part for part, _ in parts]).double()
    return found * len(found) / sum(count for _, count in parts)


def _of_batch(problem: Problem, batch: Batch, v: Tensor) -> tuple[Tensor, float]:
    t = torch.zeros((), dtype=v.dtype, device=v.device, requires_grad=True)
    outputs = problem.outputs(problem.theta + t * v, batch)
    loss = LossAtOutputs.of(problem, outputs, batch)
    residual = loss.residual.detach()
    u = torch.zeros_like(residual, requires_grad=True)
    first = pulled(outputs, t, u, create_graph=True)
    second = pulled(first, t, torch.ones_like(t), create_graph=True)
    check_differentiable_again(first)
    check_differentiable_again(second)
    bend = pulled(second, u, torch.ones_like(t))
    return (residual * bend).reshape(len(residual), -1).sum(1).detach(), loss.count


def residual_noise(problem: Problem) -> float | None:
    r"""Bound what single examples curve the loss by beside their Gauss-Newton matrices.

    .. math:: \lambda_{\max}\Big(\frac1n \sum_i R_i^2\Big) \le \frac1n \sum_i \|R_i\|^2, \qquad
        R_i = \nabla^2 \ell_i - H_i

    of up to ten examples. Of more, from ten sums of all R_i with random signs, over root n, whose
    squares have the same mean; it is raised to what it is less than about once in 1000 times where
    a single direction makes it up, and more rarely else. ``None`` where the model has no second
    derivative that could be used.
    """
    n = example_outputs(problem).n
    few = n <= PROBES
    if few:
        weights = math.sqrt(n) * torch.eye(n)
    else:
        weights = 2.0 * torch.randint(2, (PROBES, n), generator=random_numbers(0)) - 1
    try:
        norms = [_largest(problem, row / math.sqrt(n)) for row in weights]
    except (DerivativeError, RuntimeError, NotImplementedError, ValueError):
        return None
    squares = sum(norm * norm for norm in norms)
    return squares / n if few else squares / UNLIKELY


def _largest(problem: Problem, weights: Float[Tensor, " n"]) -> float:
    """The norm of the weighted sum of the residual parts of all examples."""
    terms, theta = example_outputs(problem).terms, problem.theta
    parts = torch.split(weights.to(theta), problem.cached(_sizes))

    def product(V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        sums = problem.over_batches(lambda batch: _product(problem, batch, parts[batch.index], V))
        return torch.stack(sums).sum(0) / terms

    A = MatrixFree((len(theta), len(theta)), theta.dtype, theta.device, product, lambda: A)
    found = top_eigenpairs(A, which="magnitude", tol=TOL)
    return abs(float(found.values[0])) + float(found.residuals[0])


@torch.no_grad()
def _sizes(problem: Problem) -> list[int]:
    """The number of examples in each batch."""
    return problem.over_batches(lambda batch: len(problem.outputs(problem.theta, batch)))


def _product(problem: Problem, batch: Batch, weights: Tensor, V: Tensor) -> Tensor:
    theta = problem.theta.detach().requires_grad_()
    outputs = problem.outputs(theta, batch)
    if not outputs.requires_grad:
        return torch.zeros_like(V)
    residual = LossAtOutputs.of(problem, outputs, batch).residual.detach()
    of_each = weights.to(residual).reshape(-1, *[1] * (residual.ndim - 1))
    (pulled,) = torch.autograd.grad(
        outputs, theta, residual * of_each, create_graph=True, materialize_grads=True
    )
    if not pulled.requires_grad:
        return torch.zeros_like(V)
    check_differentiable_again(pulled)
    columns = [
        torch.autograd.grad(pulled, theta, v, retain_graph=True, materialize_grads=True)[0]
        for v in V.T
    ]
    return torch.stack(columns, 1)
