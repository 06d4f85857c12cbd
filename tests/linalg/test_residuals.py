"""No residual is smaller than the one that a recomputation in float64 gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lossgeom as lg
from lossgeom.linalg import MatrixFree
from tests.linalg.spectra import SPECTRA, rotated

EIGENVALUES = st.one_of(
    st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=1, max_size=12),
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -2.0]), min_size=1, max_size=12),  # degenerate
    st.lists(st.integers(-12, 3).map(lambda e: 10.0**e), min_size=1, max_size=12),  # graded
)
DTYPES = st.sampled_from([torch.float32, torch.float64])
SCALES = st.sampled_from([1.0, 2.0**-80, 2.0**80])
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)


def recomputed(A, pairs):
    V = pairs.vectors.double()
    return (A.double() @ V - V * pairs.values.double()).norm(dim=0)


def assert_covers(residuals, true):
    """But for the arithmetic of the recomputation itself, and of the numbers handed back."""
    assert (residuals.double() * (1 + 1e-6) >= true).all(), (residuals, true)


@PROPERTY
@given(EIGENVALUES, DTYPES, SCALES, st.integers(1, 12), st.data())
def test_residuals_of_eigenpairs(values, dtype, scale, k, data):
    A = (rotated(values, seed=len(values)) * scale).to(dtype)
    k = min(k, len(A))
    which = data.draw(st.sampled_from(["largest", "smallest"]))
    tol = data.draw(st.sampled_from([1e-2, 1e-5, 1e-9]))
    limit = data.draw(st.sampled_from([3, 40, 300]))
    pairs = lg.top_eigenpairs(A, k, which=which, tol=tol, max_matvecs=limit)
    assert_covers(pairs.residuals, recomputed(A, pairs))
    rounding = 21 * torch.finfo(dtype).eps * torch.linalg.matrix_norm(A.double(), ord=2)
    goal = torch.maximum(1.001 * tol * pairs.values.double().abs(), rounding)
    assert (pairs.residuals.double() <= goal)[pairs.converged].all()


@PROPERTY
@given(EIGENVALUES, DTYPES, SCALES, st.sampled_from([0.0, 0.5, 3.0]), st.integers(1, 3))
def test_residuals_of_linear_systems(values, dtype, scale, damping, k):
    A = (rotated([abs(value) for value in values], seed=k) * scale).to(dtype)
    generator = torch.Generator().manual_seed(k)
    b = scale * torch.randn(len(A), k, generator=generator, dtype=torch.float64)
    b = b.to(dtype)
    found = lg.conjugate_gradients(A, b, damping=damping * scale)
    M = A.double() + damping * scale * torch.eye(len(A), dtype=torch.float64)
    true = (b.double() - M @ found.x.double()).norm(dim=0)
    assert_covers(found.residuals, true)
    assert (found.residuals.double() <= 1.001e-5 * b.double().norm(dim=0))[found.converged].all()


@PROPERTY
@given(EIGENVALUES, DTYPES, SCALES, st.integers(1, 6))
def test_residuals_of_spectral_norms(values, dtype, scale, columns):
    A = (rotated(values, seed=1)[:, :columns] * scale).to(dtype)
    found = lg.spectral_norm(A)
    singular = torch.linalg.svdvals(A.double() / scale) * scale
    assert_covers(torch.tensor([found.residual]), (singular - found.value).abs().min())


def test_float32_says_what_float32_can_give():
    """Convergence in the basis goes on far below the rounding of the products it is made of."""
    A = rotated(SPECTRA["outliers"], dtype=torch.float32)
    pairs = lg.top_eigenpairs(A, 3, tol=1e-7)
    true = recomputed(A, pairs)
    assert (pairs.residuals.double() >= true).all()
    assert true.min() > 1e-8
    assert pairs.residuals.max() < 1e-4
    everything = lg.top_eigenpairs(A, len(A))
    assert (everything.residuals.double() >= recomputed(A, everything)).all()


def rounding_by(A, size):
    """A matrix whose products are rounded by so much."""

    def product(V):
        return A @ V + size * torch.sin(1e6 * (A @ V))

    rough = MatrixFree(A.shape, A.dtype, A.device, product, lambda: rough)
    return rough


def test_products_that_round_more_than_a_matrix_does():
    """Their rounding is in the residual, and where that exceeds the tolerance, in converged."""
    rough = rounding_by(rotated(SPECTRA["outliers"]), 1e-5)
    pairs = lg.top_eigenpairs(rough, 2, tol=1e-3)
    images = rough @ pairs.vectors - pairs.vectors * pairs.values
    assert pairs.converged.all()
    assert (pairs.residuals >= images.norm(dim=0)).all()
    assert images.norm(dim=0).min() > 1e-5
    assert not lg.top_eigenpairs(rough, 2, tol=1e-8).converged.any()


@pytest.mark.parametrize("k", [1, 10, 53])
def test_residuals_of_a_hessian(k):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 1))
    H = lg.Hessian(lg.Problem(model, "squared_error", [(torch.randn(20, 5), torch.randn(20, 1))]))
    pairs = lg.top_eigenpairs(H, k)
    true = (H @ pairs.vectors - pairs.vectors * pairs.values).double().norm(dim=0)
    assert_covers(pairs.residuals, true)
    assert pairs.top.residual >= true[0].item()


def test_residuals_of_many_pairs_take_few_products():
    """They are known from the basis; where its rounding is too much, they are taken anew."""
    A = rotated([1.3**-i for i in range(12)] + [1e-5] * 100, dtype=torch.float32)
    found = {tol: lg.top_eigenpairs(A, 12, tol=tol) for tol in (1e-3, 1e-6)}
    assert found[1e-3].converged.all()
    assert found[1e-6].matvecs >= found[1e-3].matvecs + 12
    for pairs in found.values():
        assert_covers(pairs.residuals, recomputed(A, pairs))


def test_only_the_residuals_that_rounding_leaves_open_are_taken_anew():
    """Those of the pairs that are found last are near the tolerance, the others far below it."""
    A = rotated([1.3**-i for i in range(12)] + [0.04 * 0.97**i for i in range(100)])
    exact, rough = (
        lg.top_eigenpairs(rounding_by(A, size), 12, tol=1e-3, max_matvecs=100)
        for size in (0.0, 3e-6)
    )
    assert exact.matvecs < rough.matvecs < exact.matvecs + 12
    images = rounding_by(A, 3e-6) @ rough.vectors - rough.vectors * rough.values
    assert rough.converged.all()
    assert (rough.residuals >= images.norm(dim=0)).all()


def test_rounding_of_products_is_in_the_residuals_of_many_pairs():
    rough = rounding_by(rotated([2.0**-i for i in range(12)] + [1e-5] * 100), 1e-7)
    pairs = lg.top_eigenpairs(rough, 12, tol=1e-2)
    images = rough @ pairs.vectors - pairs.vectors * pairs.values
    assert pairs.converged.all()
    assert (pairs.residuals >= images.norm(dim=0)).all()
    assert images.norm(dim=0).min() > 1e-8
