"""What models are, and what they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossgeom.quadratic import (
    Dense,
    Implicit,
    ImplicitModel,
    LowRank,
    QuadraticModel,
    squared_error,
)
from tests.quadratic.models import dense_of, low_rank_model, normal, random_model, symmetric

MODELS = {
    f"{name} {'own' if own else 'shared'}": make(own=own)
    for name, make in {"dense": random_model, "low rank": low_rank_model}.items()
    for own in (False, True)
}


@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_of_all_entries(name):
    model = MODELS[name]
    Q, s = dense_of(model), normal(model.runs, 4, seed=9)
    torch.testing.assert_close(Q, Q.mT)
    expected = torch.einsum("raij,rj->rai", Q, s)
    torch.testing.assert_close(model.Q.contract(s), expected)
    J = model.G.clone()
    model.Q.subtract(J, s)
    torch.testing.assert_close(J, model.G - expected)
    some = torch.tensor([3, 0])
    torch.testing.assert_close(model.Q.rows(some).contract(s[some]), expected[some])
    assert model.Q.runs in (None, model.runs)


@pytest.mark.parametrize("name", MODELS)
def test_values_and_jacobians(name):
    """Against the formula, and its derivatives by autograd."""
    model = MODELS[name]
    Q, theta = dense_of(model), normal(model.runs, 4, seed=8)

    def z(theta):
        linear = torch.einsum("rai,ri->ra", model.G, theta)
        return model.y + linear + torch.einsum("raij,ri,rj->ra", Q, theta, theta) / 2

    point = model.at(theta)
    torch.testing.assert_close(point.z, z(theta))
    J = torch.func.jacrev(z)(theta)[torch.arange(5), :, torch.arange(5)]
    torch.testing.assert_close(point.J, J)
    u = normal(model.runs, 3, seed=7)
    torch.testing.assert_close(point.pullback(u), torch.einsum("ra,rai->ri", u, J))
    expected = torch.linalg.matrix_norm(J, 2).square()
    torch.testing.assert_close(point.largest_ntk_eigenvalues(), expected)
    other = normal(model.runs, 4, seed=6)
    moved = model.expanded(theta).at(other)
    torch.testing.assert_close(moved.z, model.at(theta + other).z)
    torch.testing.assert_close(moved.J, model.at(theta + other).J)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(-3, 3))
def test_products_are_linear_and_symmetric(seed, a, b):
    model = random_model(R=2, seed=seed)
    u, v = normal(2, 4, seed=seed + 10), normal(2, 4, seed=seed + 11)
    product = model.Q.contract
    torch.testing.assert_close(product(a * u + b * v), a * product(u) + b * product(v))
    torch.testing.assert_close(product(u) @ v[:, :, None], product(v) @ u[:, :, None])


def test_implicit_forms_agree_with_explicit_ones():
    model = random_model()
    Q, theta = model.Q.Q, normal(5, 4, seed=8)
    implicit = Implicit(lambda s: torch.einsum("aij,rj->rai", Q, s), (3, 4))
    torch.testing.assert_close(implicit.contract(theta), model.Q.contract(theta))
    function = ImplicitModel(lambda t: model.rows(slice(1, 2)).at(t).z, torch.zeros_like(theta))
    same = QuadraticModel(model.y[1:2].expand(5, -1), model.G[1:2].expand(5, -1, -1), model.Q)
    here, there = function.at(theta), same.at(theta)
    torch.testing.assert_close(here.z, there.z)
    torch.testing.assert_close(here.pullback(here.z), there.pullback(there.z))
    torch.testing.assert_close(
        here.largest_ntk_eigenvalues(), there.largest_ntk_eigenvalues(), rtol=1e-5, atol=0
    )


def test_squared_error_is_half_the_square():
    torch.testing.assert_close(squared_error(torch.tensor([[1.0, 3.0]])), torch.tensor([5.0]))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Dense(normal(2, 3, 3)), ValueError, r"symmetric.*\(Q \+ Q.mT\) / 2"),
        (lambda: Dense(normal(2, 3, 4)), ValueError, r"shape \(D, P, P\)"),
        (lambda: Dense(torch.zeros(1, 2, 2).long()), TypeError, "float32 or float64"),
        (lambda: Dense(torch.full((1, 2, 2), torch.nan)), ValueError, "finite numbers in Q"),
        (lambda: LowRank(normal(2, 3), normal(4, 5)), ValueError, r"expected W \(D, K\)"),
        (lambda: Implicit(lambda s: s, (1, 2)).contract(normal(3, 2)), ValueError, r"\(3, 1, 2\)"),
        (lambda: Implicit(lambda s: s, (0, 2)), ValueError, "outputs of at least 1"),
        (
            lambda: QuadraticModel(normal(3), normal(3, 4), Dense(symmetric(3, 4))),
            ValueError,
            r"y of shape \(R, D\) = \(any, 3\), got \(3,\); the first axis counts runs",
        ),
        (
            lambda: QuadraticModel(normal(2, 3), normal(2, 3, 5), Dense(symmetric(3, 4))),
            ValueError,
            r"G of shape \(R, D, P\) = \(2, 3, 4\)",
        ),
        (
            lambda: QuadraticModel(normal(2, 3), normal(2, 3, 4), Dense(symmetric(5, 3, 4))),
            ValueError,
            r"y of shape \(R, D\) = \(5, 3\)",
        ),
        (
            lambda: QuadraticModel(normal(2, 3).float(), normal(2, 3, 4), Dense(symmetric(3, 4))),
            TypeError,
            "one dtype",
        ),
        (
            lambda: QuadraticModel(normal(2, 3), normal(2, 3, 4), Dense(symmetric(3, 4).float())),
            TypeError,
            r"one dtype, got y in torch.float64, G in torch.float64, Q in torch.float32",
        ),
        (lambda: LowRank(normal(2, 3), normal(3, 4).float()), TypeError, "W in .*64, U in .*32"),
        (lambda: Dense(torch.zeros(2, 0, 0)), ValueError, "parameters of at least 1, got 0"),
        (lambda: LowRank(normal(0, 3), normal(3, 4)), ValueError, "outputs of at least 1, got 0"),
        (lambda: random_model().rescaled(0.0), ValueError, "learning_rate > 0"),
        (
            lambda: ImplicitModel(lambda t: t[0], torch.zeros(2, 3)).at(torch.zeros(2, 3)),
            ValueError,
            r"residuals of shape \(R, D\) with R = 2",
        ),
    ],
)
def test_bad_input(unchecked, make, error, text):
    with pytest.raises(error, match=text):
        make()
