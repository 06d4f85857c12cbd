"""A certificate where there are too many outputs for an exact one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import ConjugateGaussNewton, GaussNewton, ParameterJacobian
from lossgeom.linalg import SpectralDensity, random_numbers, spectral_density, top_eigenpairs
from lossgeom.stability.sgd._largest import largest_curvature
from lossgeom.stability.sgd._residual import lowest_curvature, residual_along
from lossgeom.stability.sgd._setting import Evidence, Setting
from lossgeom.stability.sgd.bounds import sufficient
from lossgeom.stability.sgd.certificate import SGDCertificate
from lossgeom.stability.sgd.necessary import along_direction, trace_condition

PROBES = 20  # for the trace, and for the length of the gradients of single examples
STEPS = 6  # of each, in the spectrum
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
    lowest = lowest_curvature(problem)
    share, true_upper = setting.left_out(own, residual_along(problem, v))
    gradient, of_examples = float(problem.gradient().norm()), _of_examples(setting)
    evidence = Evidence(
        lower=lower,
        upper=min(conditions.values(), default=math.inf),
        true_upper=true_upper,
        minimum=setting.minimum(gradient, of_examples, sharpness, lowest),
        gradient_norm=gradient,
        example_gradient_norm=of_examples,
        lowest=lowest,
        sharpness=sharpness,
        residual=share,
    )
    state, reasons = evidence.verdict(setting.lr)
    return SGDCertificate(
        state=state,
        reasons=tuple(reasons),
        **setting.settings(),
        **evidence.numbers(),
        smallest_batch=None,
        single_batch=single_batch,
        noise_kernel=_noise_kernel(setting, spectrum),
        bounds=conditions,
        moments={},
        excess_loss=None,
        notes=(*setting.notes(), f"bounds instead of a threshold: {why}"),
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
