"""Layers that are used in other ways than by one call, which of them have rows, and errors."""

from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature import left_out
from lossgeom.curvature.layer_rows import Curvature
from tests.curvature.test_layer_rows import blocks_of
from tests.problems import mlp


class Net(nn.Module):
    """A layer, and a head; what is in between is a function of the layer and its input."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.layer = nn.Linear(4, 4) if layer is None else layer
        self.head = nn.Linear(4, 3)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.layer, x))


def problem_of(model, *shape, examples=4):
    data = [(torch.randn(n, *shape).double(), torch.zeros(n).long()) for n in (examples, 2)]
    return lg.Problem(model.double(), "cross_entropy", data)


class Shared(nn.Module):
    """Two layers with the same parameters."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()))


RIGHT = {
    "called twice": lambda: (Net(lambda f, x: f(f(x).tanh())), (4,)),
    "called on two lengths": lambda: (Net(lambda f, x: f(f(x).tanh().mean(1))), (3, 4)),
    "shared": lambda: (Shared(), (4,)),
    "flattened": lambda: (Net(lambda f, x: f(x.flatten(0, 1)).view(x.shape).sum(1)), (3, 4)),
    "by keyword": lambda: (Net(lambda f, x: f(input=x).tanh()), (4,)),
    "output changed": lambda: (Net(lambda f, x: f(x).add_(1).tanh_()), (4,)),
    "without an effect": lambda: (Net(lambda f, x: f(x).sign()), (4,)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_layers_that_are_used_in_other_ways(name):
    """Several calls, and modules with the same parameters, have the positions of all calls."""
    model, shape = RIGHT[name]()
    problem = problem_of(model, *shape)
    found = blocks_of(problem, bias=True)
    assert [parameter for layer in found for parameter in layer.parameters] == list(
        problem.network.names
    )
    for layer, block in found.items():
        expected = lg.GaussNewton(problem.with_parameters(list(layer.parameters))).dense()
        torch.testing.assert_close(block, expected)
    assert not left_out(problem)
    assert not problem.notes


ROWS = "not called with rows of the examples"
LEFT_OUT = {
    ROWS: lambda: (
        Net(lambda f, x: torch.stack([f(one) for one in x])),
        (4,),
    ),
    "its parameters act outside of its calls, too": lambda: (
        Net(lambda f, x: f(x) + x @ f.weight),
        (4,),
    ),
    "what it does for an example depends on others": lambda: (
        Net(lambda f, x: f(x.transpose(0, 1)).sum(0)),
        (4, 4),
    ),
    "Bilinear is neither linear nor a convolution": lambda: (
        Net(lambda f, x: f(x, x), nn.Bilinear(4, 4, 4)),
        (4,),
    ),
    "a convolution in groups": lambda: (
        Net(lambda f, x: f(x[..., None])[..., 0], nn.Conv1d(4, 4, 1, groups=2)),
        (4,),
    ),
    "its weight is held fixed, or made of others": lambda: (
        Net(lambda f, x: f(x), nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))),
        (4,),
    ),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_is_left_out_is_named(reason):
    model, shape = LEFT_OUT[reason]()
    problem = problem_of(model, *shape)
    found = lg.kronecker_factors(problem)
    assert [own.name for own in found] == ["head"]
    assert reason in left_out(problem)["layer"]
    assert any(reason in note and "(layer" in note for note in problem.notes)


def test_a_layer_that_is_not_called_and_convolutions_of_one_example():
    not_called = Net(lambda f, x: x @ f.weight)
    each = Net(lambda f, x: torch.stack([f(one[:, None])[:, 0] for one in x]), nn.Conv1d(4, 4, 1))
    for model in (not_called, each):
        assert left_out(problem_of(model, 4)) == {"layer": ROWS}


def test_reasons_are_said_once():
    model = mlp(4, 4, 4, 4, 4, 4, 3, norm=True)
    problem = problem_of(model, 4)
    lg.kronecker_factors(problem)
    said = "layer by layer: BatchNorm1d is neither linear nor a convolution (1, 4, 7, ...)"
    assert problem.notes[-1].endswith(said)


def test_a_layer_that_acts_in_some_batches_only():
    def sometimes(layer, x):
        return layer(x) if len(x) > 2 else x

    with pytest.raises(ValueError, match=r"the same layers .* batch 1 .* not called .* \(layer\)"):
        lg.kronecker_factors(problem_of(Net(sometimes), 4))


def test_batches_of_one_example_among_others():
    """Along which dimension the examples lie does not show in them."""
    problem = problem_of(Net(lambda f, x: f(x.transpose(0, 1)).mean(0)), 3, 4)
    assert list(left_out(problem)) == ["layer"]
    one = torch.ones(1, 3, 4).double(), torch.zeros(1).long()
    single = lg.Problem(problem.model, "cross_entropy", [*problem.batches, one])
    with pytest.raises(ValueError, match=r"Put a batch of one example.* problem.with_parameters"):
        lg.kronecker_factors(single)
    head = lg.kronecker_factors(single.with_parameters("head.*"))
    assert [own.name for own in head] == ["head"]


@pytest.mark.parametrize("curvature", get_args(Curvature))
def test_examples_that_are_mixed_in_large_batches_only(curvature):
    def mixed(layer, x):
        hidden = layer(x)
        return hidden + (hidden.mean(0) if len(x) > 4 else 0)

    x = torch.randn(8, 4).double()
    problem = lg.Problem(Net(mixed).double(), "cross_entropy", [(x, torch.zeros(8).long())])
    factors = lg.kronecker_factors(problem, curvature=curvature)
    assert [own.name for own in factors] == ["head"]
    assert list(left_out(problem)) == ["layer"]


@pytest.mark.parametrize("last", [1, 2])  # rows that would be, and would not be, three an example
def test_packed_rows_of_examples_of_different_lengths(last):
    """The first four examples are of one length, and others that follow are not."""

    def packed(layer, x):
        full = x.abs().sum(-1) > 0
        hidden = torch.zeros_like(x)
        hidden[full] = layer(x[full]).tanh()
        return hidden.sum(1)

    x = torch.randn(8, 4, 4).double()
    for one, length in zip(x[4:], (2, 2, 3, last), strict=True):
        one[length:] = 0
    full, whole = ([(part, torch.zeros(len(part)).long())] for part in (x[:4], x))
    problem = lg.Problem(Net(packed).double(), "cross_entropy", full)
    assert not left_out(problem)
    problem = lg.Problem(problem.model, "cross_entropy", whole)
    assert [own.name for own in lg.kronecker_factors(problem)] == ["head"]
    assert list(left_out(problem)) == ["layer"]


def test_a_layer_that_gets_no_rows():
    """In the first four examples, or in a batch of more of them."""

    def for_up_to(most, layer, x):
        return layer(x) if len(x) <= most else x + layer(x[:0]).sum()

    for most, reasons in ((0, {"layer": ROWS}), (4, {"layer": ROWS}), (6, {})):
        problem = problem_of(Net(partial(for_up_to, most)), 4, examples=6)
        assert left_out(problem) == reasons


# Errors


@pytest.mark.parametrize("measure", [lg.kronecker_factors, lg.layer_eigenpairs])
def test_what_is_not_finite_is_said(measure):
    """In a weight, or in an example that is not among the first ones, and no longer after it."""
    problem = problem_of(Net(lambda f, x: f(x).tanh()), 4, examples=6)
    problem.batches[0][0][5] = torch.nan
    with pytest.raises(lg.NonFiniteError):
        measure(problem)
    problem = problem_of(problem.model, 4)
    theta = problem.theta.clone()
    theta[0] = torch.nan
    with pytest.raises(lg.NonFiniteError):
        measure(problem.at(theta))
    assert len(measure(problem)) == 2


def test_numbers_that_are_no_settings():
    problem = problem_of(nn.Linear(4, 3), 4)
    for settings, said in (({"samples": 0}, "samples of at least 1"), ({"seed": -1}, "seed of at")):
        with pytest.raises(ValueError, match=said):
            lg.kronecker_factors(problem, **settings)
    with pytest.raises(TypeError, match=r"expected samples to be a whole number, got 1\.5"):
        lg.kronecker_factors(problem, samples=1.5)
