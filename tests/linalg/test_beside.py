"""What a Krylov basis leaves of an operator has the eigenvalues that the basis has missed."""

import pytest
import torch

from lossgeom.linalg import Dense, random_numbers
from lossgeom.linalg._beside import Beside
from lossgeom.linalg._krylov import Krylov, Products
from lossgeom.linalg._ritz import Ritz
from tests.linalg.spectra import rotated


@pytest.mark.quick
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_eigenvalues_beyond_a_place_are_counted(which, restart):
    """Whatever the place, and whether the pairs of the basis have converged or not."""
    n, sign = 60, 1.0 if which == "largest" else -1.0
    values = sign * torch.cat([torch.linspace(-1, 2, n - 6), torch.tensor([3.0, 3, 4, 4, 4, 6])])
    A = rotated(values)
    basis = Krylov(Products(Dense(A), 99), A[:0], A[:0], n, random_numbers(0))
    for _ in range(9):
        basis.grow(Ritz.of(basis, which).weights[:, 0])
    if restart:
        basis.restart(Ritz.of(basis, which).weights[:, :4])
    ritz = Ritz.of(basis, which)
    for place in (0.5, 1.7, 2.5, 3.5, 5.0, 7.0):
        beside = Beside.of(ritz, 2, place, which)
        outside = torch.linalg.svd(beside.locked).Vh[len(beside.locked) :]
        left = torch.linalg.eigvalsh(outside @ beside.A.matmat(outside.T))
        found = (sign * ritz.values > place).sum() + (sign * left > place).sum()
        assert found == (sign * values > place).sum()


def test_a_vector_of_the_complement_stands_for_a_pair():
    """At an eigenvalue it is one of the complement, and completed an eigenvector of A."""
    values = torch.cat([torch.linspace(-1, 2, 50), torch.tensor([3.0, 4.0])]).double()
    A = rotated(values)
    basis = Krylov(Products(Dense(A), 99), A[:0], A[:0], 52, random_numbers(0))
    for _ in range(4):
        basis.grow(Ritz.of(basis, "largest").weights[:, 0])
    beside = Beside.of(Ritz.of(basis, "largest"), 1, 3.0, "largest")
    outside = torch.linalg.svd(beside.locked).Vh[len(beside.locked) :]
    left, vectors = torch.linalg.eigh(outside @ beside.A.matmat(outside.T))
    at = (left - 3).abs().argmin()
    assert left[at] == pytest.approx(3)
    (whole,) = beside.completed(vectors[:, at][None] @ outside)
    torch.testing.assert_close(A @ whole, 3 * whole)
