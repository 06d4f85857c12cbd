"""Gradients in the input and in what layers are called with, bounded by flatness and by SGD."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lossgeom as lg
from lossgeom.bounds import (
    input_gradient_bounds,
    input_gradients,
    layer_sensitivity,
    network_sensitivity,
    network_volume,
)
from lossgeom.bounds.input_gradients import loss_curvature
from lossgeom.curvature import ParameterJacobian
from lossgeom.lipschitz import Bracket

ROUNDING = 1 + 1e-9
EVERY = "all layers"


def problem_of(model, x, loss="squared_error"):
    with torch.no_grad():
        return lg.Problem(model, loss, [(x, model(x))], check=False)


def network(seed, sizes=(3, 6, 5, 1), bias=True, activation=nn.Tanh):
    generator = torch.Generator().manual_seed(seed)
    layers = list[nn.Module]()
    for D, H in pairwise(sizes):
        layers += [nn.Linear(D, H, bias=bias).double(), activation()]
        for parameter in layers[-2].parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).double() / D**0.5
    x = torch.randn(7, sizes[0], generator=generator).double()
    return nn.Sequential(*layers[:-1]), x


@pytest.mark.quick
def test_numbers_from_both_sides():
    bound = input_gradients(Bracket.between(2, 3), Bracket.between(0.5, 1), Bracket.exactly(4.0))
    assert (bound.value, bound.least) == (pytest.approx(24), pytest.approx(8))
    assert bound.certified
    assert math.isinf(input_gradients(2.0, 0.0, 4.0).value)
    assert math.isinf(input_gradients(2.0, 0.0, 0.0).value)  # no weight sees an input of zero
    assert input_gradients(0.0, 0.0, 4.0).value == 0
    assert [one.status for one in bound.assumptions] == ["declared"]
    ratios = torch.ones(1, 1)
    assert [one.status for one in network_sensitivity(ratios, 1.0).assumptions] == ["declared"]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 3), st.booleans(), st.sampled_from([nn.Tanh, nn.ReLU]))
def test_never_violated(seed, C, bias, activation):
    problem = problem_of(*network(seed, (3, 4, C, C), bias, activation))
    for k in (1, 2):
        measured = lg.sobolev_seminorms(problem, "input", [k]).elementwise[k]
        found = input_gradient_bounds(problem, k)
        assert set(found) == {"first layer", "flatness"}
        assert all(measured <= bound.value * ROUNDING for bound in found.values())
    found = layer_sensitivity(problem)
    assert list(found.sensitivity) == ["0", "2", "4", EVERY]
    for name in found.sensitivity:
        assert found.sensitivity[name] <= found.sensitivity_bounds[name].value * ROUNDING
        assert found.volume[name] <= found.volume_bounds[name].value * ROUNDING


def test_where_they_are_attained():
    """By a linear model on inputs of one length, with rows at right angles: none is too large."""
    W = (
        3
        * torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(0)).double()).Q
    )
    angles = torch.arange(5.0).double()
    x = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    model = nn.Linear(2, 2, bias=False).double()
    model.weight.data = W
    found = layer_sensitivity(problem_of(model, x))
    assert found.volume[EVERY] == pytest.approx(9.0)
    assert found.volume_bounds[EVERY].value == pytest.approx(9.0)
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = W[:1]
    problem = problem_of(model, x)
    found = layer_sensitivity(problem)
    assert found.sensitivity[""] == pytest.approx(found.sensitivity_bounds[""].value, rel=1e-6)
    assert found.volume[""] == found.sensitivity[""] == pytest.approx(3.0)
    assert input_gradient_bounds(problem)["flatness"].value == pytest.approx(3.0)


def test_a_trained_bias_makes_inputs_longer():
    """Of a linear model at one example: |w| = |w| |(x, 1)| / sqrt(|x|^2 + 1)."""
    model, x = network(0, (3, 1))
    found = input_gradient_bounds(problem_of(model, x[:1]))
    length = model[0].weight.detach().norm().item()
    assert found["flatness"].value == pytest.approx(length)
    frozen = model.requires_grad_(requires_grad=True)
    frozen[0].bias.requires_grad_(requires_grad=False)
    assert input_gradient_bounds(problem_of(frozen, x[:1]))["flatness"].value == pytest.approx(
        length
    )
    assert layer_sensitivity(problem_of(model, x[:1])).sensitivity_bounds["0"].value == (
        pytest.approx(length)
    )


@pytest.mark.quick
def test_layers_that_are_called_with_zero():
    """As by units that are dead: no gradients in the weights, and any in what they multiply."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 3.0)
    problem = problem_of(model, torch.zeros(2, 1).double())
    found = layer_sensitivity(problem)
    assert found.sensitivity[EVERY] == pytest.approx(3.0)
    assert math.isinf(found.sensitivity_bounds[EVERY].value)
    assert math.isinf(network_volume(torch.tensor([[math.inf]]), 0.0, 2).value)
    nn.init.zeros_(model.weight)
    nothing = layer_sensitivity(problem_of(model, torch.zeros(2, 1).double()))
    assert nothing.sensitivity_bounds[EVERY].value == 0


@pytest.mark.quick
def test_several_layers_share_the_trace():
    """By Cauchy and Schwarz over layers and examples."""
    ratios = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    assert network_sensitivity(ratios, 9.0).value == pytest.approx(3 * math.sqrt(25 / 2))
    assert network_volume(ratios, 9.0, 1).value == network_sensitivity(ratios, 9.0).value
    assert network_volume(ratios, 9.0, 3).value == pytest.approx(4**3 / 2 * (2 * 9 / 3) ** 1.5)
    sides = Bracket(ratios / 2, ratios)
    bound = network_volume(sides, Bracket.exactly(9.0), 2)
    assert bound.certified
    assert bound.least == pytest.approx(bound.value / 4)
    with pytest.raises(ValueError, match="expected outputs of at least 1"):
        network_volume(ratios, 9.0, 0)


