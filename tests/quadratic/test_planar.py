"""The planar case, the hierarchy of moments, and gradient flow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossgeom.quadratic import (
    Dense,
    Descent,
    FlowError,
    ImplicitModel,
    Planar,
    QuadraticModel,
    descend,
    eigencoordinates,
    flow_limit,
    gradient_flow,
    invariant,
    moment_step,
    moments,
    next_moments,
    residuals,
)
from tests.quadratic.models import double, normal, random_model, symmetric

OMEGA = double(1, -0.1)


@pytest.mark.quick
def test_numbers_by_hand():
    z, J = double(0.3), double(1.2, 0.4)[None]
    T = moments(OMEGA, J, range(4))
    torch.testing.assert_close(T[0], double(1.6, 1.424, 1.4416, 1.43984), rtol=1e-15, atol=0)
    later, moved = moment_step(z, T)
    torch.testing.assert_close(later, double(-0.11592), rtol=1e-15, atol=0)
    torch.testing.assert_close(moved[0], double(0.875344, 0.6886256), rtol=1e-15, atol=0)
    E = invariant(OMEGA, z, J)
    torch.testing.assert_close(E, double(-0.76), rtol=1e-15, atol=0)
    planar = Planar(0.1, E.item())
    torch.testing.assert_close(planar.jacobian(z, T[:, 0])[0], J[0])
    torch.testing.assert_close(planar.step(z, T[:, 0])[1], moved[:, 0])


@pytest.mark.quick
@pytest.mark.parametrize(("eps", "E", "z", "T"), [(0.05, 0, -0.2, 1.5), (0.3, -1, 0.1, 2.2)])
def test_the_plane_is_the_model(eps, E, z, T):
    planar, start = Planar(eps, E), (double(z), double(T))
    path = planar.descend(*start, steps=60)
    descent = Descent(steps=60, every=1, observe={"z": residuals, "J": lambda p: p.J})
    found = descend(planar.model(*start), descent)
    torch.testing.assert_close(path[0], found.recorded["z"][..., 0], rtol=1e-9, atol=1e-12)
    T = found.recorded["J"].square().sum((2, 3))
    torch.testing.assert_close(path[1], T, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_the_invariant_of_descent(seed, P):
    omega = normal(P, seed=seed)
    omega = omega.sign() * (0.2 + omega.abs())
    z, J = normal(3, seed=seed + 1, scale=0.3), normal(3, P, seed=seed + 2, scale=0.4)
    model = QuadraticModel(z[:, None], J[:, None], Dense(torch.diag(omega)[None]))
    descent = Descent(steps=50, every=1, observe={"z": residuals, "J": lambda p: p.J})
    found = descend(model, descent)
    for z, J, loss in zip(*(found.recorded[k] for k in ("z", "J", "loss")), strict=True):
        going = ~loss.isnan() & (loss < 1)
        now = invariant(omega, z[going, 0], J[going, 0])
        start = invariant(omega, model.y[going, 0], model.G[going, 0])
        assert ((now - start).abs() <= 1e-12 * (1 + J[going].square().sum((1, 2)) * 5)).all()


@pytest.mark.parametrize("P", [1, 2, 4])
def test_moments_against_the_model(P):
    """For any spectrum, with the moments that are lost in each step given back."""
    Q = symmetric(P, seed=3)
    omega, J = eigencoordinates(Q, normal(4, P, seed=1, scale=0.6))
    z = normal(4, seed=2, scale=0.2)
    model = QuadraticModel(z[:, None], normal(4, 1, P, seed=1, scale=0.6), Dense(Q[None]))
    T = moments(omega, J, range(P))
    for step in range(1, 11):
        z, T = moment_step(z, next_moments(omega, T, more=2 if P > 1 else 3))
        T = T[:, :P]
        found = descend(model, Descent(steps=step))
        torch.testing.assert_close(found.final["z"][:, 0], z, rtol=1e-10, atol=1e-12)
        direct = torch.einsum("rai,ik,rak->r", found.final["J"], Q, found.final["J"])
        torch.testing.assert_close(found.ntk[-1], T[:, 0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(moment_1(omega, T), direct, rtol=1e-10, atol=1e-12)


def moment_1(omega, T):
    return next_moments(omega, T, more=1)[:, 1]


def test_a_repeated_eigenvalue_counts_once():
    omega, J = double(1, -0.5, -0.5), normal(3, 3)
    T = moments(omega, J, range(5))
    torch.testing.assert_close(next_moments(double(1, -0.5), T[:, :2], more=3), T)


@pytest.mark.parametrize(
    ("eps", "E"), [(0.1, 0.0), (0.3, -2.0), (1.0, 0.5), (0.05, -6.0), (0.1, -4.0)]
)
def test_fixed_points_and_nullclines(eps, E):
    planar = Planar(eps, E)
    points = planar.fixed_points()
    for z, T in points:
        planar.jacobian(double(z), double(T))
        moved = torch.cat(planar.step(double(z), double(T)))
        torch.testing.assert_close(moved, double(z, T), rtol=1e-12, atol=1e-12)
    assert (2.0, 4 + E) in points or E < -4
    z = torch.linspace(-1.5, 1.45, 20, dtype=torch.float64)
    lines = planar.nullclines(z)
    torch.testing.assert_close(planar.step(z, lines["z"])[0], z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(planar.step(z, lines["T"])[1], lines["T"], rtol=1e-9, atol=1e-9)
    assert len(set(points)) == len(points)
    if eps < 1:
        flow = planar.velocity(z, lines["flow_T"])[1]
        torch.testing.assert_close(flow, torch.zeros_like(z), rtol=0, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1), st.floats(0, 3), st.floats(0, 3), st.floats(-1, 1))
def test_coordinates_of_the_plane(eps, J1, J2, z):
    """E and T(0) of a Jacobian give it back, also on the boundary of what exists."""
    omega, J = double(1, -eps), double(J1, J2)[None]
    E = invariant(omega, double(z), J).item()
    T = J.square().sum(1)
    found = Planar(eps, E).jacobian(double(z), T)
    torch.testing.assert_close(found.square(), J.square(), rtol=1e-9, atol=1e-9)


def test_the_boundary_in_single_precision():
    omega, J = torch.tensor([1.0, -0.1]), torch.linspace(0.1, 3, 40)
    for J1, z in zip(J, J.flip(0) / 3, strict=True):
        E = invariant(omega, z[None], torch.stack([J1, 0 * J1])[None]).item()
        found = Planar(0.1, E).jacobian(z, J1.square())
        assert found[1].square() < 1e-5
    with pytest.raises(ValueError, match="out of its range there"):
        Planar(0.1, E).jacobian(z, J1.square() - 0.01)


def test_two_steps_are_two_steps():
    planar, start = Planar(0.2), (double(0.1), double(2.1))
    z, T = planar.descend(*start, steps=2)
    again = planar.two_steps(*start)
    torch.testing.assert_close((z[-1], T[-1]), again)


def test_the_plane_diverges_without_overflow():
    z, T = Planar(0.01).descend(double(0.01, 0.01), double(4.4, 2.2), steps=300)
    assert z.isfinite().all()
    assert T.isfinite().all()
    assert z[-1, 0].abs() > 1e6
    assert z[-1, 1].abs() < 1


@pytest.mark.parametrize(
    ("eps", "T", "z", "limit"),
    [(0.01, 1.6, -0.3, 2.19299), (0.01, 1, -0.2, 1.39529), (0.1, 1.6, -0.3, 2.12981)],
)
def test_the_limit_of_gradient_flow(eps, T, z, limit):
    """The closed form beside the known numbers, and beside the integrator."""
    planar, start = Planar(eps), (double(z), double(T))
    found = planar.flow_limit(*start)
    assert found.item() == pytest.approx(limit, abs=5e-6)
    flow = gradient_flow(planar.model(*start), [0.0, 1.0, 40.0])
    assert flow.ntk[-1].item() == pytest.approx(found.item(), rel=1e-8)
    assert flow.ntk[0].item() == pytest.approx(T)
    assert flow.final["z"].abs().item() < 1e-9


def test_flow_where_the_residual_cannot_vanish():
    """Q of one sign: z = (theta^2 + 1) / 2 ends at 1/2, without a slope."""
    omega, z, J = double(1), double(1), double(1)[None]
    assert flow_limit(omega, z, J).item() == pytest.approx(0, abs=1e-12)
    model = QuadraticModel(z[:, None], J[:, None], Dense(torch.ones(1, 1, 1).double()))
    flow = gradient_flow(model, [60.0])
    assert flow.final["z"].item() == pytest.approx(0.5)


def test_flow_that_a_small_eigenvalue_decides():
    """The root is thousands of times further off than the largest eigenvalue says."""
    omega, z, J = double(1, -1e-3), double(0.5), double(0.1, 1e-3)[None]
    found = flow_limit(omega, z, J)
    model = QuadraticModel(z[:, None], J[:, None], Dense(torch.diag(omega)[None]))
    flow = gradient_flow(model, [1e7], method="LSODA")
    assert flow.ntk[-1].item() == pytest.approx(found.item(), rel=1e-5)
    assert found.item() == pytest.approx(-1e-3 * invariant(omega, z, J).item(), rel=1e-9)
    still = flow_limit(omega, z, double(0.0, 0.1)[None])  # J_1 = 0, where an exponential overflows
    assert still.item() == pytest.approx(0.01 + 2e-3 * 0.5)


def test_flow_at_its_start():
    model = random_model(R=2)
    flow = gradient_flow(model, [0.0])
    assert torch.equal(flow.final["z"], model.y)
    assert flow.ntk.shape == (1, 2)


def test_gradient_flow_is_the_limit_of_descent():
    model = random_model(R=3, own=True).rescaled(0.05)
    times = [0.5, 1.0, 2.0]
    flow = gradient_flow(model, times)
    assert flow.steps.tolist() == times
    errors = []
    for rate in (1e-2, 1e-3):
        found = descend(model, Descent(round(2 / rate), rate, every=round(0.5 / rate)))
        errors.append((found.losses[[1, 2, 4]] / flow.losses - 1).abs().max().item())
    assert errors[1] < 0.12 * errors[0] < 0.02
    first = model.rows(slice(1))
    function = ImplicitModel(lambda theta: first.at(theta).z, torch.zeros(1, 4).double())
    alone = gradient_flow(function, times, observe={})
    torch.testing.assert_close(alone.losses[:, 0], flow.losses[:, 0], rtol=1e-8, atol=0)


def test_flow_refuses(unchecked):
    for times in ([], [1.0, 1.0], [-1.0], [float("inf")]):
        with pytest.raises(ValueError, match="times that increase"):
            gradient_flow(random_model(), times)
    with pytest.raises(ValueError, match="runs of at least 1, got 0"):
        gradient_flow(random_model().rows(slice(0)), [1.0])
    runaway = ImplicitModel(lambda theta: theta, torch.ones(1, 1).double())
    with pytest.raises(FlowError, match="the integrator stopped"):  # theta = 1 / (1 - t)
        gradient_flow(runaway, [2.0], loss=lambda z: -z.pow(3).sum(1) / 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Planar(0.0), r"eps in \(0, 1\], got 0.0; exchange"),
        (lambda: Planar(1.5), r"eps in \(0, 1\]"),
        (lambda: Planar(0.1, float("nan")), "expected E"),
        (lambda: Planar(0.1, 3.0).descend(double(0), double(2), 1), "out of its range there"),
        (lambda: Planar(0.1, -30.0).model(double(0), double(2)), "out of its range there"),
        (lambda: moment_step(double(0), normal(1, 2)), "at least the moments"),
        (lambda: next_moments(OMEGA, normal(1, 1)), "each of 2 eigenvalues, got 1"),
        (lambda: invariant(double(1, 0), double(0), normal(1, 2)), "invertible Q"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(ValueError, match=text):
        make()
