"""The live model's parameters, in the order of theta."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.problem.live import flat_gradient, live_parameters, live_theta
from tests.problems import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_are_those_that_theta_was_copied_from(case):
    problem = case.problem()
    assert torch.equal(live_theta(problem), problem.theta)
    shapes = [p.shape for p in live_parameters(problem)]
    assert shapes == list(problem.network.shapes)


@pytest.mark.quick
@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        nn.DataParallel,
        lambda model: model.to(torch.bfloat16),
    ],
    ids=["compiled", "data parallel", "bfloat16"],
)
def test_in_wrappers_and_other_types(wrap):
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model = wrap(inner)
    problem = lg.Problem(model, "squared_error", [(torch.ones(2, 2), torch.ones(2, 1))])
    with torch.no_grad():
        inner[0].bias.add_(1.0)
    change = live_theta(problem) - problem.theta
    assert change.dtype == torch.float32
    assert torch.allclose(change, torch.tensor([0.0] * 6 + [1.0] * 3 + [0.0] * 4), atol=0.02)


def test_a_gradient_is_zero_where_there_is_none():
    model = nn.Linear(2, 1)
    problem = lg.Problem(model, "squared_error", [(torch.ones(2, 2), torch.ones(2, 1))])
    found = flat_gradient(problem, {id(model.weight): torch.tensor([[1.0, 2.0]])})
    assert found.tolist() == [1.0, 2.0, 0.0]
