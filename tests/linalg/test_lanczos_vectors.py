"""Lanczos vectors whose orthogonality is known without a look at them."""

import pytest
import torch

from lossgeom import top_eigenpairs
from lossgeom.linalg import Dense, MatrixFree, random_numbers
from lossgeom.linalg._krylov import Krylov, Products
from lossgeom.linalg._ritz import Ritz
from tests.linalg.spectra import SPECTRA, check_pairs, rotated

STEPS = 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("capacity", [STEPS + 2, 10])
@pytest.mark.parametrize("name", ["distinct", "outliers", "negative", "wishart", "hessian"])
def test_stay_orthogonal_to_the_root_of_the_unit_of_rounding(name, capacity, dtype):
    """Also past convergence, where all that was not taken out comes back, and after restarts."""
    A = rotated(SPECTRA[name], dtype=dtype)
    basis = Krylov(Products(Dense(A), 99), A[:0], A[:0], capacity, random_numbers(0), nearly=True)
    for _ in range(STEPS):
        weights = Ritz.of(basis, "largest").weights
        followed = weights[:, 0]
        if len(basis.rows) >= capacity:
            followed = basis.restart(weights[:, :3]).T @ followed
        basis.grow(followed)
        rows = basis.rows[: len(basis.projection)].double()
        lost = rows @ rows.T - torch.eye(len(rows)).double()
        assert lost.abs().max() <= torch.finfo(dtype).eps ** 0.5
    rows = torch.linalg.solve_triangular(torch.linalg.cholesky(rows @ rows.T), rows, upper=False)
    image = rows @ A.double() @ rows.T
    error = (image - basis.projection).abs().max() / image.abs().max()
    assert error <= 1e3 * torch.finfo(dtype).eps


@pytest.mark.quick
def test_most_steps_read_the_last_two_vectors_only(monkeypatch):
    """The eigenvalue comes out the same, with a small part of the passes over the basis."""
    n = 4_000
    values = torch.randn(n, generator=random_numbers(1)).double()
    A = MatrixFree(
        (n, n), values.dtype, torch.device("cpu"), lambda V: values[:, None] * V, lambda: A
    )
    passes, split = [], Krylov._split
    monkeypatch.setattr(Krylov, "_split", lambda *args: passes.append(1) or split(*args))
    pair = top_eigenpairs(A)
    assert pair.converged.all()
    assert len(passes) < pair.matvecs / 3
    found = passes.copy()
    block = top_eigenpairs(A, verify=True)
    assert len(passes) - len(found) > pair.matvecs / 3
    torch.testing.assert_close(pair.values, block.values, rtol=1e-5, atol=0)


def test_goes_on_where_the_basis_was_not_orthogonal_enough(monkeypatch):
    """A pair that is not what the basis says it is becomes the start of a search as of old."""
    A, found = rotated(SPECTRA["hessian"]), Ritz.vectors
    plain, seen = top_eigenpairs(A), []

    def off_at_first(ritz, k):
        seen.append(found(ritz, k))
        return seen[0] + 0.01 * seen[0].roll(1, 1) if len(seen) == 1 else seen[-1]

    monkeypatch.setattr(Ritz, "vectors", off_at_first)
    pair = top_eigenpairs(A)
    assert pair.converged.all()
    assert pair.matvecs > plain.matvecs
    check_pairs(A, pair, 1e-3)
