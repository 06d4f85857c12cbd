"""Where runs end: the edge of stability in the plane, acceleration and phases of random models."""

import pytest
import torch

from lossgeom.quadratic import (
    Descent,
    Expansion,
    Planar,
    QuadraticModel,
    basins,
    descend,
    edge_limit,
    edge_limit_from,
    expected_acceleration,
    gradient_flow,
    initial_motion,
    phase_diagram,
    predicted_acceleration,
    random_models,
)
from tests.quadratic.models import double, normal, random_model


@pytest.mark.parametrize(
    ("eps", "z", "T", "limit"),
    [
        (0.01, 0.05, 2.2, 1.994914),
        (0.02, 0.05, 2.2, 1.989653),
        (0.05, 0.05, 2.2, 1.973431),
        (0.1, 0.05, 2.2, 1.949879),
        (0.2, 0.05, 2.2, 1.914943),
        (0.4, 0.05, 2.2, 1.863989),
        (0.01, -0.3, 1.6, 1.994914),
        (0.1, -0.3, 1.6, 1.941858),
    ],
)
def test_the_limit_at_the_edge(unchecked, eps, z, T, limit):
    """Known numbers, and the formula within the error that it states."""
    found = basins(Planar(eps), double(z), double(T), steps=int(150 / eps))
    assert found.settled.all()
    assert found.limit.item() == pytest.approx(limit, abs=6e-7)
    assert found.highest.item() > 2
    ratio = (2 - found.limit.item()) / (2 - edge_limit(eps))
    if eps <= 0.01:
        assert ratio == pytest.approx(1, abs=0.05)
    elif eps <= 0.1 and T == 2.2:
        assert ratio == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize(
    ("E", "distance"),
    [(-4, 1.546), (-2, 1.024), (-1, 0.766), (0.5, 0.381), (1, 0.253), (1.5, 0.1265)],
)
def test_the_limit_for_other_invariants(unchecked, E, distance):
    found = basins(Planar(0.01, E), double(0.02), double(2.15), steps=40_000)
    assert found.edge.all()
    assert (2 - found.limit.item()) / 0.01 == pytest.approx(distance, abs=6e-4)
    assert (2 - edge_limit(0.01, E)) / (2 - found.limit.item()) == pytest.approx(1, abs=0.05)


def test_what_a_run_remembers(unchecked):
    """Small overshoots end elsewhere, as the formula with a start says."""
    T = double(1.8, 1.95, 2.01, 2.02, 2.03, 2.05, 2.1, 2.2)
    z = torch.full_like(T, 0.01)
    found = basins(Planar(0.01), z, T, steps=20_000)
    assert found.settled.all()
    predicted = edge_limit_from(Planar(0.01), z, T)
    torch.testing.assert_close(2 - found.limit, 2 - predicted, rtol=0.05, atol=0)
    assert found.edge.tolist() == [False] * 4 + [True] * 4
    assert not found.catapulted.any()


def test_basins(unchecked):
    T = double(2.2, 3.0, 3.6, 4.2, 4.4)
    found = basins(Planar(0.01), torch.full_like(T, 0.01), T, steps=20_000)
    assert found.edge.tolist() == [True] * 4 + [False]
    assert found.diverged.tolist() == [False] * 4 + [True]
    torch.testing.assert_close(found.limit[:4], double(*[1.9949] * 4), rtol=0, atol=1e-4)
    assert found.limit[4].isnan()
    T = double(3.8, 4.2)
    deep = basins(Planar(0.1), torch.full_like(T, 0.01), T, steps=5000)
    torch.testing.assert_close(deep.limit, double(1.357, 0.881), rtol=0, atol=5e-4)
    assert deep.catapulted.all()
    assert (deep.largest > 0.5).all()
    stopped = basins(Planar(0.1), double(0.01).requires_grad_(), double(2.2), steps=3)
    assert not stopped.limit.requires_grad
    assert not (stopped.settled | stopped.diverged | stopped.edge | stopped.catapulted).any()


def test_below_the_edge_nothing_is_settled_there(unchecked):
    """Gradient flow ends below 2, so gradient descent does not come to the edge."""
    found = basins(Planar(0.01), double(-0.5), double(1.0), steps=20_000)
    assert Planar(0.01).flow_limit(double(-0.5), double(1.0)).item() == pytest.approx(
        1.986, abs=1e-3
    )
    assert found.limit.item() == pytest.approx(1.9775, abs=5e-5)
    assert not found.edge.any()


@pytest.mark.parametrize("E", [2.5, -21.0])
def test_an_invariant_that_never_sees_the_edge(E):
    with pytest.raises(ValueError, match=r"E in \[-2/eps, 2\] = \[-20, 2\]"):
        edge_limit(0.1, E)
    with pytest.raises(ValueError, match="no model with this E"):
        edge_limit_from(Planar(0.1, E), double(0), double(2))


def test_motion_beside_gradient_flow():
    """Derivatives of the largest eigenvalue, beside differences along the flow."""
    model = random_model(R=3, D=3, P=4, own=True)
    first, second = initial_motion(model)
    h = 1e-3
    there = gradient_flow(model, [0.0, h, 2 * h, 3 * h, 4 * h], rtol=1e-12, atol=1e-14).ntk
    slope = (-25 * there[0] + 48 * there[1] - 36 * there[2] + 16 * there[3] - 3 * there[4]) / 12
    torch.testing.assert_close(first, slope / h, rtol=1e-5, atol=1e-6)
    bend = 35 * there[0] - 104 * there[1] + 114 * there[2] - 56 * there[3] + 11 * there[4]
    torch.testing.assert_close(second, bend / 12 / h**2, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("D", "P"), [(1, 5), (3, 6), (6, 3)])
