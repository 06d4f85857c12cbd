"""Gradient flow: what gradient descent would do with infinitely small steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least
from lossgeom.messages.extras import required
from lossgeom.quadratic.model import Ensemble, Model
from lossgeom.quadratic.point import Loss, slope
from lossgeom.quadratic.trajectory import (
    Observable,
    Trajectory,
    joined,
    largest_ntk_eigenvalues,
)


class FlowError(RuntimeError):
    """The integrator has given up."""


def gradient_flow(
    models: Ensemble,
    times: Sequence[float],
    *,
    loss: Loss | None = None,
    observe: Mapping[str, Observable] | None = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
    method: str = "DOP853",
) -> Trajectory:
    r"""Gradient flow from theta = 0, by an adaptive integrator.

    .. math:: \frac{d\theta}{dt} = -J(\theta)^\top \frac{\partial L}{\partial z}

    for squares :math:`\dot z = -J J^\top z` and :math:`\dot J = -Q(J^\top z, \cdot)`. Integrating
    the parameters keeps z and J consistent with each other to rounding, whatever the tolerance: the
    invariants of the model are exact. Time t of descent with a learning rate is t / learning rate
    steps. Each run has its own step sizes.

    Cost: for each step of the integrator several evaluations of the model; more if stiff, where
    ``method="LSODA"`` may help.

    Args:
        models: any model.
        times: increasing, from 0 or later, at which to record.
        loss: from outputs (R, D) to one loss (R,) for each run; by default the model's own.
        observe: what to record besides the loss; by default the largest eigenvalue of J J^T.
        rtol: relative tolerance of theta, for each step.
        atol: absolute tolerance of theta.
        method: of ``scipy.integrate.solve_ivp``.

    Returns:
        What was recorded, with times for steps, and the final ``"z"`` and ``"theta"``.

    Raises:
        FlowError: if the integrator fails; flow on a squared error never diverges.
        ImportError: without SciPy.
        ValueError: if times are not increasing or negative, or there is no run.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993), for the
    integrator.

    >>> from lossgeom.quadratic import Dense, QuadraticModel
    >>> y, G = torch.tensor([[-1.0]]).double(), torch.tensor([[[2.0]]]).double()
    >>> model = QuadraticModel(y, G, Dense(0 * G))
    >>> round(gradient_flow(model, [0.5]).final["z"].item(), 6)  # -exp(-2)
    -0.135335
    """
    at = torch.tensor(list(times), dtype=torch.float64)
    if not len(at) or at[0] < 0 or not bool((at.diff() > 0).all()) or not bool(at.isfinite().all()):
        raise ValueError(f"expected times that increase from 0 or later, got {list(times)}")
    check_at_least(1, runs=models.runs)
    observe = {"ntk": largest_ntk_eigenvalues} if observe is None else observe
    options = {"rtol": rtol, "atol": atol, "method": method}
    with torch.no_grad():
        singles = (models.rows(slice(i, i + 1)) for i in range(models.runs))
        return joined([_flow(model, at, loss or model.loss, observe, options) for model in singles])


def _flow(
    model: Model, times: Tensor, loss: Loss, observe: Mapping[str, Observable], options: Any
) -> Trajectory:
    thetas = _integrate(model, times, loss, options)
    points = [model.at(theta) for theta in thetas]
    found = {"loss": [loss(point.z) for point in points]}
    found |= {name: [look(point) for point in points] for name, look in observe.items()}
    recorded = {name: torch.stack(values) for name, values in found.items()}
    never = torch.full((1,), -1)
    final = {"z": points[-1].z, "theta": thetas[-1]}
    return Trajectory(times, recorded, never, never, final)


def _integrate(model: Model, times: Tensor, loss: Loss, options: Any) -> Float[Tensor, "S 1 P"]:
    def velocity(theta: Tensor) -> Tensor:
        point = model.at(theta[None])
        return -point.pullback(slope(loss, point.z))[0]

    return integrate(velocity, model.origin[0], times, **options)[:, None]


def integrate(
    velocity: Callable[[Tensor], Tensor], start: Float[Tensor, " P"], times: Tensor, **options: Any
) -> Float[Tensor, "S P"]:
    """Follow a velocity, a function of where one is, from time 0.

    Args:
        velocity: from the place (P,) to how it moves (P,).
        start: the place at time 0.
        times: increasing, from 0 or later.
        **options: of ``scipy.integrate.solve_ivp``, which computes in float64.

    Raises:
        FlowError: if the integrator fails.
        ImportError: without SciPy.

    >>> times = torch.tensor([0.0, 1.0])
    >>> integrate(lambda x: -x, torch.ones(1), times, rtol=1e-6).flatten()
    tensor([1.0000, 0.3679])
    """
    if not times[-1]:  # which solve_ivp cannot do
        return start[None]

    def rate(_: float, place: Any) -> Any:
        return velocity(torch.as_tensor(place).to(start)).double().cpu().numpy()

    solve = required("scipy.integrate").solve_ivp
    found = solve(
        rate, (0.0, times[-1].item()), start.double().cpu().numpy(),
        t_eval=times.numpy(), **options,
    )  # fmt: skip
    if not found.success:
        raise FlowError(f"the integrator stopped: {found.message}; try another method")
    return torch.as_tensor(found.y.T).to(start)
