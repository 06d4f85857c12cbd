"""Norms of each example's Jacobian in the parameters."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests import reference
from tests.problems import CASES

BY_NAME = {case.name: case for case in CASES}
NAMES = ["ragged", "tied", "subset", "mapping", "conv", "language_model", "tokens", "own_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_differences_and_svd(name, unchecked):
    case = BY_NAME[name]
    J = reference.parameter_jacobian(case).reshape(len(case.targets), -1, len(case.problem().theta))
    expected = torch.linalg.matrix_norm(J, ord=2)
    for method in ("exact", "lanczos"):
        norms = lg.parameter_jacobian_norms(case.problem(), method=method, tol=1e-5)
        assert norms.method == method
        torch.testing.assert_close(norms.values, expected, rtol=1e-5, atol=1e-8)
    frobenius = lg.parameter_jacobian_norms(case.problem(), norm="frobenius", method="exact")
    torch.testing.assert_close(frobenius.values, J.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-8)


def test_is_the_diagonal_of_the_tangent_kernel():
    case = BY_NAME["ragged"]
    kernel = lg.NTK(case.problem()).dense().reshape(9, 3, 9, 3)
    blocks = torch.stack([kernel[i, :, i] for i in range(9)])
    norms = lg.parameter_jacobian_norms(case.problem())
    torch.testing.assert_close(norms.values.square(), torch.linalg.eigvalsh(blocks)[:, -1])
    trace = blocks.diagonal(dim1=1, dim2=2).sum(1)
    frobenius = lg.parameter_jacobian_norms(case.problem(), norm="frobenius")
    torch.testing.assert_close(frobenius.values.square(), trace)


def test_linear_model_in_closed_form():
    """J is x beside every output: its norm is that of x, and sqrt(C) times it."""
    x = torch.randn(4, 5)
    model = nn.Linear(5, 3, bias=False)
    problem = lg.Problem(model, "cross_entropy", [(x, torch.zeros(4).long())])
    norms = lg.parameter_jacobian_norms(problem).values.float()
    torch.testing.assert_close(norms, x.norm(dim=1))
    frobenius = lg.parameter_jacobian_norms(problem, norm="frobenius").values.float()
    torch.testing.assert_close(frobenius, x.norm(dim=1) * 3**0.5)
    softmax = lg.parameter_jacobian_norms(problem, "softmax").values.float()
    p = model(x).detach().softmax(1)
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    torch.testing.assert_close(softmax, torch.linalg.matrix_norm(A, ord=2) * x.norm(dim=1))


def test_batchnorm_is_measured_in_eval_mode():
    case = BY_NAME["batchnorm_train"]
    expected = lg.parameter_jacobian_norms(case.problem().in_mode("eval"))
    assert torch.equal(lg.parameter_jacobian_norms(case.problem()).values, expected.values)


def test_examples_that_depend_on_each_other_are_refused():
    class Mixing(nn.Linear):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    problem = lg.Problem(
        Mixing(3, 2), "cross_entropy", [(torch.randn(4, 3), torch.zeros(4).long())]
    )
    with pytest.raises(ValueError, match="depend on other examples"):
        lg.parameter_jacobian_norms(problem)


def test_leaves_no_trace(unchecked):
    case = BY_NAME["conv"]
    before = reference.fingerprint(case.model)
    lg.parameter_jacobian_norms(case.problem())
    assert reference.fingerprint(case.model) == before
