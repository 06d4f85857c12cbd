"""The largest eigenpair from a start near it."""

import pytest
import torch

from lossgeom.linalg import as_operator, followed_pairs, top_eigenpairs

pytestmark = pytest.mark.quick


def matrix(n=60, seed=0, top=(5.0, 3.0)):
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    values = torch.cat([torch.linspace(-1, 2, n - len(top)), torch.tensor(top).flip(0)]).double()
    return Q @ torch.diag(values) @ Q.T, Q


def turned(Q, by, seed=1):
    noise = torch.randn(len(Q), generator=torch.Generator().manual_seed(seed)).double()
    v = Q[:, -1] + by * noise / noise.norm()
    return (v / v.norm())[:, None]


@pytest.mark.parametrize("by", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_the_error_is_within_the_tolerance(by, tol):
    A, Q = matrix()
    pairs = followed_pairs(as_operator(A), turned(Q, by), tol=tol, next_value=3.0)
    assert pairs.converged.all()
    assert 5 - tol * 5 <= pairs.values[0].item() <= 5 + 1e-9
    assert not pairs.verified
    difference = A @ pairs.vectors - pairs.values * pairs.vectors
    assert difference.norm() <= pairs.residuals[0] <= difference.norm() + 1e-6


def test_a_good_start_takes_one_product():
    A, Q = matrix()
    pairs = followed_pairs(as_operator(A), turned(Q, 0.05), tol=1e-2, next_value=3.0)
    assert pairs.matvecs == 1
    cold = top_eigenpairs(as_operator(A), tol=1e-2)
    assert cold.matvecs > 5


def test_without_a_second_eigenvalue_the_residual_decides():
    A, Q = matrix()
    pairs = followed_pairs(as_operator(A), turned(Q, 0.05), tol=1e-2)
    assert pairs.matvecs > 1
    assert abs(pairs.values[0].item() - 5) <= 5e-2


def test_two_pairs_whose_order_changes():
    A, Q = matrix(top=(5.0, 4.9))
    start = Q[:, [-2, -1]]
    pairs = followed_pairs(as_operator(A), start, tol=1e-2)
    assert pairs.values.tolist() == pytest.approx([5.0, 4.9])
    assert pairs.vectors.shape == (60, 2)


def test_a_limit_of_products_and_a_start_of_nothing():
    A, Q = matrix()
    pairs = followed_pairs(as_operator(A), turned(Q, 0.9), tol=1e-8, max_matvecs=2)
    assert pairs.matvecs == 2
    assert not pairs.converged.any()
    pairs = followed_pairs(as_operator(A), torch.zeros(60, 1).double(), tol=1e-2)
    assert pairs.values[0].item() == pytest.approx(5, rel=1e-2)


def test_what_is_not_finite():
    A = as_operator(torch.diag(torch.tensor([1.0, float("nan")])))
    pairs = followed_pairs(A, torch.ones(2, 1), tol=1e-2)
    assert pairs.values.isnan().all()
    assert not pairs.converged.any()


def test_settings():
    A, Q = matrix()
    with pytest.raises(ValueError, match="expected a tolerance 0 < tol < 1, got 1"):
        followed_pairs(as_operator(A), Q[:, -1:], tol=1)
    with pytest.raises(ValueError, match="expected max_matvecs of at least 1, got 0"):
        followed_pairs(as_operator(A), Q[:, -1:], tol=0.1, max_matvecs=0)
