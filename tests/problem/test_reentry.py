"""Backward passes that call a module of the model again."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lossgeom as lg
from lossgeom.problem.model_copy import ReentryError

pytestmark = pytest.mark.usefixtures("unchecked")


class Recomputed(torch.autograd.Function):
    """A module whose backward pass runs it again, as those of adjoint ODE solvers do."""

    @staticmethod
    def forward(ctx, module, x, *parameters):
        ctx.module = module
        ctx.save_for_backward(x, *parameters)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, gradient):
        x, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            again = ctx.module(leaf)
            wanted = [p for p in (leaf, *parameters) if p.requires_grad]
            found = torch.autograd.grad(again, wanted, gradient, allow_unused=True)
            return None, *found, *[None] * (1 + len(parameters) - len(wanted))


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.inner = kind

    def forward(self, x):
        z = torch.tanh(self.first(x))
        return self.last(Recomputed.apply(self.inner, z, *self.inner.parameters()))


def problem(kind, **options):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=generator), torch.randint(3, (12,), generator=generator)
    return lg.Problem(Model(kind), "cross_entropy", [(x, y)], **options)


def product(matrix):
    return lambda p: matrix(p) @ torch.ones_like(p.theta)


def on_outputs(matrix):
    return lambda p: matrix(p).dense()


MEASURES = {
    "gradient": lg.Problem.gradient,
    "jacobian norms": lg.jacobian_norms,
    "parameter jacobian norms": lg.parameter_jacobian_norms,
    "largest jacobian norm": lg.largest_jacobian_norm,
    "sobolev": lg.sobolev_seminorms,
    "sobolev in theta": lambda p: lg.sobolev_seminorms(p, "parameters"),
    "multiplicative": lg.multiplicative_inequality,
    "lipschitz": lg.lipschitz_lower,
    "sharpness": lg.sharpness,
    "hessian": product(lg.Hessian),
    "gauss-newton": product(lg.GaussNewton),
    "residual": product(lg.Residual),
    "fisher": product(lg.EmpiricalFisher),
    "ntk": on_outputs(lg.NTK),
    "taylor": lambda p: lg.quadratic.taylor(p).at(torch.ones_like(p.theta)[None]).z,
    "doctor": lg.doctor,
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("measure", MEASURES)
def test_is_refused_by_its_name(measure, check):
    p = problem(nn.Sequential(nn.Linear(5, 5), nn.Tanh()), check=check)
    for at in (p, p.at(2 * p.theta)):
        with pytest.raises(ReentryError, match=r"backward pass .* calls a module again.*odeint"):
            MEASURES[measure](at)


def test_what_needs_no_backward_pass_is_measured():
    p = problem(nn.Sequential(nn.Linear(5, 5), nn.Tanh()))
    plain = Model(p.model.inner)
    x, y = p.batches[0]
    expected = nn.functional.cross_entropy(plain(x), y).item()
    assert p.loss() == pytest.approx(expected, rel=1e-6)


def test_attacks_have_a_copy_with_theta_in_place():
    """Which may be called again, and is."""
    inner = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
    p = problem(inner).at(2 * problem(inner).theta)
    plain = nn.Sequential(p.model.first, nn.Tanh(), inner, p.model.last)
    same = lg.Problem(plain, "cross_entropy", p.batches)
    theta = nn.utils.parameters_to_vector(plain.parameters()).detach()
    ours, theirs = (lg.logit_change(q, 0.1) for q in (p, same.at(2 * theta)))
    torch.testing.assert_close(ours.lower, theirs.lower)


def test_a_module_without_parameters_may_be_called_again():
    p = problem(nn.Tanh())
    x, y = p.batches[0]
    model = Model(nn.Tanh())
    loss = nn.functional.cross_entropy(model(x), y)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(p.gradient(), torch.cat([g.flatten() for g in expected]))


def test_a_backward_pass_inside_the_forward_pass_is_right():
    """There theta is in the place of the parameters."""

    class Slope(Model):
        def forward(self, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(super().forward(x).sum(), x)[0][:, :3]

    model = Slope(nn.Linear(5, 5))
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    p = lg.Problem(model, "squared_error", [(x, torch.zeros(12, 3))])
    for scale in (1, 2):
        with torch.no_grad():
            nn.utils.vector_to_parameters(scale * p.theta, model.parameters())
        expected = model(x).square().sum().item() / 24
        assert p.at(scale * p.theta).loss() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_around_the_whole_model(reentrant):
    """With torch's reentrant=True, the graph leads to the inputs alone."""
    plain = problem(nn.Linear(5, 5))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    plain, checkpointed = (
        lg.Problem(model, "cross_entropy", plain.batches, forward=forward)
        for forward in (
            lambda m, b: m(b[0]),
            lambda m, b: checkpoint(m, b[0].requires_grad_(), use_reentrant=reentrant),
        )
    )
    torch.testing.assert_close(checkpointed.gradient(), plain.gradient())
    assert lg.sharpness(checkpointed).value == pytest.approx(lg.sharpness(plain).value, rel=1e-5)
