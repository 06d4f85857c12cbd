"""Inputs of layers and gradients at what they put out, in models that make that difficult."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.autodiff.layer_calls import LayerCalls


class NoVmap(torch.autograd.Function):
    """A function that vmap has no rule for."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        assert float(gradient.sum()) == float(gradient.sum())  # reads a number, as vmap cannot
        return 2 * x * gradient


class Net(nn.Module):
    def __init__(self, between, used=True):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)
        self.between, self.used = between, used

    def forward(self, x):
        hidden = self.first(x)
        return self.second(self.between(hidden) if self.used else torch.zeros_like(hidden))


def calls_of(model, theta=None):
    x = torch.randn(4, 3)
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(4, 2))])
    modules = [problem.network.module.first, problem.network.module.second]
    theta = problem.theta if theta is None else theta
    return x, modules, LayerCalls(problem, modules, theta, problem.first_batch())


@pytest.mark.quick
@pytest.mark.parametrize("between", [torch.tanh_, NoVmap.apply, torch.sin])
def test_gradients_are_those_of_each_vector(between):
    """At the first layer by hand, and at the last one the vectors themselves."""
    model = Net(between)
    x, (first, second), calls = calls_of(model)
    U = torch.randn(5, 4, 2)
    found = calls.pulled(U)
    hidden = model.first(x).detach().requires_grad_()
    output = model.second(between(hidden.clone()))
    for u, g in zip(U, found[first][0], strict=True):
        (expected,) = torch.autograd.grad(output, hidden, u, retain_graph=True)
        torch.testing.assert_close(g, expected)
    torch.testing.assert_close(found[second][0], U)
    torch.testing.assert_close(calls.pulled(U[:1])[first][0], found[first][0][:1])
    torch.testing.assert_close(calls.inputs[first][0], x)
    assert calls.nbytes == 2 * 4 * 2 * 4


@pytest.mark.quick
def test_a_layer_without_an_effect_has_gradients_of_zero():
    _, (first, second), calls = calls_of(Net(torch.tanh, used=False))
    for k in (1, 3):
        found = calls.pulled(torch.ones(k, 4, 2))
        assert torch.equal(found[first][0], torch.zeros(k, 4, 2))
        assert torch.equal(found[second][0], torch.ones(k, 4, 2))


@pytest.mark.quick
def test_parameters_are_constants():
    """A backward pass goes to what layers put out, and to no parameter."""
    _, _, calls = calls_of(Net(torch.tanh))
    nodes, leaves = [calls.outputs.grad_fn], set()
    while nodes:
        node = nodes.pop()
        leaves |= {id(node.variable)} if hasattr(node, "variable") else set()
        nodes += [following for following, _ in node.next_functions if following is not None]
    assert leaves == {id(leaf) for leaf in calls.leaves}
