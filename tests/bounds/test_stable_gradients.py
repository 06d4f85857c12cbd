"""What the settings of SGD say of a minimum: beside exact thresholds, and where it is attained."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossgeom.bounds import stable_gradients, stable_trace
from lossgeom.stability import ExampleCurvatures, mean_square_threshold
from lossgeom.stability.sgd import SAMPLINGS, moment_threshold
from lossgeom.stability.sgd.sampling import noise_share

pytestmark = pytest.mark.quick
ROUNDING = 1 + 1e-9
POINTS = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]], dtype=torch.float64)
DRAWN = SAMPLINGS[:2]


@pytest.mark.parametrize(
    ("B", "lr", "most"),
    [(1, 0.644010, 9.644), (2, 0.989710, 8.167), (3, 1.197790, 8.364), (4, 1.333333, 9.0)],
)
def test_four_points(B, lr, most):
    """Fourth moments of a direction are at most 4 B / lr^2; the second coordinate has 4.5."""
    curvatures = ExampleCurvatures.of(POINTS[:, None])
    assert mean_square_threshold(curvatures, B) == pytest.approx(lr, abs=1e-6)
    assert stable_gradients(lr, B, 4, 2, weights=1).value == pytest.approx(most, abs=5e-4)
    assert POINTS[:, 1].pow(4).mean() == 4.5 < most
    trace = stable_trace(lr, B, 4, rank=2)
    p = noise_share(4, B)
    assert trace.value == pytest.approx(2 / (lr * (p + (1 - p) / 2)), rel=1e-12)
    assert curvatures.trace == 2.25 < trace.value


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**16), st.integers(1, 5), st.integers(1, 2), st.sampled_from(DRAWN),
    st.sampled_from([0.0, 0.5, 0.9]),
)  # fmt: skip
def test_never_violated_at_the_exact_threshold(seed, B, c, sampling, momentum):
    generator = torch.Generator().manual_seed(seed)
    n, w = 5, 3
    scales = torch.rand(n, 1, 1, generator=generator).pow(3)  # of uneven examples
    A = (torch.randn(n, c, w, generator=generator) * scales).double()
    curvatures = ExampleCurvatures.of(A)
    lr = mean_square_threshold(curvatures, B, momentum, sampling)
    drawn = {"momentum": momentum, "sampling": sampling, "outputs": c}
    assert curvatures.trace <= stable_trace(lr, B, n, rank=w, **drawn).value * ROUNDING
    for weights in (w, 2, 1):
        part = A[..., :weights]
        for k in (1, 2):
            moment = float(part.pow(2 * k).sum((1, 2)).mean())
            most = stable_gradients(lr, B, n, k, weights=weights, **drawn).value
            assert moment <= most * ROUNDING


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("B", [1, 2, 3])
def test_higher_moments_at_their_own_threshold(k, B):
    for seed in range(5):
        A = torch.randn(4, 1, 2, generator=torch.Generator().manual_seed(seed)).double()
        lr = moment_threshold(ExampleCurvatures.of(A), B, k)
        most = stable_gradients(lr, B, 4, k, weights=1).value
        directions = torch.linspace(0, math.pi, 50, dtype=torch.float64)
        v = torch.stack([directions.cos(), directions.sin()])
        assert float((A[:, 0] @ v).pow(2 * k).mean(0).max()) <= most * ROUNDING


def test_where_it_is_attained():
    """By one parameter and examples that are alike, at B = 1: no constant is too large."""
    a = torch.full((6, 1, 1), 3.0, dtype=torch.float64)
    curvatures = ExampleCurvatures.of(a)
    lr = mean_square_threshold(curvatures, 1)
    assert stable_trace(lr, 1, 6, rank=1).value == pytest.approx(curvatures.trace)
    for k in (1, 2, 3):
        assert stable_gradients(lr, 1, 6, k, weights=1).value == pytest.approx(9.0**k)


def test_what_does_not_grow_with_the_number_of_parameters():
    few, many = (stable_gradients(0.1, 1, 50, 2, weights=w).value for w in (1, 10**6))
    assert few == many == pytest.approx(4 / 0.1**2)
    full = stable_gradients(0.1, 50, 50, 2, weights=10).value
    assert full == pytest.approx(10 * 4 * 50 / 0.1**2)
    assert stable_gradients(0.1, 1, 50, 3, weights=10).value == pytest.approx(10 * 8 / 0.1**3)
    full = stable_trace(0.1, 50, 50)
    assert full.value == pytest.approx(50 * 2 / 0.1)  # each eigenvalue is at the edge
    assert math.isinf(stable_gradients(0.1, 50, 50, 2, weights=10, momentum=0.9).value)


def test_what_is_said():
    told = str(stable_trace(0.1, 2, 100))
    assert "the trace of the Hessian is at most" in told
    assert "you declare: SGD with these settings is stable in mean square" in told
    assert "stable in moments of order 3" in str(stable_gradients(0.1, 2, 100, 3, weights=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "expected lr > 0"),
        ({"batch_size": 11}, "expected a batch_size from 1 to 10"),
        ({"momentum": 1.0}, "expected momentum >= 0 and < 1"),
        ({"sampling": "reshuffling"}, "depend on each other, so there is no p"),
        ({"outputs": 0}, "expected outputs of at least 1"),
    ],
)
def test_refused(options, message):
    given = {"lr": 0.1, "batch_size": 2, "examples": 10, **options}
    with pytest.raises(ValueError, match=message):
        stable_trace(**given)
    with pytest.raises(ValueError, match=message):
        stable_gradients(**given, weights=3)
