"""A certificate where there are too many outputs for an exact one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature import ConjugateGaussNewton, GaussNewton, ParameterJacobian
from lossgeom.linalg import SpectralDensity, random_numbers, spectral_density, top_eigenpairs
from lossgeom.losses.likelihoods import Bernoulli, Gaussian, Likelihood, Softmax
from lossgeom.problem import Problem
from lossgeom.smoothness import parameter_jacobian_norms
from lossgeom.stability.sgd._residual import lowest_curvature, residual_along
from lossgeom.stability.sgd._setting import Evidence, Setting
from lossgeom.stability.sgd.bounds import sufficient
from lossgeom.stability.sgd.certificate import SGDCertificate
from lossgeom.stability.sgd.necessary import along_direction, trace_condition

PROBES = 20  # for the trace, and for the length of the gradients of single examples
STEPS = 6  # of each, in the spectrum
MANY = 20_000  # outputs of all examples: more gradients than that are not taken
ROUNDING = 1e-3  # of a norm in single precision
ERRORS = 4.0  # standard errors that a trace may be smaller


def bounded(setting: Setting, why: str) -> SGDCertificate:
    """Certify SGD by conditions that are necessary, and one that is sufficient."""
    problem, examples = setting.problem, setting.examples
    G = GaussNewton(problem)
    pairs = top_eigenpairs(G, tol=1e-2, verify=True)
    v = pairs.vectors[:, 0]
    images = ConjugateGaussNewton(problem).factor.matmat(v[:, None])[:, 0].double()
    own = examples.n * images.reshape(examples.n, -1).square().sum(1)
    sharpness, residual = float(own.mean()), float(pairs.residuals[0])
    spectrum = spectral_density(G, probes=PROBES, steps=STEPS)
    conditions = _conditions(setting, spectrum, own, residual) if sharpness > 0 else {}
    found = bool(pairs.converged[0]) and sharpness > 0
    most = float(pairs.values[0]) + residual if found else math.inf
    lower, single_batch = _certain(setting, most)
    share, true_upper = setting.left_out(own, residual_along(problem, v))
    evidence = Evidence(
        setting=setting,
        lower=lower,
        upper=min(conditions.values(), default=math.inf),
        true_upper=true_upper,
        gradient_norm=float(problem.gradient().norm()),
        example_gradient_norm=_of_examples(setting),
        lowest=lowest_curvature(problem, sharpness),
        sharpness=sharpness,
        residual=share,
    )
    return evidence.certificate(
        [f"bounds instead of a threshold: {why}"],
        smallest_batch=None,
        single_batch=single_batch,
        noise_kernel=_noise_kernel(setting, spectrum),
        bounds=conditions,
        moments={},
        excess_loss=None,
    )


def _conditions(
    setting: Setting, spectrum: SpectralDensity, own: Float[Tensor, " n"], residual: float
) -> dict[str, float]:
    """Learning rates that the threshold is at most."""
    p, momentum = setting.p, setting.momentum
    if p is None:
        return {}  # the mean of a reshuffled epoch is no power of the mean step
    bounds = {
        "full batch": 2 * (1 + momentum) / float(own.mean()),
        "top eigenvector": along_direction(own, p, momentum, residual),
    }
    mean = spectrum.mean(lambda h: h)
    least = spectrum.size * (mean.value - ERRORS * (mean.stderr or 0.0))
    from_trace = trace_condition(least, p, setting.examples.outputs, momentum)
    name = f"trace, less {ERRORS:g} standard errors"
    return bounds if from_trace is None else {**bounds, name: from_trace}


def _noise_kernel(setting: Setting, spectrum: SpectralDensity) -> float | None:
    if setting.p is None or setting.momentum:
        return None
    p, lr = setting.p, setting.lr
    if lr * float(spectrum.nodes.max()) >= 2:
        return math.inf
    mean = spectrum.mean(lambda h: lr * h.clamp(min=0) / (2 - (1 - p) * lr * h.clamp(min=0)))
    return p * spectrum.size * mean.value


def _certain(setting: Setting, sharpness: float) -> tuple[float, float]:
    r"""Learning rates that are stable for certain: of SGD, and of any single batch.

    .. math:: H_i \preceq n H, \quad H_b \preceq \tfrac nB H
    """
    n, p, left = setting.examples.n, setting.p, setting.examples.n % setting.batch_size
    largest = min(largest_curvature(setting), n * sharpness)
    smallest = left if left and setting.sampling == "reshuffling" else setting.batch_size
    of_batches = largest
    if setting.sampling != "with replacement":
        of_batches = min(largest, n / smallest * sharpness)
    certain = sufficient(sharpness, largest, of_batches, p, setting.momentum)
    return certain, 2 * (1 + setting.momentum) / of_batches


def _of_examples(setting: Setting) -> float:
    """The root mean square of the gradients of single examples, by random signs."""
    r = setting.examples.residuals
    bits = torch.randint(2, (len(r), PROBES), generator=random_numbers(0))
    signs = 2 * bits.to(r) - 1
    U = (signs[:, None] * r[:, :, None]).reshape(-1, PROBES)
    sums = ParameterJacobian(setting.problem).T.matmat(U)
    return math.sqrt(float(sums.double().square().sum(0).mean()) / len(r))


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
