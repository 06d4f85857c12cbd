"""Snapshots of live optimisers, and the matrices that go with their thresholds."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop, Rprop

import lossgeom as lg
from lossgeom.stability import optimizer_state


def setup(make=lambda model: Adam(model.parameters(), lr=0.01, weight_decay=0.1), steps=3):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 3).double(), torch.tensor([0, 1] * 3)
    optimizer = make(model)
    for _ in range(steps):
        step(model, optimizer, x, y)
    return model, optimizer, lg.Problem(model, "cross_entropy", [(x, y)])


def step(model, optimizer, x, y):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_a_snapshot_is_not_changed_by_what_comes_later():
    model, optimizer, problem = setup()
    state = optimizer_state(problem, optimizer)
    before = state.matrix(problem).dense()
    plain = lg.PreconditionedHessian(problem, optimizer).dense()
    torch.testing.assert_close(before, plain)
    step(model, optimizer, *problem.batches[0])
    optimizer.param_groups[0].update(lr=0.5, weight_decay=3.0)
    assert torch.equal(state.matrix(problem).dense(), before)
    assert (state.lr, state.groups[0]["lr"], state.groups[0]["betas"]) == (0.01, 0.01, (0.9, 0.999))


def test_a_tensor_for_a_learning_rate_is_read_once():
    lr = torch.tensor(0.25)
    _, _, problem = setup()
    state = optimizer_state(problem, SGD(problem.model.parameters(), lr=lr))
    lr.fill_(7.0)
    assert (state.lr, state.groups[0]["lr"], state.threshold) == (0.25, 0.25, 8.0)


def test_read_after_the_step_for_the_point_before_it():
    model, optimizer, problem = setup()
    step(model, optimizer, *problem.batches[0])
    state = optimizer_state(problem, optimizer)
    after = problem.refreshed()
    root = lg.preconditioner(after, optimizer).rsqrt()[:, None]
    H = lg.Hessian(problem).dense() + 0.1 * torch.eye(26)
    torch.testing.assert_close(state.matrix(problem).dense(), root * H * root.T)
    assert (state.threshold.status, state.threshold.matrix) == ("nominal", "PreconditionedHessian")


def test_which_matrix():
    model, _, problem = setup()
    H = lg.Hessian(problem).dense()

    def matrix(*optimizers):
        state = optimizer_state(problem, *optimizers)
        return state.matrix(problem).dense(), state.threshold, state.lr

    found, threshold, lr = matrix(SGD(model.parameters(), lr=0.5, weight_decay=0.1))
    torch.testing.assert_close(found, H)
    assert (threshold, lr) == (pytest.approx(3.9), 0.5)
    groups = [{"params": model[0].parameters(), "weight_decay": 0.1}]
    groups.append({"params": model[2].parameters()})
    found, threshold, lr = matrix(SGD(groups, lr=0.5))
    decay = torch.tensor([0.1] * 16 + [0.0] * 10).double()
    torch.testing.assert_close(found, H + torch.diag(decay))
    assert (threshold, lr) == (4.0, 0.5)
    two = SGD(groups[:1], lr=0.5), SGD(model[2].parameters(), lr=0.25)
    found, threshold, lr = matrix(*two)
    root = torch.tensor([0.5] * 16 + [0.25] * 10).double().sqrt()[:, None]
    torch.testing.assert_close(found, root * (H + torch.diag(decay)) * root.T)
    assert (threshold, lr) == (2.0, None)


def test_groups_of_one_learning_rate_are_the_same_either_way():
    """The Hessian's threshold, and that of the preconditioned one, which has the rate in it."""
    model, _, problem = setup()
    optimizer = SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    state = optimizer_state(problem, optimizer)
    assert state.threshold + 0.1 == pytest.approx(2 * 1.9 / 0.5)
    plain = lg.top_eigenpairs(state.matrix(problem)).top.value + 0.1
    scaled = lg.top_eigenpairs(lg.PreconditionedHessian(problem, optimizer)).top.value
    assert plain / (2 * 1.9 / 0.5) == pytest.approx(scaled / (2 * 1.9), rel=1e-4)


