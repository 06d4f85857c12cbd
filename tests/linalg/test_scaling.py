"""Multiplying the loss by a number multiplies what is measured, and changes nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lossgeom as lg
from tests.linalg.spectra import SPECTRA, rotated

DENSITY = {"probes": 3, "steps": 8}


def density(part):
    return lambda A: part(lg.spectral_density(A, **DENSITY))


def values(estimate):
    return [estimate.value, estimate.stderr]


def pairs(solve):
    def numbers(A):
        found = solve(A, 2)
        return [*found.values.tolist(), *found.converged.tolist()]

    return numbers


def rank(kind):
    return lambda A: values(lg.effective_rank(A @ A.T if kind != "stable" else A, kind=kind,
                                              matvecs=40))  # fmt: skip


def solved(A):
    b = A[:, 0].clone()
    shift = A.diagonal().abs().max().item() * 4
    found = lg.conjugate_gradients(A, b, damping=shift)
    return [*found.x[:3].tolist(), found.converged.all().item()]


def diagonal(A):
    found = lg.diagonal(A, matvecs=30)
    return [*found.values[:3].tolist(), *found.stderr[:3].tolist()]


def norm(A):
    found = lg.spectral_norm(A)
    return [found.value, found.converged]


# what is measured, and the power of the scale that it has
MEASURED = {
    "top_eigenpairs": (pairs(lg.top_eigenpairs), 1),
    "spectral_norm": (norm, 1),
    "trace": (lambda A: values(lg.trace(A, matvecs=40)), 1),
    "diagonal": (diagonal, 1),
    "frobenius_norm": (lambda A: values(lg.frobenius_norm(A, matvecs=40)), 1),
    "stable": (rank("stable"), 0),
    "conjugate_gradients": (solved, 0),
    "nodes": (density(lambda found: found.nodes[:, -1].tolist()), 1),
    "width": (density(lambda found: [found.width]), 1),
    "mass": (density(lambda found: [found.mass]), 0),
    "moment_1": (density(lambda found: values(found.moment(1))), 1),
    "moment_2": (density(lambda found: values(found.moment(2))), 2),
}


@pytest.mark.parametrize("name", MEASURED)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(-100, 100), st.sampled_from([torch.float32, torch.float64]))
def test_estimates_scale(name, exponent, dtype):
    """By powers of two, which round nothing, from 1e-30 to 1e30."""
    A = rotated(SPECTRA["hessian"], dtype=dtype)
    measure, power = MEASURED[name]
    scale = 2.0**exponent
    for one, other in zip(measure(A), measure(A * scale), strict=True):
        expected = one if isinstance(one, bool) else one * scale**power
        assert other == pytest.approx(expected, rel=1e-3, abs=1e-6 * scale**power)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e20, 1e30])
@pytest.mark.parametrize("kind", ["stable", "intrinsic", "participation"])
def test_effective_ranks_do_not_change(scale, dtype, kind):
    A = torch.diag(torch.linspace(1, 3, 80, dtype=torch.float64))
    expected = lg.effective_rank(A, kind=kind, matvecs=200).value
    found = lg.effective_rank((A * scale).to(dtype), kind=kind, matvecs=200)
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.converged


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e20, 1e30])
def test_counts_do_not_change(scale):
    A = rotated(SPECTRA["outliers"], dtype=torch.float32)
    one, other = (lg.spectral_density(M, probes=3, steps=8) for M in (A, A * scale))
    expected, found = one.count(1, math.inf), other.count(scale, math.inf)
    assert found.value == pytest.approx(expected.value, rel=1e-3)
    assert found.stderr == pytest.approx(expected.stderr, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e20, 1e30])
def test_a_scaled_loss(scale, dtype):
    """Everything that is measured of a Hessian, through a loss that is multiplied by a number."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    data = [(torch.randn(8, 3, dtype=dtype), torch.randn(8, 2, dtype=dtype))]

    def hessian(factor):
        def loss(outputs, batch):
            return factor * (outputs - batch[1]).square().sum(), len(outputs)

        return lg.Hessian(lg.Problem(model, loss, data, check=False))

    one, other = hessian(1.0), hessian(scale)
    for probes in (2, 20):  # sampled, and exact
        expected, found = (lg.off_block_mass(H, probes=probes) for H in (one, other))
        assert 0 < found.value == pytest.approx(expected.value, rel=1e-3)
        assert found.stderr == pytest.approx(expected.stderr, rel=1e-2, abs=1e-6)
    for measure in (lg.spectral_norm, lg.frobenius_norm, lg.trace):
        expected, found = measure(one), measure(other)
        assert found.value == pytest.approx(scale * expected.value, rel=1e-3)
        assert found.converged
    assert lg.sharpness(other.problem).value == pytest.approx(
        scale * lg.sharpness(one.problem).value, rel=1e-3
    )


def test_a_zero_matrix_is_zero_at_any_scale():
    zero = torch.zeros(40, 40)
    assert lg.spectral_norm(zero).value == 0
    assert lg.effective_rank(zero).value == 0
    assert lg.spectral_norm(torch.full((40, 40), math.nan)).status == "nonfinite"
