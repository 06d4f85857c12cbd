"""The closest Kronecker product of a small matrix, against the rearrangement's singular values."""

import pytest
import torch

from lossgeom import best_kronecker_product


def semidefinite(n=15, seed=0):
    Z = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Z @ Z.T


def optimum(A, m, n):
    R = A.reshape(m, n, m, n).transpose(1, 2).reshape(m * m, n * n)
    return torch.linalg.svdvals(R)[1:].norm()


@pytest.mark.quick
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 15), (15, 1)])
def test_is_as_close_as_the_largest_singular_value_allows(shape):
    A = semidefinite()
    K = best_kronecker_product(A, shape)
    distance = (A - K.dense()).norm()
    torch.testing.assert_close(distance, optimum(A, *shape), rtol=1e-8, atol=1e-6)
    assert torch.linalg.eigvalsh(K.left).min() > -1e-8
    assert torch.linalg.eigvalsh(K.right).min() > -1e-8


@pytest.mark.quick
def test_takes_an_indefinite_matrix():
    A = semidefinite() - semidefinite(seed=1)
    K = best_kronecker_product(A, (3, 5))
    torch.testing.assert_close((A - K.dense()).norm(), optimum(A, 3, 5))


def test_looks_for_symmetric_factors_only():
    J = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    A = 3 * torch.kron(J, J) + torch.eye(4, dtype=torch.float64)
    K = best_kronecker_product(A, (2, 2))
    torch.testing.assert_close(K.dense(), torch.eye(4, dtype=torch.float64))


def test_finds_a_product_again():
    left, right = semidefinite(4).float(), semidefinite(3, seed=1).float()
    A = torch.kron(left, right)
    K = best_kronecker_product(A, (4, 3))
    torch.testing.assert_close(K.dense().float(), A)


def test_errors():
    with pytest.raises(ValueError, match=r"expected a matrix of 3 x 4 = 12 rows, got 15"):
        best_kronecker_product(semidefinite(), (3, 4))
    with pytest.raises(ValueError, match=r"at most 4096 rows, got 4097; best_kronecker\(problem\)"):
        best_kronecker_product(torch.empty(4097, 4097), (1, 4097))
    with pytest.raises(ValueError, match="expected a symmetric operator"):
        best_kronecker_product(torch.ones(4, 4).triu(), (2, 2))
    with pytest.raises(ValueError, match="expected a finite matrix"):
        best_kronecker_product(torch.full((4, 4), torch.nan), (2, 2))
