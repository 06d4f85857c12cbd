"""Kronecker products against their dense form."""

import math

import pytest
import torch

from lossgeom import KroneckerEigenbasis, KroneckerProduct
from tests.linalg.spectra import rotated

INDEFINITE = KroneckerProduct(
    rotated([3.0, -2.0, 0.5]), rotated([1.0, -4.0, 0.0, 2.0, 0.1], seed=1)
)
POSITIVE = KroneckerProduct(rotated([3.0, 1.0, 0.5]), rotated([1.0, 4.0, 0.0, 2.0], seed=1))
CORRECTED = KroneckerEigenbasis(
    POSITIVE.eigenbasis().left,
    POSITIVE.eigenbasis().right,
    torch.arange(12.0, dtype=torch.float64).sin().reshape(3, 4),
)
ALL = {"indefinite": INDEFINITE, "positive": POSITIVE, "corrected": CORRECTED}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.quick
@pytest.mark.parametrize("name", ALL)
def test_agrees_with_its_dense_form(name):
    K = ALL[name]
    dense = K.dense()
    V = torch.randn(K.shape[1], 3, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(K @ V, dense @ V)
    torch.testing.assert_close(K @ V[:, 0], dense @ V[:, 0])
    assert K.T is K
    assert K.trace() == pytest.approx(dense.trace().item())
    assert K.frobenius_norm() == pytest.approx(dense.norm().item())


@pytest.mark.quick
def test_multiplies_row_major_matrices():
    X = torch.randn(3, 5, generator=generator(), dtype=torch.float64)
    expected = INDEFINITE.left @ X @ INDEFINITE.right
    torch.testing.assert_close(INDEFINITE @ X.flatten(), expected.flatten())
    torch.testing.assert_close(
        INDEFINITE.dense(), torch.kron(INDEFINITE.left, INDEFINITE.right), rtol=0, atol=0
    )


@pytest.mark.quick
def test_is_the_same_in_its_eigenbasis():
    basis = INDEFINITE.eigenbasis()
    torch.testing.assert_close(basis.dense(), INDEFINITE.dense())
    V = torch.randn(15, 2, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(basis.rotate(V), torch.kron(basis.left, basis.right).T @ V)
    torch.testing.assert_close(basis.unrotate(basis.rotate(V[:, 0])), V[:, 0])


@pytest.mark.quick
@pytest.mark.parametrize("name", ALL)
def test_top_eigenpairs(name):
    K = ALL[name]
    expected = torch.linalg.eigvalsh(K.dense()).flip(0)
    for k in (1, 4, K.shape[0]):
        pairs = K.top_eigenpairs(k)
        torch.testing.assert_close(pairs.values, expected[:k], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(K @ pairs.vectors, pairs.vectors * pairs.values)
        torch.testing.assert_close(pairs.vectors.T @ pairs.vectors, torch.eye(k).double())
        assert pairs.residuals.max() < 1e-12
        assert pairs.converged.all()


def test_top_eigenpairs_form_no_large_matrix():
    large = KroneckerProduct(torch.ones(300, 300), torch.eye(200))
    pairs = large.top_eigenpairs(2)  # the matrix would have 3.6e9 entries
    torch.testing.assert_close(pairs.values, torch.tensor([300.0, 300.0]))


@pytest.mark.quick
def test_inverse_with_damping():
    eye = torch.eye(15, dtype=torch.float64)
    damped = INDEFINITE.eigenbasis().inverse(damping=0.3)
    torch.testing.assert_close(damped.dense() @ (INDEFINITE.dense() + 0.3 * eye), eye)
    with pytest.raises(ValueError, match="expected a larger damping than 0"):
        INDEFINITE.eigenbasis().inverse()
    with pytest.raises(ValueError, match="expected a larger damping than -12"):
        POSITIVE.eigenbasis().inverse(-12.0)


@pytest.mark.quick
def test_square_root():
    root = POSITIVE.eigenbasis().sqrt().dense()
    torch.testing.assert_close(root @ root, POSITIVE.dense())
    with pytest.raises(ValueError, match="expected a positive semi-definite matrix"):
        INDEFINITE.eigenbasis().sqrt()


@pytest.mark.quick
def test_square_root_of_what_was_summed_in_float32():
    x = torch.randn(5, 40, generator=generator())
    root = KroneckerProduct(torch.ones(1, 1), x.T @ x).eigenbasis().sqrt()
    torch.testing.assert_close(root.dense() @ root.dense(), x.T @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.quick
def test_log_determinant():
    basis = POSITIVE.eigenbasis()
    eye = torch.eye(12, dtype=torch.float64)
    assert basis.logdet(0.3) == pytest.approx(torch.logdet(POSITIVE.dense() + 0.3 * eye).item())
    assert basis.logdet() == -math.inf
    with pytest.raises(ValueError, match="expected a damping that makes the matrix positive"):
        INDEFINITE.eigenbasis().logdet(1.0)


@pytest.mark.quick
def test_decomposes_in_float64():
    left = rotated([1.0, 1e-5], dtype=torch.float32)
    basis = KroneckerProduct(left, torch.eye(1)).eigenbasis()
    assert basis.dtype == torch.float32
    expected = torch.linalg.eigvalsh(left.double())
    torch.testing.assert_close(basis.values[:, 0].double(), expected, rtol=1e-6, atol=0)


def test_errors(unchecked):
    eye = torch.eye(2)
    with pytest.raises(ValueError, match="expected a square matrix"):
        KroneckerProduct(torch.ones(2, 3), eye)
    with pytest.raises(ValueError, match="expected a symmetric operator"):
        KroneckerProduct(eye, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(TypeError, match="expected factors of one type"):
        KroneckerProduct(eye, eye.double())
    with pytest.raises(TypeError, match="float32 or float64"):
        KroneckerProduct(eye.half(), eye.half())
    for K in (KroneckerProduct(eye, eye), KroneckerProduct(eye, eye).eigenbasis()):
        with pytest.raises(ValueError, match="expected 1 <= k <= 4"):
            K.top_eigenpairs(5)
