"""Gradients in the parameters of Linear layers that are not multiplied out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.smoothness import _parameter_function
from lossgeom.smoothness._parameter_function import parameter_function
from tests.problems import mlp

x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()


class AlsoOutside(nn.Module):
    """Reads a weight outside of the calls of its layer."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.linear(x)) + F.linear(x, self.linear.weight))


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 3), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x.unflatten(1, (2, 2)))).flatten(1))


class Steps(nn.Module):
    """Calls a layer as often as a sequence is long."""

    def __init__(self):
        super().__init__()
        self.body, self.own, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = x.new_zeros(len(x), 4)
        for part in x.unbind(1):
            h = torch.tanh(self.body(part) + self.own(h))
        return self.head(h)


class OrSets(nn.Module):
    """Takes vectors, or sets of them."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        z = torch.tanh(self.body(x))
        return self.head(z if z.ndim == 2 else z.sum(1))


def without_bias(*widths):
    model = mlp(*widths)
    for layer in model[::2]:
        layer.bias = None
    return model


def zero_head(model):
    for parameter in model.head.parameters():
        nn.init.zeros_(parameter)
    return model


def problem_of(model):
    return lg.Problem(
        model.double(), "squared_error", [(x[:4], torch.zeros(4, 2)), (x[4:], torch.zeros(2, 2))]
    )


def left_out(problem):
    function = parameter_function(problem, "logits", problem.first_batch(), scaled=False)
    return tuple(function.layers), function.others


def values(problem):
    found = lg.sobolev_seminorms(problem, "parameters")
    return [*found.elementwise.values(), *found.euclidean.values()]


@pytest.mark.parametrize(
    ("model", "layers", "others"),
    [
        (mlp(4, 5, 3, 2, activation=nn.ReLU), ("0", "2", "4"), 0),
        (without_bias(4, 5, 2), ("0", "2"), 0),
        (without_bias(4, 2), ("0",), 0),
        (Positions(), ("head",), 9),
    ],
    ids=["mlp", "without bias", "one weight", "positions"],
)
def test_multiplied_out_is_the_same(monkeypatch, model, layers, others):
    problem = problem_of(model)
    assert left_out(problem) == (layers, others)
    found = values(problem)
    monkeypatch.setattr(_parameter_function, "linear_layers", lambda problem: {})
    assert found == pytest.approx(values(problem_of(model)), rel=1e-12)


@pytest.mark.parametrize("model", [AlsoOutside(), zero_head(AlsoOutside())], ids=["", "zero head"])
def test_weights_used_outside_of_their_layers_are_multiplied_out(model):
    problem = problem_of(model)
    assert left_out(problem) == (("head",), 15)
    J = lg.ParameterJacobian(problem).dense()
    expected = (J.square().sum() / 6).sqrt().item()
    assert lg.sobolev_seminorms(problem, "parameters").elementwise[1] == pytest.approx(expected)


def test_a_problem_at_later_parameters():
    model = mlp(4, 5, 2)
    problem = problem_of(model)
    before = values(problem)
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    after = values(problem.refreshed())
    assert after == pytest.approx(values(problem_of(copy.deepcopy(model))), rel=1e-12)
    assert after != pytest.approx(before)


def test_inputs_that_are_not_finite():
    """An infinite input of a layer whose outputs saturate, so that u x^T is no number."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    nn.init.eye_(model[0].weight)
    with_infinity = x.clone()
    with_infinity[5, 0] = torch.inf
    with_infinity[5, 1:] = 0
    model[0].weight.data[1:, 0] = 1
    data = [(with_infinity, torch.zeros(6, 2).double())]
    with pytest.raises(lg.NonFiniteError, match="a gradient of an output is NaN"):
        lg.sobolev_seminorms(lg.Problem(model, "squared_error", data), "parameters")


@pytest.mark.parametrize(
    ("model", "shapes"), [(Steps(), [(4, 1, 3), (4, 3, 3)]), (OrSets(), [(4, 3), (4, 4, 3)])]
)
def test_each_shape_of_batches_is_tried(model, shapes):
    """What is right for one need not be for another."""
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(s, generator=generator).double(), torch.zeros(4, 2)) for s in shapes]
    for batches in (data, data[::-1]):
        problem = lg.Problem(model.double(), "squared_error", batches)
        expected = (lg.ParameterJacobian(problem).dense().square().sum() / 8).sqrt().item()
        found = lg.sobolev_seminorms(problem, "parameters").elementwise[1]
        assert found == pytest.approx(expected)
