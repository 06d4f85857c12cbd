"""A bound on the curvature that a single example gives the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.losses.likelihoods import Bernoulli, Gaussian, Likelihood, Softmax
from lossgeom.problem import Problem
from lossgeom.smoothness import parameter_jacobian_norms
from lossgeom.stability.sgd._setting import Setting

MANY = 20_000  # outputs of all examples: more gradients than that are not taken
ROUNDING = 1e-3  # of a norm in single precision


def largest_curvature(setting: Setting) -> float:
    r"""Bound the largest eigenvalue of all H_i, by norms of Jacobians.

    .. math:: \lambda_{\max}(H_i) \le \|\nabla_f^2 \ell_i\| \, \|J_i\|^2

    Infinite where that is not known, or takes too many gradients.
    """
    problem, examples = setting.problem, setting.examples
    likelihood = problem.criterion.likelihood
    few = examples.n * examples.outputs <= MANY
    if likelihood is None or not few or problem.mode != "eval" or problem.seed is not None:
        return math.inf
    parts = problem.over_batches(lambda batch: _of_outputs(problem, likelihood, batch))
    of_outputs = torch.cat(parts).double() / examples.terms
    norms = parameter_jacobian_norms(problem, method="exact").values
    return float((of_outputs.to(norms) * norms.square()).max()) * (1 + ROUNDING)


@torch.no_grad()
def _of_outputs(problem: Problem, likelihood: Likelihood, batch: Batch) -> Tensor:
    """Bound the largest eigenvalue of the loss Hessian in the outputs of each example."""
    outputs = problem.outputs(problem.theta, batch)
    weights, f = likelihood.weights(outputs, batch), likelihood.rows(outputs)
    if isinstance(likelihood, Gaussian):
        most = torch.ones_like(f)
    elif isinstance(likelihood, Bernoulli):
        most = f.sigmoid() * (-f).sigmoid()
    elif isinstance(likelihood, Softmax):
        p = f.softmax(1)
        most = 2 * p * (1 - p)  # by Gershgorin's theorem
    else:
        most = torch.full_like(f, math.inf)
    return (weights * most).reshape(len(outputs), -1).amax(1)
