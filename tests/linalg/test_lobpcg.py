"""LOBPCG."""

import math

import pytest
import torch
from scipy.sparse.linalg import eigsh

import lossgeom as lg
from lossgeom.linalg import MatrixFree
from tests.linalg.spectra import FORMS, SPECTRA, check_pairs, rotated, wanted


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("name", SPECTRA)
def test_known_spectra(name, k, which):
    values = SPECTRA[name]
    k = min(k, len(values))
    A = rotated(values)
    hopeless = (name, which) == ("graded", "smallest")  # 12 orders below the norm
    pairs = lg.lobpcg(A, k, which=which, tol=1e-6, max_matvecs=300 if hopeless else 4000)
    check_pairs(A, pairs, 1e-6)
    if hopeless:
        assert (pairs.values - wanted(values, which)[:k]).abs().max() <= pairs.residuals.max()
        return
    assert pairs.converged.all()
    torch.testing.assert_close(pairs.values, wanted(values, which)[:k], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["distinct", "outliers", "triple", "rank_two", "negative"])
def test_float32(name):
    A = rotated(SPECTRA[name], dtype=torch.float32)
    pairs = lg.lobpcg(A, 3, tol=1e-4, max_matvecs=1000)
    assert pairs.converged.all()
    expected = wanted(SPECTRA[name], "largest")[:3]
    torch.testing.assert_close(pairs.values.double(), expected, rtol=1e-5, atol=1e-5)
    check_pairs(A, pairs, 1e-4)


def test_agrees_with_scipy():
    A = rotated(SPECTRA["hessian"], seed=3)
    pairs = lg.lobpcg(A, 5, tol=1e-8, max_matvecs=2000)
    expected = eigsh(A.numpy(), k=5, which="LA", return_eigenvectors=False)[::-1].copy()
    torch.testing.assert_close(pairs.values, torch.from_numpy(expected), rtol=1e-10, atol=0)


def test_a_warm_start_saves_products():
    values = torch.cat([torch.linspace(-0.2, 0.3, 300), torch.logspace(0, 1.3, 10)])
    A, noise = rotated(values), rotated(torch.linspace(-1, 1, 310), seed=7)
    cold = lg.lobpcg(A, 4)
    near = A + 1e-3 * noise
    warm = lg.lobpcg(near, 4, start=cold.vectors)
    assert warm.converged.all()
    assert warm.matvecs < 0.7 * lg.lobpcg(near, 4).matvecs
    expected = torch.linalg.eigvalsh(near).flip(0)[:4]
    torch.testing.assert_close(warm.values, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("wrong", [0, 1, 50])
def test_a_start_that_is_another_eigenvector_does_not_mislead(wrong):
    values = torch.linspace(0, 1, 60)
    values[-1], values[1] = 3, 2
    pairs = lg.lobpcg(torch.diag(values), start=torch.eye(60)[wrong])
    assert pairs.converged.all()
    assert pairs.values.item() == pytest.approx(3, abs=1e-4)


def test_a_preconditioner_saves_products():
    values = torch.logspace(-3, 2, 300, dtype=torch.float64)
    plain, helped = (
        lg.lobpcg(torch.diag(values), 2, which="smallest", preconditioner=T, max_matvecs=2000)
        for T in (None, torch.diag(1 / (values + 1e-3)))
    )
    assert helped.converged.all()
    torch.testing.assert_close(helped.values, values[:2], rtol=1e-3, atol=0)
    assert helped.matvecs < 0.3 * plain.matvecs


@pytest.mark.parametrize("form", FORMS)
def test_takes_what_multiplies(form):
    A = rotated(SPECTRA["hessian"])
    torch.testing.assert_close(lg.lobpcg(FORMS[form](A), 3).values, lg.lobpcg(A, 3).values)


def test_products_come_in_blocks_and_are_counted():
    A, widths = rotated(SPECTRA["hessian"]), []

    def product(V):
        widths.append(V.shape[1])
        return A @ V

    operator = MatrixFree(A.shape, A.dtype, A.device, product, lambda: operator)
    pairs = lg.lobpcg(operator, 10, tol=1e-6, max_matvecs=50)
    assert sum(widths) == pairs.matvecs == 50
    assert max(widths) <= 8
    assert len(widths) < 15


def test_says_when_it_has_not_converged():
    A = rotated(torch.linspace(0, 1, 300))
    pairs = lg.lobpcg(A, 2, tol=1e-8, max_matvecs=20)
    assert not pairs.converged.any()
    check_pairs(A, pairs, 1e-8)


def test_more_start_vectors_than_needed_and_dependent_ones():
    A = rotated(SPECTRA["hessian"])
    start = torch.ones(90, 3, dtype=torch.float64)
    pairs = lg.lobpcg(A, 2, start=torch.cat([start, torch.eye(90, dtype=torch.float64)], dim=1))
    torch.testing.assert_close(pairs.values, wanted(SPECTRA["hessian"], "largest")[:2])
    assert lg.lobpcg(A, 2, start=start).converged.all()


def test_one_by_one_zero_and_nan():
    assert lg.lobpcg(torch.tensor([[-2.0]])).values.item() == -2
    zero = lg.lobpcg(torch.zeros(50, 50), 3)
    assert zero.values.tolist() == [0, 0, 0]
    assert zero.converged.all()
    pairs = lg.lobpcg(torch.diag(torch.tensor([1.0, math.nan] + [2.0] * 20)), 2)
    assert pairs.values.isnan().all()
    assert not pairs.converged.any()


def test_nearly_all_pairs_of_a_small_matrix():
    """Residuals come in several blocks, and the first of them fills the space."""
    A = rotated(torch.arange(12.0).double())
    pairs = lg.lobpcg(A, 10, tol=1e-6)
    torch.testing.assert_close(pairs.values, torch.arange(11.0, 1.0, -1.0).double())
    check_pairs(A, pairs, 1e-6)


def test_same_seed_same_bits_and_global_generator_untouched():
    state, A = torch.get_rng_state(), rotated(SPECTRA["distinct"])
    first, again = (lg.lobpcg(A, 2, seed=5) for _ in range(2))
    assert torch.equal(first.vectors, again.vectors)
    assert torch.equal(torch.get_rng_state(), state)


def test_errors(unchecked):
    with pytest.raises(ValueError, match=r"'magnitude', whose eigenvalues.*use top_eigenpairs"):
        lg.lobpcg(torch.eye(3), which="magnitude")
    with pytest.raises(ValueError, match="expected 1 <= k <= 3"):
        lg.lobpcg(torch.eye(3), 4)
    with pytest.raises(ValueError, match="expected max_matvecs of at least 1, got 0"):
        lg.lobpcg(torch.eye(3), max_matvecs=0)
    with pytest.raises(ValueError, match=r"expected a preconditioner of shape \(3, 3\)"):
        lg.lobpcg(torch.eye(3), preconditioner=torch.eye(2))
    with pytest.raises(ValueError, match="expected a symmetric operator"):
        lg.lobpcg(torch.triu(torch.ones(40, 40)))
    with pytest.raises(TypeError, match="expected an operator in float32 or float64"):
        lg.lobpcg(torch.eye(3).bfloat16())
