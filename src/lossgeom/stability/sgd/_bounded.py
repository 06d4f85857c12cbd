"""A certificate where there are too many outputs for an exact one."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.curvature import ConjugateGaussNewton, GaussNewton, ParameterJacobian
from lossgeom.linalg import random_numbers, top_eigenpairs, trace
from lossgeom.stability.sgd._residual import residual_along
from lossgeom.stability.sgd._setting import Evidence, Setting
from lossgeom.stability.sgd.certificate import SGDCertificate
from lossgeom.stability.sgd.necessary import along_direction

PROBES = 20  # for the length of the gradients of single examples
ERRORS = 4.0  # standard errors that a trace may be smaller


def bounded(setting: Setting, why: str) -> SGDCertificate:
    """Certify SGD by conditions that are necessary, and one that is sufficient."""
    problem, examples, p = setting.problem, setting.examples, setting.p
    G = GaussNewton(problem)
    pairs = top_eigenpairs(G, tol=1e-2, verify=True)
    v = pairs.vectors[:, 0]
    images = ConjugateGaussNewton(problem).factor.matmat(v[:, None])[:, 0].double()
    own = examples.n * images.reshape(examples.n, -1).square().sum(1)
    sharpness = float(own.mean())
    most = float(pairs.values[0] + pairs.residuals[0]) if bool(pairs.converged[0]) else math.inf
    conditions = _conditions(setting, G, own) if sharpness > 0 else {}
    lower = 0.0 if setting.momentum else 2 / (most * _times_sharpness(setting))
    rest = residual_along(problem, v)
    gradient, of_examples = float(problem.gradient().norm()), _of_examples(setting)
    known = rest is not None and p is not None and not setting.momentum
    evidence = Evidence(
        lower=lower,
        upper=min(conditions.values(), default=math.inf),
        true_upper=along_direction(own + rest.to(own), p) if known else math.inf,  # type: ignore[union-attr,arg-type]
        minimum=setting.minimum(gradient, of_examples),
        gradient=gradient / of_examples if of_examples else 0.0,
        residual=None if rest is None else float(rest.norm() / own.norm().clamp(min=1e-300)),
    )
    state, reasons = evidence.verdict(setting.lr)
    return SGDCertificate(
        state=state,
        reasons=tuple(reasons),
        lr=setting.lr,
        batch_size=setting.batch_size,
        momentum=setting.momentum,
        sampling=setting.sampling,
        examples=examples.n,
        lower=evidence.lower,
        upper=evidence.upper,
        smallest_batch=None,
        minimum=evidence.minimum,
        gradient_norm=gradient,
        example_gradient_norm=of_examples,
        residual=evidence.residual,
        sharpness=sharpness,
        bounds=conditions,
        moments={},
        notes=(*setting.notes(), f"bounds instead of a threshold: {why}"),
    )


def _conditions(setting: Setting, G: GaussNewton, own: Float[Tensor, " n"]) -> dict[str, float]:
    """Learning rates that the threshold is at most."""
    if setting.p is None:
        return {}  # the mean of a reshuffled epoch is no power of the mean step
    bounds = {"full batch": 2 * (1 + setting.momentum) / float(own.mean())}
    if setting.momentum:
        return bounds
    bounds["top eigenvector"] = along_direction(own, setting.p)
    total = trace(G)
    least = total.value - ERRORS * (total.stderr or 0.0)
    if setting.p and 0 < least < math.inf:
        bounds[f"trace, less {ERRORS:g} standard errors"] = (
            2 * setting.examples.outputs / (setting.p * least)
        )
    return bounds


def _times_sharpness(setting: Setting) -> float:
    r"""Bound by which multiple of its sharpness H bounds a mean square: E H_b^2 <= m * lambda * H.

    .. math:: E H_b^2 \preceq (1 - p) H^2 + p \max_i \lambda_{\max}(H_i)\, H, \quad
        H_i \preceq n H

    and, for any sampling, no batch has more than n / B times the sharpness.
    """
    n, p = setting.examples.n, setting.p
    least = n % setting.batch_size or setting.batch_size
    of_batches = n / (least if setting.sampling == "reshuffling" else setting.batch_size)
    if setting.sampling == "with replacement":
        of_batches = float(n)
    return of_batches if p is None else min(of_batches, 1 - p + p * n)


def _of_examples(setting: Setting) -> float:
    """The root mean square of the gradients of single examples, by random signs."""
    r = setting.examples.residuals
    bits = torch.randint(2, (len(r), PROBES), generator=random_numbers(0))
    signs = 2 * bits.to(r) - 1
    U = (signs[:, None] * r[:, :, None]).reshape(-1, PROBES)
    sums = ParameterJacobian(setting.problem).T.matmat(U)
    return math.sqrt(float(sums.double().square().sum(0).mean()) / len(r))
