"""A minimum at which a network interpolates, and SGD that starts there or ends in another one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lossgeom.curvature import ParameterJacobian
from lossgeom.lab.studies._network import Examples, build_with_signs, in_chunks
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.sgd_stability.config import Config
from lossgeom.lab.training import gradient_descent, sgd
from lossgeom.problem import Problem

INTERPOLATES = 1e-28  # loss: residuals are then rounding errors
MOST_POLISHING = 15  # Gauss-Newton steps
START = 1e-6  # distance from the minimum
LEFT = 1e-3  # distance at which a run has left it
LOOK_EVERY = 50  # steps


def network(run: SeedRun[Config]) -> tuple[nn.Module, Examples]:
    """The network at its initialisation, and the examples, in float64."""
    model, data = build_with_signs(run.study.network, run.seed, centred=False)
    inputs, targets = data.train
    return model.double(), (inputs.double(), targets.double())


def problem_of(run: SeedRun[Config], model: nn.Module, examples: Examples) -> Problem:
    """The squared error of the network where it is now."""
    return Problem(model, "squared_error", in_chunks(examples, run.study.network.chunk))


def polished(problem: Problem) -> Problem:
    """Go on to where the residuals vanish, by Gauss-Newton steps of minimal norm."""
    for _ in range(MOST_POLISHING):
        if problem.loss() <= INTERPOLATES:
            break
        residuals = torch.cat(
            problem.over_batches(
                lambda batch: (problem.outputs(problem.theta, batch) - batch.targets).detach()  # noqa: B023
            )
        )
        J = ParameterJacobian(problem).dense()
        step = torch.linalg.lstsq(J, residuals, driver="gelsd").solution[:, 0]
        problem = problem.at(problem.theta - step)
    return problem


def descended(run: SeedRun[Config]) -> Problem:
    """The minimum that full-batch descent comes to."""
    model, examples = network(run)
    batches = in_chunks(examples, run.study.network.chunk)
    lr, steps = run.study.lr, run.study.descent_steps
    for _ in gradient_descent(model, "squared_error", batches, lr=lr, steps=steps):
        pass
    return polished(problem_of(run, model, examples))


def distance_after(
    run: SeedRun[Config], minimum: Float[Tensor, " P"], lr: float, batch_size: int
) -> float:
    """How far SGD gets from a minimum near which it starts; infinite if it diverges."""
    model, examples = network(run)
    generator = torch.Generator().manual_seed(run.seed)
    away = torch.randn(len(minimum), generator=generator, dtype=minimum.dtype)
    vector_to_parameters(minimum + START * away / away.norm(), model.parameters())
    farthest, step = 0.0, 0
    for step in independent_sgd(run, model, examples, lr, batch_size, run.study.steps):
        if step % LOOK_EVERY == 0 or step == run.study.steps:
            here = (parameters_to_vector(model.parameters()).detach() - minimum).norm().item()
            farthest = max(farthest, here)
    return farthest if step == run.study.steps else math.inf


def independent_sgd(
    run: SeedRun[Config],
    model: nn.Module,
    examples: Examples,
    lr: float,
    batch_size: int,
    steps: int,
) -> Iterator[int]:
    """SGD on batches that are drawn independently of each other, as the theory has them."""
    return sgd(
        model, "squared_error", examples,
        lr=lr, batch_size=batch_size, steps=steps, seed=run.seed, sampling="without replacement",
    )  # fmt: skip