def test_the_exact_mean_given_the_jacobian(unchecked, D, P):
    """Over z and Q for one J, by 4 standard errors; the asymptotic constant is off here."""
    n, sigma = 20_000, 2.0
    models = random_models(n, D, P, a=sigma * (2 * D * P) ** 0.5, initial_curvature=1.0)
    drawn = models.rows(slice(n))
    J = torch.zeros(1, D, P, dtype=torch.float64)
    J[0].fill_diagonal_(1.0)
    J[0, 0, 0] = 1.5
    first, second = initial_motion(QuadraticModel(drawn.y, J.expand(n, D, P), drawn.Q))
    expected = expected_acceleration(J, sigma).item()
    error = second.std().item() / n**0.5
    assert abs(second.mean().item() - expected) < 4 * error
    assert error < 0.03 * expected
    assert abs(first.mean().item()) < 4 * first.std().item() / n**0.5
    asymptotic = (
        predicted_acceleration(D, P, sigma)
        * Expansion(drawn.y[:1], J).largest_ntk_eigenvalues().item()
    )
    assert abs(second.mean().item() - asymptotic) > 4 * error


@pytest.mark.parametrize(("D", "P", "n"), [(20, 40, 4000), (60, 30, 2000), (80, 20, 1500)])
def test_the_finite_size_of_the_prediction(unchecked, D, P, n):
    """The stated excess over 2 D P sigma^2, within its stated error and 4 standard errors."""
    J, sigma = normal(n, D, P, seed=2), 0.01
    mean = expected_acceleration(J, sigma)
    values = torch.linalg.matrix_norm(J, 2).square()
    ratio = mean.mean() / values.mean()
    error = (mean - ratio * values).std() / n**0.5 / values.mean()
    predicted = predicted_acceleration(D, P, sigma)
    excess = 1.75 * (1 / D + 1 / P)
    allowed = 0.1 * excess * predicted + 4 * error
    assert abs(ratio - predicted * (1 + excess)) < allowed
    assert ratio - predicted > 4 * error


def test_samples_accelerate_as_predicted(unchecked):
    n, D, P, sigma = 1500, 20, 40, 0.01
    scale = 0.05**2 * (D**0.5 + P**0.5) ** 2
    models = random_models(n, D, P, a=sigma * (2 * D * P) ** 0.5, initial_curvature=scale)
    first, second, top = [], [], []
    for at in range(0, n, 100):
        model = models.rows(slice(at, at + 100))
        motion = initial_motion(model)
        first.append(motion[0])
        second.append(motion[1])
        top.append(model.at(model.origin).largest_ntk_eigenvalues())
    first, second, top = (torch.cat(parts) for parts in (first, second, top))
    error = second.std() / n**0.5 / top.mean()
    predicted = predicted_acceleration(D, P, sigma) * (1 + 1.75 * (1 / D + 1 / P))
    assert abs(second.mean() / top.mean() - predicted) < 4 * error
    assert abs(first.mean()) < 4 * first.std() / n**0.5


def test_phases(unchecked):
    """Residuals decide: no sharpening to the edge, the edge, divergence."""
    found = phase_diagram([0.1, 0.6, 3.0], [1.34], outputs=20, parameters=40, runs=12, steps=8000)
    assert [found.phase(i, 0) for i in range(3)] == ["below", "edge", "divergence"]
    assert (found.initial == found.initial[0]).all()  # the same random numbers in every cell
    assert found.initial[0, 0] < found.final[0, 0] < 1.5
    assert 1.9 < found.final[1, 0] < 2.001
    assert found.converged[0, 0] == 1
    assert found.diverged[2, 0] == 1
    assert found.final[2, 0].isnan()


def test_runs_that_have_not_ended_are_in_no_phase(unchecked):
    found = phase_diagram([0.6], [1.34], outputs=20, parameters=40, runs=3, steps=50)
    assert found.converged[0, 0] + found.diverged[0, 0] < 0.5
    assert found.phase(0, 0) == "unsettled"


def test_a_cell_of_the_phase_diagram(unchecked):
    """D = 20, P = 40, a = 0.4, lambda_0 = 1.72: 1.964 and 0.8 of the runs in another sample."""
    models = random_models(20, 20, 40, a=0.4, initial_curvature=1.72)
    found = descend(models, Descent(steps=12_000, tol=1e-8))
    last = found.ntk[-1]
    assert found.ntk[0].median().item() == pytest.approx(1.58, abs=0.1)
    assert last.median().item() == pytest.approx(1.964, abs=0.03)
    inside = ((last > 1.9) & (last < 2.001)).double().mean().item()
    assert abs(inside - 0.8) <= 4 * (2 * 0.8 * 0.2 / 20) ** 0.5
    assert (last.median() < 2).item()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: predicted_acceleration(0, 1, 0.1), "outputs of at least 1"),
        (lambda: predicted_acceleration(1, 1, -0.1), "sigma_z >= 0"),
        (lambda: random_models(0, 1, 1, a=0.1, initial_curvature=1), "runs of at least 1"),
        (lambda: random_models(1, 1, 1, a=-0.1, initial_curvature=1), "a >= 0"),
        (lambda: random_models(1, 1, 1, a=0.1, initial_curvature=-1), "initial_curvature >= 0"),
        (lambda: phase_diagram([], [1.0], outputs=1, parameters=1, runs=1), "cells of at least 1"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(ValueError, match=text):
        make()
