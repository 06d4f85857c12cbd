"""What every metric of a step must do."""

import typing

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim import SGD

import lossgeom as lg
from lossgeom.metrics import STEP_METRICS, InMode, Memory, Sharpness
from lossgeom.metrics.step import Step, StepMetric
from lossgeom.stability import optimizer_state
from tests import reference
from tests.contracts.test_metrics import described, settings_of
from tests.problems import CASES, Case

NAMES = ("two_paths", "batchnorm_train", "squared_error")
NOT_EVERYWHERE = {"PlateauGap"}  # where there are several batches and the sharpness is rising
KNOWN = [case for case in CASES if case.name in NAMES]
EVERY = pytest.mark.parametrize("metric", STEP_METRICS, ids=lambda metric: metric.__name__)
TRACKED = Sharpness(tracked=True, tol=0.1)
LR = 0.1


def step_of(case: Case, memory: dict | None = None, shift: float = 0.0) -> Step:
    """A step of gradient descent, with momentum that the optimiser has not begun to use."""
    problem = case.problem()
    problem = problem.at(problem.theta + shift)
    optimizer = SGD(case.model.parameters(), lr=LR)
    gradient = problem.gradient()
    state = optimizer_state(problem, optimizer)
    return Step(problem, -LR * gradient, state, gradient, {} if memory is None else memory)


@EVERY
def test_it_says_what_it_costs_and_what_it_cannot_tell(metric):
    """In its own docstring, or that of the function that it refers to."""
    text = described(metric)
    assert "Cost" in text
    assert "cannot tell" in text


def estimate_of(metric: type[StepMetric], step: Step) -> lg.Estimate | None:
    """What it measures, or None where it is not defined, for metrics that are not everywhere."""
    try:
        return metric().of_step(step)
    except lg.UndefinedError:
        if metric.__name__ not in NOT_EVERYWHERE:
            raise
        return None


@EVERY
def test_gives_an_estimate_the_same_bits_again_and_leaves_no_trace(metric, unchecked):
    found = []
    for case in KNOWN:
        before = reference.fingerprint(case.model)
        first, second = (estimate_of(metric, step_of(case)) for _ in range(2))
        assert reference.fingerprint(case.model) == before
        assert first == second
        found += [] if first is None else [first]
    assert len(found) == len(KNOWN) or metric.__name__ in NOT_EVERYWHERE
    assert found
    for estimate in found:
        assert isinstance(estimate, lg.Estimate)
        assert isinstance(estimate.value, float)
        assert estimate.status == "ok"


@EVERY
def test_what_is_remembered_does_not_change_the_value(metric):
    """It is about the same from the memory of a step near by as from none."""
    for case in KNOWN:
        memory = {}
        estimate_of(metric, step_of(case, memory, shift=0.001))
        cold, warm = (estimate_of(metric, step_of(case, known)) for known in ({}, memory))
        if cold is not None:
            assert warm.value == pytest.approx(cold.value, rel=0.01)
            return
    pytest.fail("it is defined nowhere")


def through_a_file(memory: Memory) -> Memory:
    """What a run that goes on from a checkpoint reads there."""
    later = Memory()
    later.load_state_dict(safetensors.torch.load(safetensors.torch.save(memory.state_dict())))
    return later


@pytest.mark.parametrize(
    "metric", [*(kind() for kind in STEP_METRICS), TRACKED, InMode(TRACKED, "train")], ids=repr
)
def test_what_is_remembered_goes_through_a_checkpoint(metric):
    """A run that goes on from one measures the same bits."""
    case = next(case for case in KNOWN if case.name == "two_paths")
    steps = 8 if "tracked=True" in repr(metric) else 3  # to predict, it needs to have measured

    def values(memory: Memory, stopped_at: tuple[int, ...]) -> list[lg.Estimate | str]:
        found = []
        for i in range(steps):
            memory = through_a_file(memory) if i in stopped_at else memory
            try:
                found.append(metric.of_step(step_of(case, memory, shift=0.001 * i)))
            except lg.UndefinedError as error:
                found.append(str(error))
        return found

    kept = Memory()
    straight = values(kept, stopped_at=())
    assert not kept or values(Memory(), stopped_at=(2, 7)) == straight


@pytest.mark.quick
def test_what_no_checkpoint_can_hold(unchecked):
    with pytest.raises(TypeError, match=r"numbers, text, tensors, and tuples.*; got a Linear"):
        Memory(layer=nn.Linear(1, 1)).state_dict()


@EVERY
def test_no_number_is_made_of_nan(metric):
    model = nn.Linear(2, 2)
    model.weight.data.fill_(float("nan"))
    data = [(torch.ones(2, 2), torch.tensor([0, 1]))]
    problem = lg.Problem(model, "cross_entropy", data)
    state = optimizer_state(problem, SGD(model.parameters(), lr=LR))
    with pytest.raises(lg.NonFiniteError):
        metric().of_step(Step(problem, torch.ones(6), state, torch.ones(6)))


@EVERY
def test_bad_settings_raise(metric, unchecked):
    """A choice that there is not when it is made, a negative number at the latest when used."""
    for name, kind in settings_of(metric).items():
        if typing.get_origin(kind) is typing.Literal:
            with pytest.raises(ValueError, match=f"expected {name} to be one of"):
                metric(**{name: "no such choice"})
        elif kind in (int, float):
            with pytest.raises(ValueError, match=r"expected .*(>=|<|at least)"):
                metric(**{name: -1}).of_step(step_of(KNOWN[0]))
