"""Trace and spectral norm."""

import pytest
import torch

import lossgeom as lg


def symmetric(n: int) -> torch.Tensor:
    A = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return A + A.T


def test_a_trace_of_enough_products_is_exact():
    A = symmetric(20)
    estimate = lg.trace(A, matvecs=20)
    assert estimate.value == pytest.approx(A.trace().item())
    assert estimate.stderr == 0
    assert estimate.matvecs == 20


def test_a_diagonal_needs_one_probe():
    estimate = lg.trace(torch.diag(torch.arange(50.0)), matvecs=2)
    assert estimate.value == pytest.approx(49 * 25)
    assert estimate.stderr == pytest.approx(0, abs=1e-3)


def test_the_error_is_honest():
    """Of 200 seeds, those whose interval of two errors covers the truth; a wrong truth is not."""
    A = symmetric(60)
    found = [lg.trace(A, matvecs=30, seed=seed) for seed in range(200)]

    def covered(truth):
        return sum(abs(e.value - truth) < 2 * e.stderr for e in found) / 200

    assert covered(A.trace().item()) >= 0.9
    assert covered(A.trace().item() + 5 * found[0].stderr) < 0.1


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


def test_errors(unchecked):
    with pytest.raises(ValueError, match=r"expected a square matrix, got one of shape \(2, 3\)"):
        lg.trace(torch.ones(2, 3))
    with pytest.raises(ValueError, match="expected matvecs of at least 2, got 1"):
        lg.trace(torch.eye(3), matvecs=1)
    with pytest.raises(TypeError, match="expected a matrix"):
        lg.spectral_norm("A")
