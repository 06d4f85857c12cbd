"""What two processes that share the data measure is what one with all of it does, or an error."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import lossgeom as lg
from lossgeom import bounds, quadratic, smoothness, stability
from lossgeom.metrics import METRICS, STEP_METRICS, Step
from tests.contracts.test_ranks import problem

LR = 0.1
ROOMS = (lg, bounds, quadratic, smoothness, stability)
OTHERS = {"measure", "watch"}  # which have tests of their own
ALONE = {
    "example_curvatures", "certify_sgd", "network", "taylor", "top_mode", "compare",
    "layer_summands", "layer_eigenpairs", "layer_structure",
}  # fmt: skip
OF_ALONE = {"compare_with_taylor", "pac_bayes"}  # which take what only those make


def along(problem: lg.Problem) -> dict[str, tuple[Any, ...]]:
    """What functions take beside a problem."""
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=LR)
    update = -LR * problem.gradient()
    by_radius = ["lipschitz_local", "jacobian_lipschitz", "local_variation", "logit_change"]
    by_radius += ["local_variation_lower", "local_variation_upper"]
    by_update = ["critical_step", "realised_edge", "update_curvature", "noise_along"]
    by_optimizer = ["preconditioner", "effective_sharpness", "optimizer_state"]
    return {
        **dict.fromkeys(by_radius, (0.1,)),
        **dict.fromkeys(by_update, (update,)),
        **dict.fromkeys(by_optimizer, (optimizer,)),
        "critical_sharpness": (update, LR),
        "edge_factors": (update, 1.0, lg.Hessian(problem), 1.0, 2 / LR),
        "certify_sgd": (LR, 10),
        "robustness": ([0.1, 0.5],),
    }


def functions() -> dict[str, Callable[..., Any]]:
    """The public functions of a problem that are no classes."""
    found = {}
    for room in ROOMS:
        for name in getattr(room, "__all__", vars(room)):
            thing = getattr(room, name)
            if inspect.isfunction(thing) and "problem" in inspect.signature(thing).parameters:
                found[name] = thing
    return {name: f for name, f in found.items() if name not in OTHERS | OF_ALONE}


def numbers(value: Any) -> list[float]:
    """All numbers in a result."""
    if isinstance(value, torch.Tensor):
        return value.double().flatten().tolist()
    if dataclasses.is_dataclass(value):
        return numbers([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, (bool, int, float)) else []


def results(alone: bool = False) -> dict[str, list[float] | str]:
    """The numbers of all that is measured of a problem and of a step, or what is said instead."""
    here = problem(None if alone else lg.ranks(), check=False)
    given, gradient = along(here), here.gradient()
    state = stability.optimizer_state(here, *given["optimizer_state"])
    asked: dict[str, Callable[[], Any]] = {
        **{name: lambda f=f, n=name: f(here, *given.get(n, ())) for name, f in functions().items()},
        **{metric().name: lambda metric=metric: metric()(here) for metric in METRICS},
        **{
            f"{metric().name} of a step": lambda metric=metric: metric().of_step(
                Step(here, -LR * gradient, state, gradient)
            )
            for metric in STEP_METRICS
        },
        "in parameters": lambda: lg.sobolev_seminorms(here, "parameters"),
        "first examples": lambda: here.take(10).loss(),
    }
    found: dict[str, list[float] | str] = {}
    for name in asked.keys() - (ALONE if alone else set()):
        try:
            found[name] = numbers(asked[name]())
        except (lg.UndefinedError, ValueError) as error:
            found[name] = str(error)
    return found


def test_all_that_is_measured_is_that_of_one_process_or_refused(on_two):
    expected = results(alone=True)
    for found in on_two(results):
        refused = {name for name, said in found.items() if "measured on one process" in said}
        assert refused == ALONE
        for name in expected.keys() - {"largest_jacobian_norm"}:
            said = isinstance(expected[name], str)  # that it is not defined here
            close = expected[name] if said else pytest.approx(expected[name], rel=1e-9, abs=1e-12)
            assert found[name] == close, name
        # more examples are pruned where the first ones are larger
        assert found["largest_jacobian_norm"][:3] == expected["largest_jacobian_norm"][:3]
