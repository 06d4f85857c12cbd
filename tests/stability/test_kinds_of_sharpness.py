"""Directional, adaptive and worst-case sharpness, and shares of eigenspaces."""

import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CASES, mlp
from tests.stability.quadratics import hessian, quadratic, start

H = hessian()
THETA = start()


@pytest.fixture
def problem():
    return quadratic(H, THETA)


@pytest.mark.quick
def test_directional_sharpness_of_a_quadratic(problem):
    for v in (problem.gradient(), torch.ones(4).double(), 1e-9 * THETA):
        expected = float(v @ H @ v / (v @ v))
        assert lg.directional_sharpness(problem, v).value == pytest.approx(expected)
    g = problem.gradient()
    expected = float(g @ H @ g / (g @ g))
    assert lg.directional_sharpness(problem).value == pytest.approx(expected)
    with pytest.raises(lg.UndefinedError, match="is zero"):
        lg.directional_sharpness(problem.at(0 * THETA))


def rescaled(model, factor):
    """The same function: one ReLU layer larger by a factor, the next smaller by it."""
    other = mlp(4, 6, 5, 3, activation=nn.ReLU).double()
    other.load_state_dict(model.state_dict())
    other[0].weight.data *= factor
    other[0].bias.data *= factor
    other[2].weight.data /= factor
    return other


@pytest.fixture
def networks():
    torch.manual_seed(0)
    model = mlp(4, 6, 5, 3, activation=nn.ReLU).double()
    data = [(torch.randn(40, 4).double(), torch.randn(40, 3).double())]
    return [lg.Problem(m, "squared_error", data) for m in (model, rescaled(model, 5.0))]


def test_rescaling_changes_sharpness_and_not_what_is_adaptive(networks):
    assert networks[0].loss() == pytest.approx(networks[1].loss())
    plain = [lg.sharpness(p).value for p in networks]
    assert plain[1] > 2 * plain[0]
    adaptive = [lg.adaptive_sharpness(p, tol=1e-6).value for p in networks]
    assert adaptive[1] == pytest.approx(adaptive[0], rel=1e-5)
    for is_adaptive, same in ((True, True), (False, False)):
        worst = [
            lg.worst_case_sharpness_lower(p, 0.02, adaptive=is_adaptive, restarts=0).value
            for p in networks
        ]
        assert (worst[1] == pytest.approx(worst[0], rel=1e-6)) == same


@pytest.mark.quick
def test_adaptive_sharpness_beside_dense_code():
    problem = CASES[0].problem()
    size = problem.theta.abs()
    dense = size[:, None] * lg.Hessian(problem).dense() * size
    found = lg.adaptive_sharpness(problem, tol=1e-8)
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]))
    assert found.converged
    assert not lg.adaptive_sharpness(problem, max_matvecs=2).converged


def worst_of_quadratic(H, theta, radius):
    """Of a convex quadratic, by the multiplier at which the maximum lies on the sphere."""
    values, vectors = torch.linalg.eigh(H)
    b = vectors.T @ (H @ theta)

    def length(mu):
        return float((b / (mu - values)).norm())

    low, high = float(values[-1]) * (1 + 1e-12), 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) > radius else (low, middle)
    delta = vectors @ (b / (high - values))
    return float(delta @ H @ theta + delta @ H @ delta / 2)


@pytest.mark.parametrize("radius", [0.05, 1.0])
def test_the_worst_case_of_a_quadratic(problem, radius):
    expected = worst_of_quadratic(H, THETA, radius)
    found = lg.worst_case_sharpness_lower(problem, radius, steps=50).value
    assert found == pytest.approx(expected, rel=1e-4)
    assert found <= expected * (1 + 1e-9)  # a lower estimate


@pytest.mark.quick
def test_at_a_minimum_the_worst_case_is_half_the_sharpness():
    minimum = quadratic(H, 0 * THETA)
    found = lg.worst_case_sharpness_lower(minimum, 0.1, steps=40).value
    assert found == pytest.approx(0.1**2 / 2 * 3, rel=1e-4)
    assert lg.worst_case_sharpness_lower(minimum, 0.1, restarts=0).value == 0  # no way up is known


def test_more_work_never_lowers_the_worst_case(networks):
    found = [
        lg.worst_case_sharpness_lower(networks[0], 0.3, steps=steps, restarts=restarts).value
        for steps, restarts in ((1, 0), (5, 0), (5, 2))
    ]
    assert 0 < found[0] <= found[1] <= found[2]


def test_a_loss_that_is_not_finite_near_by():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    wall = lg.Problem(model, lambda f, b: (-(1 - f).log().sum(), len(f)), data)
    with pytest.raises(lg.NonFiniteError):
        lg.worst_case_sharpness_lower(wall, 2.0)


@pytest.mark.quick
@pytest.mark.parametrize("k", [1, 2, 4])
def test_shares_of_eigenspaces(problem, k):
    V = torch.linalg.eigh(H)[1].flip(1)
    v = V @ torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    expected = [1 / 30, 5 / 30, 14 / 30, 1][k - 1]
    found = lg.eigenspace_share(problem, v, k=k, tol=1e-6)
    assert found.value == pytest.approx(expected)
    assert found.converged
    g = V.T @ problem.gradient()
    expected = float(g[:k].square().sum() / g.square().sum())
    assert lg.eigenspace_share(problem, k=k, tol=1e-6).value == pytest.approx(expected)


def test_known_eigenpairs_cost_nothing(problem):
    pairs = lg.top_eigenpairs(lg.Hessian(problem), k=2)
    found = lg.eigenspace_share(problem, k=2, pairs=pairs)
    assert found.value == lg.eigenspace_share(problem, k=2).value
    loose = lg.top_eigenpairs(lg.Hessian(CASES[0].problem()), max_matvecs=2)
    assert not lg.eigenspace_share(CASES[0].problem(), pairs=loose).converged


def test_settings(problem):
    for settings in ({"radius": -1.0}, {"steps": 0}, {"restarts": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected"):
            lg.worst_case_sharpness_lower(problem, **settings)
    with pytest.raises(ValueError, match="expected 1 <= k"):
        lg.eigenspace_share(problem, k=0)
    with pytest.raises(lg.NonFiniteError, match="the update is NaN or infinite"):
        lg.directional_sharpness(problem, math.nan * THETA)
