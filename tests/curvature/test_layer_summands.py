"""Summands of the conjugate Gauss-Newton matrix, and their factors."""

import functools
import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CASES

WITHOUT_FACTORS = ("spectral_norm", "encoder", "lstm", "gru", "language_model")


@functools.cache
def summands_of(case):
    problem = case.problem()
    return problem, lg.layer_summands(problem)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_summands_add_up(case, unchecked):
    problem, summands = summands_of(case)
    total = sum(summand.matrix.dense() for summand in summands)
    K = lg.ConjugateGaussNewton(problem).dense()
    torch.testing.assert_close(total, K, rtol=1e-9, atol=1e-9 * float(K.abs().max()))
    names = [name for summand in summands for name in summand.parameters]
    assert sorted(names) == sorted(n for n in problem.network.names if n != "none")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_summand_is_the_product_of_its_factors(case, unchecked):
    for summand in summands_of(case)[1]:
        if summand.tail_jacobian is None:
            assert case.name in ("encoder", "weight_norm", "spectral_norm", "old_weight_norm")
            continue
        C, T, D = summand.root, summand.tail_jacobian, summand.layer_jacobian
        A = C.dense() @ T.dense() @ D.dense()
        K = summand.matrix.dense()
        torch.testing.assert_close(A @ A.T, K, rtol=1e-8, atol=1e-9 * float(K.abs().max()))
        U = torch.ones(T.shape[0], 1, dtype=T.dtype)
        torch.testing.assert_close(T.T @ U, T.dense().T @ U)
        torch.testing.assert_close(D.T @ (T.T @ U), D.dense().T @ (T.T @ U))


@pytest.mark.quick
def test_closed_form_of_a_two_layer_network():
    """Df_l is the layer's input beside ones, T_1 is W_2 diag(phi'), T_2 is the identity."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(6, 3).double()
    problem = lg.Problem(
        model, "squared_error", [(x[:4], torch.zeros(4, 2)), (x[4:], torch.zeros(2, 2))]
    )
    first, last = (summand.mediators(tol=1e-8) for summand in lg.layer_summands(problem))
    h = torch.tanh(model[0](x)).detach()

    def norm(A):
        return torch.linalg.matrix_norm(A, ord=2).item()

    with_ones = [torch.cat([inputs, torch.ones(6, 1).double()], dim=1) for inputs in (x, h)]
    tails = [model[2].weight.detach() * (1 - row.square()) for row in h]
    assert first.layer_jacobian.value == pytest.approx(norm(with_ones[0]))
    assert last.layer_jacobian.value == pytest.approx(norm(with_ones[1]))
    assert first.tail_jacobian.value == pytest.approx(max(norm(tail) for tail in tails))
    assert last.tail_jacobian.value == pytest.approx(1)
    assert first.root.value == pytest.approx(6**-0.5)
    assert last.eigenvalue.value == pytest.approx(norm(with_ones[1]) ** 2 / 6)
    assert last.alignment == pytest.approx(1)
    assert 0 < first.alignment <= 1
    assert first.trace.value == pytest.approx(
        sum(
            t.square().sum().item() * (1 + r.square().sum().item())
            for t, r in zip(tails, x, strict=True)
        )
        / 6
    )


def test_saturated_cross_entropy_shows_in_the_root():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    data = [(torch.randn(6, 3), torch.zeros(6).long())]
    problem = lg.Problem(model, "cross_entropy", data)
    saturated = problem.theta.clone()
    saturated[-2] += 30  # the bias of the right class
    before, after = (lg.layer_summands(p)[0].mediators() for p in (problem, problem.at(saturated)))
    assert after.root.value < 1e-4 * before.root.value
    assert after.tail_jacobian.value == pytest.approx(before.tail_jacobian.value, rel=1e-2)


def test_layers_that_share_a_weight_are_one(unchecked):
    case = next(case for case in CASES if case.name == "tied")
    (summand,) = lg.layer_summands(case.problem())
    assert summand.name == "first and second"
    assert summand.tail_jacobian is not None
    model = next(case for case in CASES if case.name == "language_model")
    names = [summand.name for summand in lg.layer_summands(model.problem())]
    assert names == ["embedding and head", "norm", "mix"]


def test_parameters_that_act_outside_their_module():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x):
            return x @ self.inner.weight.T

    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    (summand,) = lg.layer_summands(lg.Problem(Reads(), "cross_entropy", data))
    assert summand.tail_jacobian is None
    mediators = summand.mediators()
    assert math.isnan(mediators.tail_jacobian.value)
    assert not mediators.tail_jacobian.converged
    assert mediators.eigenvalue.value > 0


def test_leaves_no_hooks(unchecked):
    from tests import reference

    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    problem = lg.Problem(model, "cross_entropy", [(torch.randn(4, 3), torch.zeros(4).long())])
    before = reference.fingerprint(model)
    for summand in lg.layer_summands(problem):
        summand.mediators()
    assert reference.fingerprint(model) == before
    inner = problem.network.module.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in inner)