def test_effective_sharpness():
    model, optimizer, problem = setup()
    dense = lg.PreconditionedHessian(problem, optimizer).dense()
    top = torch.linalg.eigvalsh(dense)[-1].item()
    assert lg.effective_sharpness(problem, optimizer).value == pytest.approx(top, rel=1e-4)
    sgd = SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain = lg.sharpness(problem).value
    assert lg.effective_sharpness(problem, sgd).value == pytest.approx(plain)
    with pytest.raises(ValueError, match=r"use problem\.refreshed\(\)"):
        lg.effective_sharpness(problem.at(problem.theta + 1), optimizer)


def test_unknown_optimisers_are_read_too():
    model, _, problem = setup()
    state = optimizer_state(problem, Rprop(model.parameters(), lr=0.1))
    assert (state.kinds, state.lr, state.threshold.status) == (("Rprop",), 0.1, "unknown")
    with pytest.raises(
        ValueError, match="stability of Rprop: none is known of Rprop; realised_edge"
    ):
        state.matrix(problem)


@pytest.mark.parametrize("kind", [Adagrad, Adam, AdamW, NAdam, RMSprop])
@pytest.mark.parametrize("apart", [False, True])
def test_parameters_without_gradients_are_not_moved(kind, apart):
    """Such as those of a layer that plays no part, in a group of their own or beside others."""

    def trained(groups):
        optimizer = kind(groups, lr=0.01, weight_decay=0.1)
        for _ in range(150):
            step(model, optimizer, x, y)
        return optimizer

    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2).double(), torch.randn(6, 3).double(), torch.tensor([0, 1] * 3)
    model.idle = nn.Parameter(torch.ones(2).double())
    moved = [model.weight, model.bias]
    groups = [{"params": moved}, {"params": [model.idle]}]
    optimizer = trained(groups if apart else model.parameters())
    problem = lg.Problem(model, "cross_entropy", [(x, y)])
    state = optimizer_state(problem, optimizer)
    assert model.idle.tolist() == [1, 1]
    names = problem.network.names
    place = sum(model.get_parameter(n).numel() for n in names[: names.index("idle")])
    kept = [i for i in range(problem.theta.numel()) if i not in (place, place + 1)]
    some = lg.Problem(model, "cross_entropy", [(x, y)], parameters=["weight", "bias"])
    alone = optimizer_state(some, optimizer)
    dense = state.matrix(problem).dense()
    torch.testing.assert_close(dense[kept][:, kept], alone.matrix(some).dense())
    assert float(dense.norm()) == pytest.approx(float(dense[kept][:, kept].norm()))
    assert state.threshold.status == ("nominal" if kind is Adagrad else "ok")
    with pytest.raises(ValueError, match=r"leave it out with Problem\(..., parameters=...\)"):
        lg.preconditioner(problem, optimizer)
    assert lg.preconditioner(some, optimizer).isfinite().all()


def test_errors(unchecked):
    model, _, problem = setup()
    state = optimizer_state(problem, Adam(model.parameters()))
    assert (state.threshold, state.threshold.status) == (pytest.approx(38.0), "nominal")
    with pytest.raises(ValueError, match=r"Adam has no squared gradients .* before its first step"):
        state.matrix(problem)
    shrinking = optimizer_state(problem, AdamW(model.parameters(), lr=1.0, weight_decay=2.0))
    assert shrinking.threshold == 0.0
    with pytest.raises(ValueError, match="the decay alone is unstable"):
        shrinking.matrix(problem)
    for kind in (SGD, Adam):
        with pytest.raises(ValueError, match=r"but 2\.weight is not among its parameters"):
            optimizer_state(problem, kind(model[0].parameters(), lr=0.1))
    with pytest.raises(TypeError, match="expected at least one optimiser, got none"):
        optimizer_state(problem)
