"""Matrices of first derivatives of the model, where it has no second ones."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CubeOnce

WITHOUT = [lg.GaussNewton, lg.EmpiricalFisher, lg.MonteCarloFisher, lg.GradientCovariance, lg.NTK,
           lg.ParameterJacobian, lg.ConjugateGaussNewton]  # fmt: skip


class Prototypes(nn.Module):
    """Distances to prototypes; by products of matrices they can be differentiated again."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.prototypes = nn.Linear(4, 5), nn.Parameter(torch.randn(3, 5))
        self.way = way

    def forward(self, x):
        mode = f"{self.way}use_mm_for_euclid_dist"
        return -torch.cdist(self.body(x), self.prototypes, compute_mode=mode)


class Cubed(nn.Module):
    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.way = nn.Linear(4, 5), nn.Linear(5, 3), way

    def forward(self, x):
        h = self.body(x)
        return self.head(CubeOnce.apply(h) if self.way else h**3)


def problem(model, **options):
    torch.manual_seed(1)
    x, y = torch.randn(12, 4), torch.randint(3, (12,))
    return lg.Problem(model.double(), "cross_entropy", [(x[:8], y[:8]), (x[8:], y[8:])], **options)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("model", "way"), [(Prototypes, "donot_"), (Cubed, "once")])
def test_matrices_that_need_none(model, way, check):
    expected, found = problem(model("")), problem(model(way), check=check)
    for matrix in WITHOUT:
        A, B = matrix(found), matrix(expected)
        V = torch.randn(A.shape[1], 2, dtype=torch.float64)
        torch.testing.assert_close(A @ V, B @ V, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("model", "way"), [(Prototypes, "donot_"), (Cubed, "once")])
def test_advice_that_holds(model, way):
    for matrix in (lg.Hessian, lg.Residual):
        with pytest.raises(lg.DerivativeError, match=r"is not there .*GaussNewton, Emp") as raised:
            matrix(problem(model(way))).dense()
        assert "check=False" not in str(raised.value)


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Rounded(nn.Linear):
    def forward(self, x):
        return Round.apply(super().forward(x))


def test_what_is_wrong_is_measured_anyway_if_asked():
    with pytest.raises(lg.DerivativeError, match=r"first .*check=False\) measures it anyway"):
        lg.sharpness(problem(Rounded(4, 3)))
    assert lg.sharpness(problem(Rounded(4, 3), check=False)).value > 0


def test_a_jacobian_that_is_too_large_by_rows(monkeypatch):
    monkeypatch.setattr("lossgeom.autodiff.batch_jacobian.LARGEST_ROWS", 100)
    with pytest.raises(ValueError, match=r"a batch, 24 x 40, is too large .* use smaller batches"):
        lg.GaussNewton(problem(Prototypes("donot_"))) @ torch.ones(40, dtype=torch.float64)
