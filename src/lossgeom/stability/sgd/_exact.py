"""A certificate from the curvatures of all examples."""

from __future__ import annotations

import math

from lossgeom.stability.sgd._residual import lowest_curvature, residual_along
from lossgeom.stability.sgd._setting import Evidence, Setting
from lossgeom.stability.sgd.bounds import certainly_stable, largest_batch_sharpness
from lossgeom.stability.sgd.certificate import SGDCertificate
from lossgeom.stability.sgd.examples import ExampleCurvatures
from lossgeom.stability.sgd.mean_square import mean_square_threshold
from lossgeom.stability.sgd.moments import can_enumerate, moment_threshold
from lossgeom.stability.sgd.momentum import noise_gain
from lossgeom.stability.sgd.necessary import necessary_conditions, noise_kernel
from lossgeom.stability.sgd.reshuffling import can_enumerate_epochs
from lossgeom.stability.sgd.sampling import smallest_batch
from lossgeom.stability.sgd.stationary import stationary_state

OUTSIDE = 1e-2  # of a gradient: what is in directions without curvature, and no rounding


def exact(setting: Setting, curvatures: ExampleCurvatures) -> SGDCertificate:
    """Certify SGD with what is known of all examples."""
    lower, upper, notes = _bracket(setting, curvatures)
    of_examples = float(curvatures.gradient_norms.square().mean().sqrt())
    residual, true_upper = _left_out(setting, curvatures)
    evidence = Evidence(
        setting=setting,
        lower=lower,
        upper=upper,
        true_upper=true_upper,
        gradient_norm=curvatures.mean_gradient,
        example_gradient_norm=of_examples,
        lowest=lowest_curvature(setting.problem, curvatures.sharpness),
        sharpness=curvatures.sharpness,
        residual=residual,
    )
    walk = _on_random_walk(curvatures, of_examples)
    p, settles = setting.p, (evidence.verdict[0], evidence.minimum) == ("stable", "regular")
    return evidence.certificate(
        [*notes, *(walk if evidence.minimum == "regular" else [])],
        smallest_batch=_smallest_batch(setting, curvatures),
        single_batch=_single_batch(setting, curvatures),
        noise_kernel=_noise_kernel(setting, curvatures),
        bounds={} if p is None else necessary_conditions(curvatures, p, setting.momentum),
        moments=_moments(setting, curvatures, lower),
        excess_loss=_excess_loss(setting, curvatures) if settles else None,
    )


NEARBY = (
    "there are too many orders of an epoch to be enumerated; for independent batches without "
    "replacement the threshold would be {0:.6g}, which reshuffled epochs of equal batches exceeded "
    "wherever both were known"
)


def _bracket(setting: Setting, curvatures: ExampleCurvatures) -> tuple[float, float, list[str]]:
    """Learning rates up to which steps are stable, and from which on they are not, with notes."""
    settings = setting.batch_size, setting.momentum
    if setting.sampling != "reshuffling" or can_enumerate_epochs(curvatures, *settings):
        threshold = mean_square_threshold(curvatures, *settings, setting.sampling)
        return threshold, threshold, []
    near = mean_square_threshold(curvatures, *settings)
    if setting.momentum:
        return 0.0, math.inf, [NEARBY.format(near)]
    certain = certainly_stable(curvatures, setting.batch_size, None, "reshuffling")
    return certain, math.inf, [NEARBY.format(near)]


def _left_out(setting: Setting, curvatures: ExampleCurvatures) -> tuple[float | None, float]:
    """The share of what Gauss-Newton leaves out, and what is stable at most with all curvature."""
    if not curvatures.rank:
        return 0.0, math.inf
    problem = setting.problem
    rest = residual_along(problem, curvatures.top.to(problem.theta))
    return setting.left_out(curvatures.along_top, rest)


def _single_batch(setting: Setting, curvatures: ExampleCurvatures) -> float:
    if not curvatures.rank:
        return math.inf
    worst, _ = largest_batch_sharpness(curvatures, setting.batch_size, setting.sampling)
    return 2 * (1 + setting.momentum) / worst


def _smallest_batch(setting: Setting, curvatures: ExampleCurvatures) -> int | None:
    if setting.sampling == "reshuffling":
        return None
    gain = noise_gain(curvatures, setting.lr, setting.momentum)
    if gain == 0:
        return 1
    return smallest_batch(curvatures.n, 1 / gain, setting.sampling) if gain < math.inf else None


def _noise_kernel(setting: Setting, curvatures: ExampleCurvatures) -> float | None:
    if setting.p is None or setting.momentum:
        return None
    return noise_kernel(curvatures.values, setting.lr, setting.p)


def _excess_loss(setting: Setting, curvatures: ExampleCurvatures) -> float | None:
    """How far above its minimum the loss settles, where that is known."""
    if setting.p is None or setting.momentum:
        return None
    try:
        state = stationary_state(curvatures, setting.lr, setting.batch_size, setting.sampling)
    except ArithmeticError:  # just below the threshold
        return None
    return state.excess_loss


def _moments(setting: Setting, curvatures: ExampleCurvatures, second: float) -> dict[int, float]:
    """The thresholds of moments: of the first two, and of those that can be enumerated."""
    if setting.sampling == "reshuffling" or setting.momentum or not curvatures.rank:
        return {}
    at = setting.batch_size, setting.sampling
    further = {
        order: moment_threshold(curvatures, at[0], order, at[1])
        for order in (3, 4)
        if can_enumerate(curvatures, at[0], order, at[1])
    }
    return {1: 2 / curvatures.sharpness, 2: second, **further}


def _on_random_walk(curvatures: ExampleCurvatures, of_examples: float) -> list[str]:
    inside = float(curvatures.gradients.square().sum(1).mean())
    outside = math.sqrt(max(of_examples**2 - inside, 0.0))
    if outside <= OUTSIDE * of_examples:
        return []
    return [
        f"in directions without curvature the gradients of single examples are {outside:.2g}, root "
        "mean square; there SGD drifts at random, which no learning rate keeps bounded"
    ]