@pytest.mark.quick
def test_one_example_may_have_all_of_the_trace():
    """Why the number of examples is in the bound on volumes: C = 4 with all gradients at one."""
    ratios, trace, C = torch.ones(1, 3), 8.0, 4
    single = (3 * trace / C) ** (C / 2) / 3  # |J|_F^2 = n T at one example, alike in all directions
    assert network_volume(ratios, trace, C).value == pytest.approx(single)


@pytest.mark.usefixtures("unchecked")
def test_layers_that_are_left_out():
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 1)).double()
    problem = problem_of(model, torch.randn(3, 1, 4).double())
    assert list(input_gradient_bounds(problem)) == ["first layer"]
    assert list(layer_sensitivity(problem).sensitivity) == ["2", EVERY]
    with pytest.raises(ValueError, match="expected a Linear layer that maps one vector"):
        layer_sensitivity(problem_of(nn.Conv1d(1, 2, 2), torch.randn(3, 1, 4)))


def test_an_input_of_zero():
    """Where the gradient of w x in w is x = 0, and that in x is w."""
    model = nn.Linear(1, 1, bias=False).double()
    problem = problem_of(model, torch.zeros(1, 1).double())
    assert lg.sobolev_seminorms(problem, "input", [1]).elementwise[1] > 0
    assert all(math.isinf(bound.value) for bound in input_gradient_bounds(problem).values())


def test_layers_that_were_tried_are_told_so():
    problem = problem_of(*network(0))
    found = layer_sensitivity(problem)
    told = [*input_gradient_bounds(problem).values(), *found.sensitivity_bounds.values()]
    told += found.volume_bounds.values()
    assert {one.status for bound in told for one in bound.assumptions} == {"checked"}


def test_float32_is_an_estimate():
    model, x = network(0)
    assert input_gradient_bounds(problem_of(model, x))["flatness"].certified
    problem = problem_of(model.float(), x.float())
    assert not input_gradient_bounds(problem)["flatness"].certified
    assert not layer_sensitivity(problem).sensitivity_bounds[EVERY].certified


@pytest.fixture(scope="module")
def minimum():
    """A network that interpolates, by Gauss-Newton steps."""
    model, x = network(1, (3, 12, 1))
    targets = torch.sin(3 * x[:, :1])
    problem = lg.Problem(model, "squared_error", [(x, targets)], check=False)
    for _ in range(15):
        residuals = (problem.outputs(problem.theta, problem.first_batch()) - targets).detach()
        J = ParameterJacobian(problem).dense()
        step = torch.linalg.lstsq(J, residuals, driver="gelsd").solution[:, 0]
        problem = problem.at(problem.theta - step)
    assert problem.loss() < 1e-20
    return problem


@pytest.mark.parametrize("B", [1, 2, 5, 7])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_what_the_settings_of_sgd_say_at_a_minimum(minimum, B, momentum):
    """Just below the exact threshold, where nothing is proved for a larger learning rate."""
    edge = lg.certify_sgd(minimum, 1e-3, B, momentum).threshold
    sgd = lg.certify_sgd(minimum, 0.99 * edge, B, momentum)
    assert sgd.state == "stable"
    curvatures = lg.example_curvatures(minimum)
    most = lg.bounds.stable_trace(sgd.lr, B, 7, rank=curvatures.rank, momentum=momentum).value
    assert curvatures.trace <= most * ROUNDING
    for k in (1, 2):
        found = input_gradient_bounds(minimum, k, sgd)
        measured = lg.sobolev_seminorms(minimum, "input", [k]).elementwise[k]
        assert measured <= found["SGD"].value
        assert {a.status for a in found["SGD"].assumptions} == {"checked"}
    assert found["SGD"].certified
    if B == 1 and momentum == 0:
        assert curvatures.trace > most / 2  # half of it would be wrong


def test_unstable_settings_say_nothing(minimum):
    sgd = lg.certify_sgd(minimum, 10.0, 1)
    with pytest.raises(ValueError, match=r"expected SGD to be stable at this point.* unstable: "):
        input_gradient_bounds(minimum, sgd=sgd)


def test_units_of_the_loss():
    """MSELoss has the Hessian 2 / C in the outputs, and so is SGD's bound on gradients."""
    model, x = network(3, (3, 8, 2))
    problems = {loss: problem_of(model, x, of) for loss, of in (("half", "squared_error"),
                ("mse", nn.MSELoss()))}  # fmt: skip
    assert loss_curvature(problems["half"]) == loss_curvature(problems["mse"]) == 1  # 2 / C, C = 2
    three = problem_of(*network(3, (3, 8, 3)), nn.MSELoss())
    assert loss_curvature(three) == pytest.approx(2 / 3)
    edge = lg.certify_sgd(three, 1e-4, 1).threshold
    sgd = lg.certify_sgd(three, 0.9 * edge, 1)
    measured = lg.sobolev_seminorms(three, "parameters", [1]).elementwise[1] ** 2 * 2 / 3
    assert measured == pytest.approx(lg.example_curvatures(three).trace)
    assert input_gradient_bounds(three, sgd=sgd)["SGD"].certified
    other = lg.Problem(model, "cross_entropy", [(x, torch.zeros(7).long())], check=False)
    with pytest.raises(ValueError, match="expected a mean squared error"):
        loss_curvature(other)
