"""The Hessian as optimisers see it."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop, Rprop

import lossgeom as lg
from lossgeom.curvature.preconditioned_hessian import Preconditioning


def trained(make, steps=4):
    """A model, an optimiser that has taken some steps, and the last of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer = make(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.05}]
    )
    x, y = torch.randn(6, 3).double(), torch.tensor([0, 1] * 3)
    for _ in range(steps):
        before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    after = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    return model, optimizer, before - after, lg.Problem(model, "cross_entropy", [(x, y)])


def averaged(optimizer, key):
    return torch.cat([s[key].reshape(-1) for s in optimizer.state.values()])


@pytest.mark.parametrize(
    ("make", "averaged_gradient"),
    [
        (lambda groups: SGD(groups, lr=0.2, momentum=0.9), "momentum_buffer"),
        (lambda groups: Adam(groups, lr=0.01), "exp_avg"),
        (lambda groups: Adam(groups, lr=0.01, amsgrad=True, betas=(0.5, 0.9)), "exp_avg"),
        (lambda groups: AdamW(groups, lr=0.01, weight_decay=0.0), "exp_avg"),
        (lambda groups: RMSprop(groups, lr=0.01, momentum=0.0), None),
        (lambda groups: RMSprop(groups, lr=0.01, centered=True), None),
        (lambda groups: Adagrad(groups, lr=0.01, lr_decay=0.5), None),
    ],
)
def test_the_last_step_is_the_averaged_gradient_over_the_preconditioner(make, averaged_gradient):
    model, optimizer, step, problem = trained(make)
    P = lg.preconditioner(problem, optimizer)
    if averaged_gradient is None:
        m = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    else:
        m = averaged(optimizer, averaged_gradient)
    torch.testing.assert_close(m / P, step, rtol=1e-6, atol=1e-10)


def test_eigenvalues_are_those_of_the_inverse_times_the_hessian():
    _, optimizer, _, problem = trained(lambda groups: Adam(groups, lr=0.01))
    P, H = lg.preconditioner(problem, optimizer), lg.Hessian(problem).dense()
    ours = torch.linalg.eigvalsh(lg.PreconditionedHessian(problem, optimizer).dense())
    plain = torch.linalg.eigvals(H / P[:, None]).real.sort().values
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-8)


@pytest.mark.quick
def test_gradient_descent_is_stable_below_two_only():
    """On a quadratic with two learning rates, where neither alone decides."""
    model = nn.Linear(2, 1, bias=False).double()
    x = torch.diag(torch.tensor([2.0, 4.0])).double() * 2**0.5
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(2, 1))])

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.ones(1, 1).double()) for _ in range(2))

        def forward(self, x):
            return x[:, :1] * self.a + x[:, 1:] * self.b

    for factor, stable in ((0.99, True), (1.01, False)):
        model = Two()
        problem = lg.Problem(model, "squared_error", [(x, torch.zeros(2, 1))])
        lr = factor * 2 / 16
        optimizer = SGD([{"params": [model.a], "lr": 0.1}, {"params": [model.b], "lr": lr}])
        top = lg.top_eigenpairs(lg.PreconditionedHessian(problem, optimizer)).values.item()
        assert (top < 2) is stable
        for _ in range(2000):
            optimizer.zero_grad()
            (0.5 * model(x).square().sum() / 2).backward()
            optimizer.step()
        assert (model.b.abs().item() < 1) is stable


def test_the_objective_has_the_decay_of_each_group():
    _, optimizer, _, problem = trained(lambda groups: SGD(groups, lr=0.2))
    optimizer.param_groups[0]["weight_decay"] = 0.5
    difference = lg.ObjectiveHessian(problem, optimizer).dense() - lg.Hessian(problem).dense()
    expected = torch.diag(torch.tensor([0.5] * 16 + [0.0] * 10).double())
    torch.testing.assert_close(difference, expected)
    both = lg.PreconditionedHessian(
        problem, optimizer, hessian=lg.ObjectiveHessian(problem, optimizer)
    )
    P = lg.preconditioner(problem, optimizer)
    expected = (lg.Hessian(problem).dense() + expected) / (P[:, None] * P).sqrt()
    torch.testing.assert_close(both.dense(), expected)


def test_a_compiled_model_and_a_subset():
    model, _, _, problem = trained(lambda groups: SGD(groups, lr=0.2))
    optimizer = SGD(model[2].parameters(), lr=0.25)
    head = problem.with_parameters("2.*")
    assert lg.preconditioner(head, optimizer).tolist() == [4.0] * 10
    compiled = torch.compile(model, backend="eager")
    wrapped = lg.Problem(compiled, "cross_entropy", problem.batches, parameters="2.*")
    assert lg.preconditioner(wrapped, SGD(compiled.parameters(), lr=0.5)).tolist() == [2.0] * 10


def test_nadams_last_step():
    """Its two terms have their own bias corrections, which are part of the averaged gradient."""
    model, optimizer, step, problem = trained(lambda groups: NAdam(groups, lr=0.01))
    gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    state = next(iter(optimizer.state.values()))
    mu, following = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in (4, 5))
    product = state["mu_product"].item()
    m = (1 - mu) / (1 - product) * gradient
    m += following / (1 - product * following) * averaged(optimizer, "exp_avg")
    torch.testing.assert_close(m / lg.preconditioner(problem, optimizer), step, rtol=1e-6, atol=0)


