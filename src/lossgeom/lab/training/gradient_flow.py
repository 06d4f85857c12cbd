"""Gradient flow: what gradient descent would do with infinitely small steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lossgeom.lab.training._descent import check_lr, follow
from lossgeom.lab.training.objective import Regularizer, objective_of
from lossgeom.losses import LossLike
from lossgeom.quadratic.flow import integrate


def gradient_flow(
    model: nn.Module,
    loss: LossLike,
    batches: Iterable[Any] | Callable[[int], Iterable[Any]],
    *,
    lr: float,
    steps: int,
    first: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    method: str = "RK45",
    regularizers: Sequence[Regularizer] = (),
    seed: int = 0,
) -> Iterator[int]:
    r"""Train in place with :math:`d\theta/dt = -\nabla L(\theta)`, for a time of lr in every step.

    An adaptive integrator chooses its own steps within each of these, so that after as many of them
    the model is where gradient descent of that learning rate would be if its steps were small.

    Yields ``first, ..., steps`` as :func:`lossgeom.lab.training.gradient_descent` does. With a
    smooth loss that is bounded from below it never diverges.

    Cost: for each step 8 gradients or more, about as many as 2 lr times the sharpness if that is
    larger, and many where a ReLU turns on or off. In float32 numbers are too rough for a rtol
    below 1e-5.

    Args:
        model: trained in place, in the mode that it is in.
        loss: as for :class:`lossgeom.Problem`.
        batches: as for :func:`optimize`; a step flows on its own.
        lr: the time that a step takes.
        steps: how many steps the model has taken in the end.
        first: how many it has taken already.
        rtol: relative tolerance of the parameters, for each step of the integrator.
        atol: absolute tolerance.
        method: of ``scipy.integrate.solve_ivp``.
        regularizers: what changes the loss, in this order; not one with a state, whose value would
            depend on where the integrator has been.
        seed: of what they draw.

    Raises:
        FlowError: if the integrator fails.
        ImportError: without SciPy.
        ValueError: if lr is not positive or steps is less than first.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993).

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 8.0)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> flow = gradient_flow(model, "squared_error", data, lr=0.5, steps=2)
    >>> [round(model.weight.item(), 3) for _ in flow]  # 8 exp(-t)
    [8.0, 4.852, 2.943]
    """
    check_lr(lr)
    objective = objective_of(model, loss, batches, regularizers, seed)

    def move(step: int, gradients: list[Tensor]) -> None:  # noqa: ARG001
        def velocity(theta: Tensor) -> Tensor:
            vector_to_parameters(theta, objective.parameters)
            return -parameters_to_vector(objective.gradient_at(step))

        start = parameters_to_vector(objective.parameters).detach()
        times = torch.tensor([lr], dtype=torch.float64)
        found = integrate(velocity, start, times, rtol=rtol, atol=atol, method=method)
        vector_to_parameters(found[-1], objective.parameters)

    return follow(objective.gradient_at, move, steps=steps, first=first)
