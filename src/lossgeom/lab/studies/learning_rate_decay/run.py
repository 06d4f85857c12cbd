"""Training by a schedule, and what bounds say of where it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossgeom.bounds import input_gradient_bounds, stable_trace
from lossgeom.estimate import Estimate
from lossgeom.lab.studies._network import build, build_with_indicators, on_first
from lossgeom.lab.studies._solution import JACOBIAN, solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.learning_rate_decay.config import CONSTANT, MOMENTUM, SQUARED, Config
from lossgeom.metrics import Metric, ParameterJacobianNorm
from lossgeom.problem import Problem
from lossgeom.recording.record import Record
from lossgeom.smoothness import sobolev_seminorms

PARAMETER_JACOBIAN = ParameterJacobianNorm(over="mean")


@dataclass(frozen=True)
class OnFirst:
    """A metric: another one, of so many examples at most, which are the first; 0 for all."""

    metric: Metric
    most: int
    examples: int

    @property
    def name(self) -> str:
        """That of the other one."""
        return self.metric.name

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return self.metric(on_first(problem, self.most, self.examples))


TRACE, PROMISED_TRACE = "gauss_newton_trace", "promised_trace"
G_X, PROMISED_G_X = "g_x", "promised_g_x"


def run(run: SeedRun[Config], record: Record) -> None:
    """Train and measure, along training and at the end."""
    study = run.study
    squared = run.place["objective"] == SQUARED
    model, data = (
        build_with_indicators(study.network, run.seed, centred=True)
        if squared
        else build(study.network, run.seed)
    )
    recipe = study.recipe(**run.place)
    lr = recipe.lr * (1 if run.place["schedule"] in CONSTANT else study.decay)  # at the end

    examples = study.network.examples
    there = min(study.measured_on or examples, examples)
    parameter_jacobian = OnFirst(PARAMETER_JACOBIAN, study.parameter_jacobians, there)

    def promises(problem: Problem) -> list[dict[str, float]]:
        some = on_first(problem, study.measured_on, examples).in_mode("eval")
        return [promised(some, lr, study)] if squared else []

    solve(
        recipe, model, data, record, seed=run.seed, chunk=study.network.chunk,
        every=study.every, measured_on=study.measured_on,
        loss="squared_error" if squared else "cross_entropy",
        along=(JACOBIAN, parameter_jacobian), further=promises,
    )  # fmt: skip


def promised(problem: Problem, lr: float, study: Config) -> dict[str, float]:
    """The trace of the Gauss-Newton matrix and g_x, and what lr and batch size say of them.

    Of other models than the mlp, whose gradients in millions of parameters take long, that is only
    what is said of the trace, and g_x.
    """
    outputs = problem.outputs(problem.theta, problem.first_batch()).shape[1]
    trace = stable_trace(
        lr, study.batch_size, study.network.examples, outputs=outputs, momentum=MOMENTUM
    ).value
    found = {PROMISED_TRACE: trace, G_X: sobolev_seminorms(problem, "input", [1]).elementwise[1]}
    if study.network.model == "mlp":
        g_w = sobolev_seminorms(problem, "parameters", [1]).elementwise[1]
        by_flatness = input_gradient_bounds(problem)["flatness"].value
        found |= {TRACE: g_w**2, PROMISED_G_X: by_flatness * math.sqrt(trace) / g_w}
    return found