def test_two_optimisers_and_an_optimiser_inside_another():
    model, _, _, problem = trained(lambda groups: SGD(groups, lr=0.2))
    two = SGD(model[0].parameters(), lr=0.5), SGD(model[2].parameters(), lr=0.25)
    assert lg.preconditioner(problem, *two).tolist() == [2.0] * 16 + [4.0] * 10

    class AcceleratedOptimizer(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

    wrapped = [AcceleratedOptimizer(each) for each in two]
    assert torch.equal(lg.preconditioner(problem, *wrapped), lg.preconditioner(problem, *two))
    ours, plain = (lg.PreconditionedHessian(problem, *each).dense() for each in (wrapped, two))
    assert torch.equal(ours, plain)
    wrapped[0].optimizer.param_groups[0]["weight_decay"] = 0.5
    decayed = lg.ObjectiveHessian(problem.with_parameters("0.*"), wrapped[0])
    assert decayed.weight_decay.tolist() == [[0.5]] * 16


def test_the_matrix_has_all_that_groups_may_differ_in():
    """Coupled decay is in the Hessian, decoupled decay in the preconditioner, and the sign."""
    _, optimizer, _, problem = trained(lambda groups: Adam(groups, lr=0.01, weight_decay=0.5))
    optimizer.param_groups[1]["lr"] = 0.0
    H, P = lg.Hessian(problem).dense(), torch.ones(26).double()
    optimizer.param_groups[1]["lr"] = 1.0
    P = lg.preconditioner(problem, optimizer)
    optimizer.param_groups[1]["lr"] = 0.0
    root = torch.cat([P[:16].rsqrt(), torch.zeros(10)])[:, None]
    expected = root * (H + 0.5 * torch.eye(26)) * root.T
    torch.testing.assert_close(lg.PreconditionedHessian(problem, optimizer).dense(), expected)
    for group in optimizer.param_groups:
        group["maximize"] = True
    expected = root * (-H + 0.5 * torch.eye(26)) * root.T
    torch.testing.assert_close(lg.PreconditionedHessian(problem, optimizer).dense(), expected)
    assert lg.ObjectiveHessian(problem, optimizer).weight_decay[0].item() == -0.5

    _, optimizer, _, problem = trained(lambda groups: AdamW(groups, lr=0.01, weight_decay=10.0))
    H, P = lg.Hessian(problem).dense(), lg.preconditioner(problem, optimizer)
    root = (P * torch.tensor([0.95] * 16 + [0.75] * 10)).rsqrt()[:, None]
    torch.testing.assert_close(
        lg.PreconditionedHessian(problem, optimizer).dense(), root * H * root.T
    )


def test_errors(unchecked):
    model, optimizer, _, problem = trained(lambda groups: Adam(groups, lr=0.01))
    for function in (lg.preconditioner, lg.PreconditionedHessian):
        with pytest.raises(
            TypeError, match=r"\(torch\.optim\.SGD, RMSprop, .* Adagrad\), got Rprop"
        ):
            function(problem, Rprop(model.parameters()))
    with pytest.raises(TypeError, match="expected a torch optimiser, got str"):
        lg.preconditioner(problem, "adam")
    with pytest.raises(TypeError, match="expected at least one optimiser, got none"):
        lg.PreconditionedHessian(problem)
    read = Preconditioning.of(problem, optimizer)
    with pytest.raises(TypeError, match="expected a torch optimiser, got Preconditioning"):
        lg.PreconditionedHessian(problem, optimizer, read)
    for kind in (Adam, Adagrad):
        with pytest.raises(ValueError, match=f"{kind.__name__} has no squared gradients"):
            lg.PreconditionedHessian(problem, kind(model.parameters()))
    two = [SGD(model.parameters(), lr=0.1) for _ in range(2)]
    with pytest.raises(
        ValueError, match="expected every parameter in one optimiser, got one in two"
    ):
        lg.PreconditionedHessian(problem, *two)
    both = SGD(
        [
            {"params": model[0].parameters(), "maximize": True},
            {"params": model[2].parameters()},
        ]
    )
    with pytest.raises(ValueError, match="all minimise or all maximise, got both"):
        lg.PreconditionedHessian(problem, both)
    shrinking = trained(lambda groups: AdamW(groups, lr=0.1, weight_decay=20.0), steps=1)
    with pytest.raises(ValueError, match=r"expected lr \* weight_decay < 2 of decoupled"):
        lg.PreconditionedHessian(shrinking[3], shrinking[1])
    with pytest.raises(ValueError, match=r"Adam has no squared gradients .* before its first step"):
        lg.preconditioner(problem, Adam(model.parameters()))
    with pytest.raises(ValueError, match=r"but 0\.weight is not among its parameters"):
        lg.preconditioner(problem, SGD(nn.Linear(3, 2).parameters(), lr=1.0))
    with pytest.raises(ValueError, match=r"belongs to those; use problem\.refreshed\(\)"):
        lg.preconditioner(problem.at(problem.theta * 2), optimizer)
    with pytest.raises(ValueError, match="expected learning rates > 0, got 0"):
        lg.preconditioner(problem, SGD(model.parameters(), lr=0.0))
    with pytest.raises(ValueError, match=r"hessian of shape \(26, 26\), got one of shape \(2, 2\)"):
        lg.PreconditionedHessian(problem, optimizer, hessian=lg.linalg.Dense(torch.eye(2)))
    with pytest.raises(ValueError, match="AdamW's weight decay is decoupled"):
        lg.ObjectiveHessian(problem, AdamW(model.parameters()))
    with pytest.raises(ValueError, match="expected a weight decay >= 0, got -1"):
        lg.ObjectiveHessian(problem, -1.0)
    with pytest.raises(TypeError, match="got Rprop, whose weight decay may mean something else"):
        lg.ObjectiveHessian(problem, Rprop(model.parameters()))
    with pytest.raises(ValueError, match=r"weight decays of shape \(26,\), got \(2,\)"):
        lg.ObjectiveHessian(problem, torch.ones(2))
