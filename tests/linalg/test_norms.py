"""Norms, and what is special to some estimates."""

import math

import pytest
import torch

import lossgeom as lg


@pytest.mark.quick
@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (1, 5), (5, 1)])
def test_spectral_norm(shape):
    A = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimate = lg.spectral_norm(A, tol=1e-8)
    assert estimate.value == pytest.approx(torch.linalg.matrix_norm(A, ord=2).item())
    assert estimate.converged


def test_spectral_norm_of_zero():
    estimate = lg.spectral_norm(torch.zeros(4, 3))
    assert estimate.value == 0
    assert estimate.residual == 0


def test_a_diagonal_needs_one_probe_and_more_to_be_sure_of_it():
    A = torch.diag(torch.arange(50.0))
    for matvecs, stderr in ((2, math.inf), (17, math.inf), (40, 0)):
        estimate = lg.trace(A, matvecs=matvecs, method="hutchinson")
        assert estimate.value == pytest.approx(49 * 25)
        assert estimate.stderr == pytest.approx(stderr, abs=1e-3)


@pytest.mark.quick
@pytest.mark.parametrize("shape", [(30, 80), (80, 30)])
@pytest.mark.parametrize("matvecs", [20, 30])
def test_frobenius_norm_of_any_shape(shape, matvecs):
    A = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimate = lg.frobenius_norm(A, matvecs=matvecs)
    assert abs(estimate.value - A.norm().item()) <= 4 * estimate.stderr + 1e-12
    assert (estimate.stderr == 0) == (matvecs == 30)


def test_stable_rank_of_any_shape():
    A = torch.randn(20, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = (A.norm() / torch.linalg.matrix_norm(A, ord=2)) ** 2
    assert lg.effective_rank(A).value == pytest.approx(expected.item(), rel=1e-3)


def test_an_unconverged_norm_leaves_an_unconverged_rank():
    A = torch.diag(torch.linspace(0, 1, 500, dtype=torch.float64))
    rank = lg.effective_rank(A, tol=1e-12)
    assert rank.status == "not_converged"


def test_errors(unchecked):
    with pytest.raises(TypeError, match="expected a matrix"):
        lg.spectral_norm("A")
