"""Tangent kernels, their Jacobian and their root."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CASES

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES[::2], ids=lambda case: case.name)
def test_conjugate_and_gauss_newton_share_their_spectrum(case, unchecked):
    problem = case.problem()
    K = torch.linalg.eigvalsh(lg.ConjugateGaussNewton(problem).dense())
    G = torch.linalg.eigvalsh(lg.GaussNewton(problem).dense())
    k = min(len(K), len(G))
    torch.testing.assert_close(K[-k:], G[-k:], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(K.sum(), G.sum())


def test_agrees_with_torch_func():
    case = BY_NAME["ragged"]
    parameters = dict(case.model.named_parameters())
    J = torch.func.jacrev(lambda p: torch.func.functional_call(case.model, p, case.inputs))(
        parameters
    )
    J = torch.cat([part.reshape(27, -1) for part in J.values()], dim=1).detach()
    torch.testing.assert_close(lg.ParameterJacobian(case.problem()).dense(), J)
    torch.testing.assert_close(lg.NTK(case.problem()).dense(), J @ J.T)


def test_dense_without_the_memory_for_the_jacobian():
    problem = BY_NAME["ragged"].problem()
    for kernel in (lg.NTK, lg.ConjugateGaussNewton):
        small, large = kernel(problem, memory_budget=100), kernel(problem)
        torch.testing.assert_close(small.dense(), large.dense())


def square_root(outputs, batch):
    return outputs.abs().sqrt().sum(), len(outputs)


def test_errors(unchecked):
    data = [(torch.randn(4, 3), torch.zeros(4, 2))]
    concave = lg.Problem(nn.Linear(3, 2), square_root, data)
    with pytest.raises(
        ValueError, match=r"'square_root' is not convex in the outputs \(curvature -"
    ):
        lg.ConjugateGaussNewton(concave) @ torch.ones(8)
    assert lg.NTK(concave).dense().shape == (8, 8)
    wide = lg.Problem(nn.Linear(3, 3000), square_root, data)
    with pytest.raises(ValueError, match="in 3000 outputs of an example is too large to decompose"):
        lg.OutputRoot(wide) @ torch.ones(12000)
