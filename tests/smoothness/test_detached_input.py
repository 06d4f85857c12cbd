"""Models that take their input out of the graph."""

import pytest
import torch
from torch import nn

import lossgeom as lg

MEASUREMENTS = [
    lg.jacobian_norms,
    lambda problem: lg.sobolev_seminorms(problem, "input"),
    lg.lipschitz_lower,
]


class WithDerivative(nn.Module):
    """A function and its gradient, as of physics-informed networks."""

    def __init__(self, own):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        self.own = own

    def forward(self, x):
        with torch.enable_grad():
            x = self.own(x).requires_grad_()
            u = self.net(x)
            (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return torch.cat([u, slope], 1)


def problem_of(model):
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return lg.Problem(model, "squared_error", [(x, torch.zeros(3, 3).double())]), x


@pytest.mark.parametrize("measure", MEASUREMENTS)
def test_is_refused(measure):
    problem, _ = problem_of(WithDerivative(torch.detach))
    with pytest.raises(ValueError, match="the model detaches it"):
        measure(problem)


def test_its_own_copy_of_the_input_will_do():
    model = WithDerivative(torch.clone)
    problem, x = problem_of(model)
    step = 1e-6 * torch.eye(2, dtype=torch.float64)
    columns = [(model(x + e) - model(x - e)).detach() / 2e-6 for e in step]
    expected = torch.linalg.matrix_norm(torch.stack(columns, -1), 2)
    torch.testing.assert_close(lg.jacobian_norms(problem).values, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("measure", MEASUREMENTS[:2])
def test_a_model_that_does_not_depend_on_its_input_has_the_derivative_zero(measure):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return self.b.expand(len(x), 3) + 0 * len(x)

    problem, _ = problem_of(Constant())
    found = measure(problem)
    assert (found.max if hasattr(found, "max") else found.elementwise[1]) == 0
