"""Conjugate gradients."""

import math

import pytest
import torch

import lossgeom as lg
from lossgeom.linalg import MatrixFree
from tests.linalg.spectra import FORMS, SPECTRA, rotated


def right_hand_sides(n, k=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, k, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_known_spectra(name, damping):
    """Positive definite ones are solved; of the others it is said that they are not."""
    A = rotated(SPECTRA[name])
    values = torch.linalg.eigvalsh(A) + damping
    B = right_hand_sides(len(A))
    solution = lg.conjugate_gradients(A, B, damping=damping, tol=1e-8)
    M = A + damping * torch.eye(len(A), dtype=A.dtype)
    true, rounding = (B - M @ solution.x).norm(dim=0), 1e-15 * values.abs().max()
    slack = 1e-11 + 2 * rounding * solution.x.norm(dim=0)
    assert ((solution.residuals - true).abs() <= 1e-6 * true + slack).all()
    assert (solution.converged <= (solution.residuals <= 1e-8 * B.norm(dim=0))).all()
    if values.min() > 1e-6:
        assert solution.converged.all()
        assert not solution.negative_curvature.any()
        torch.testing.assert_close(solution.x, torch.linalg.solve(M, B), rtol=1e-5, atol=1e-7)
    elif values.min() < -1e-6:
        assert solution.negative_curvature.all()
        assert not solution.converged.any()
        D = solution.directions
        assert ((D * (M @ D)).sum(0) <= 0).all()
        torch.testing.assert_close(D.norm(dim=0), torch.ones(3, dtype=torch.float64))
    else:
        assert not solution.converged.any()  # no solution is small enough to be found


@pytest.mark.quick
def test_a_consistent_singular_system():
    A = rotated(SPECTRA["rank_deficient"])
    b = A @ right_hand_sides(50, 1)[:, 0]
    solution = lg.conjugate_gradients(A, b, tol=1e-10)
    assert solution.converged.all()
    torch.testing.assert_close(solution.x, torch.linalg.pinv(A, hermitian=True) @ b)


def test_columns_do_not_depend_on_each_other():
    A, B = rotated(SPECTRA["wishart"]), right_hand_sides(60, 20)
    together = lg.conjugate_gradients(A, B, tol=1e-9)
    alone = [lg.conjugate_gradients(A, b, tol=1e-9) for b in B.unbind(1)]
    torch.testing.assert_close(
        together.x, torch.stack([s.x for s in alone], 1), rtol=1e-6, atol=1e-9
    )
    assert abs(together.matvecs - sum(s.matvecs for s in alone)) <= 20  # rounding: one each
    assert together.x.shape == B.shape
    assert alone[0].x.shape == (60,)
    assert alone[0].residuals.shape == (1,)


def test_float32_says_what_the_residual_really_is():
    """The recurrence alone would claim far less than float32 can give."""
    A = rotated(torch.logspace(-4, 0, 60), dtype=torch.float32)
    b = right_hand_sides(60, 1, torch.float32)[:, 0]
    solution = lg.conjugate_gradients(A, b, tol=1e-12)
    true = (b.double() - A.double() @ solution.x.double()).norm().item()
    rounding = 10 * torch.finfo(torch.float32).eps * solution.x.norm().item()  # of the product
    assert solution.residuals.item() == pytest.approx(true, abs=rounding)
    assert not solution.converged.any()
    easy = lg.conjugate_gradients(A, b, damping=1.0, tol=1e-5)
    assert easy.converged.all()


def test_a_start_and_a_preconditioner_save_products():
    values = torch.logspace(-4, 1, 200, dtype=torch.float64)
    A, b = torch.diag(values), torch.ones(200, dtype=torch.float64)
    plain = lg.conjugate_gradients(A, b)
    near = lg.conjugate_gradients(A, b, x0=plain.x)
    helped = lg.conjugate_gradients(A, b, preconditioner=torch.diag(1 / (values + 1e-3)))
    assert plain.converged.all()
    assert near.matvecs == 1
    assert helped.converged.all()
    assert helped.matvecs < plain.matvecs / 2


def test_says_when_it_has_not_converged():
    A = rotated(torch.logspace(-4, 1, 200))
    solution = lg.conjugate_gradients(A, torch.ones(200), max_matvecs=10)
    assert not solution.converged.any()
    assert not solution.negative_curvature.any()
    assert solution.matvecs <= 11


@pytest.mark.parametrize("form", FORMS)
def test_takes_what_multiplies(form):
    A, B = rotated(SPECTRA["wishart"]), right_hand_sides(60)
    expected = torch.linalg.solve(A, B)
    found = lg.conjugate_gradients(FORMS[form](A), B, tol=1e-10)
    torch.testing.assert_close(found.x, expected, rtol=1e-6, atol=1e-6)


def test_products_come_in_blocks_and_are_counted():
    A, widths = rotated(SPECTRA["wishart"]), []

    def product(V):
        widths.append(V.shape[1])
        return A @ V

    operator = MatrixFree(A.shape, A.dtype, A.device, product, lambda: operator)
    solution = lg.conjugate_gradients(operator, right_hand_sides(60, 10))
    assert sum(widths) == solution.matvecs
    assert max(widths) == 8


def test_one_by_one_zero_and_nan():
    assert lg.conjugate_gradients(torch.tensor([[4.0]]), torch.tensor([2.0])).x.item() == 0.5
    nothing = lg.conjugate_gradients(torch.eye(3), torch.zeros(3))
    assert nothing.converged.all()
    assert not nothing.x.any()
    zero = lg.conjugate_gradients(torch.zeros(3, 3), torch.ones(3))
    assert zero.negative_curvature.all()
    bad = lg.conjugate_gradients(torch.diag(torch.tensor([1.0, math.nan])), torch.ones(2))
    assert bad.x.isnan().any()
    assert not bad.converged.any()
    assert not bad.negative_curvature.any()


def test_same_bits():
    A, B = rotated(SPECTRA["wishart"]), right_hand_sides(60)
    first, again = (lg.conjugate_gradients(A, B) for _ in range(2))
    assert torch.equal(first.x, again.x)


def test_errors(unchecked):
    for arguments, message in (
        ({"b": torch.ones(4)}, r"expected b of shape \(3,\) or \(3, k\), got \(4,\)"),
        ({"x0": torch.ones(3, 1)}, r"expected x0 of shape \(3,\), got \(3, 1\)"),
        ({"b": torch.full((3,), math.nan)}, "expected finite b and x0"),
        ({"damping": -1.0}, r"expected damping >= 0, got -1\.0"),
        ({"preconditioner": torch.eye(2)}, r"expected a preconditioner of shape \(3, 3\)"),
        ({"tol": 0.0}, "expected a tolerance 0 < tol < 1"),
        ({"max_matvecs": 0}, "expected max_matvecs of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            lg.conjugate_gradients(torch.eye(3), **{"b": torch.ones(3), **arguments})
    with pytest.raises(ValueError, match="expected a square matrix"):
        lg.conjugate_gradients(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match="expected a symmetric operator"):
        lg.conjugate_gradients(torch.eye(9) + torch.triu(torch.ones(9, 9)), torch.ones(9))
