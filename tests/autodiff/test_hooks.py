"""What is noted of the calls of modules."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.autodiff.hooks import noted


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(self.inner(x))


def problem_of(model):
    data = [(torch.ones(2, 3), torch.zeros(2, 3))]
    return lg.Problem(model, "squared_error", data, check=False)


def test_every_call_is_noted_module_by_module():
    problem = problem_of(Twice())
    model, batch = problem.network.module, problem.first_batch()
    modules = [model.inner, model.unused]
    found = noted(problem, modules, batch, lambda module, args, z: (module, args[0], z))
    (first, second), nothing = found
    assert nothing == []
    assert torch.equal(first[1], batch.input)
    assert torch.equal(second[1], first[2])
    assert torch.equal(second[2], problem.outputs(problem.theta, batch))
    assert first[0] is second[0] is model.inner


def test_hooks_are_taken_off_also_after_an_error():
    problem = problem_of(Twice())
    model = problem.network.module

    def fails(module, args, z):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        noted(problem, [model.inner], problem.first_batch(), fails)
    assert not model.inner._forward_hooks
