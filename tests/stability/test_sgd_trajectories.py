"""Single runs of SGD: how fast they leave a minimum, and at which ones they end."""

from statistics import mean

import pytest
import torch

from lossgeom.stability.sgd import (
    example_curvatures,
    mean_square_threshold,
    mean_square_thresholds,
    noise_kernel,
    noise_kernel_threshold,
    noise_share,
)
from tests.stability.digits import N, fitted, trained
from tests.stability.test_sgd_thresholds import FOUR


def exponent(curvatures, lr, batch_size, runs, steps):
    """The mean logarithm of the factor by which a step lengthens the distance from a minimum."""
    generator = torch.Generator().manual_seed(0)
    factors, n = curvatures.factors[:, 0], curvatures.n
    w = torch.randn(runs, curvatures.rank, generator=generator, dtype=torch.float64)
    w, total = w / w.norm(dim=1, keepdim=True), 0.0
    for _ in range(steps):
        a = factors[torch.rand(runs, n, generator=generator).topk(batch_size, 1).indices]
        w = w - lr / batch_size * (a.mT @ (a @ w[:, :, None]))[:, :, 0]
        length = w.norm(dim=1, keepdim=True)
        w, total = w / length, total + length.log().mean().item()
    return total / steps


@pytest.mark.parametrize(("lr", "expected"), [(0.7, -0.15), (0.9, -0.04), (1.1, 0.10)])
def test_runs_on_four_points_come_back_where_their_mean_square_grows(lr, expected):
    """A typical one leaves from learning rates on that are above the threshold by half."""
    assert lr > mean_square_threshold(FOUR, 1)
    # the last digit that is known, and four standard errors
    assert exponent(FOUR, lr, 1, 1000, 300) == pytest.approx(expected, abs=0.01)


@pytest.fixture(scope="module")
def minimum():
    (descended,) = trained([0.02], N, 3000)
    return example_curvatures(fitted(descended))


@pytest.mark.parametrize(
    ("batch_size", "at", "expected", "error"),
    [
        (1, 0.9, -0.0006, 1e-4), (1, 1.1, 0.0028, 8e-4), (1, 1.5, 0.045, 3e-3),
        (10, 0.9, -0.001, 1e-4), (10, 1.1, 0.078, 7e-3), (10, 1.5, 0.62, 1e-2),
    ],
)  # fmt: skip
def test_runs_on_digits_leave_where_their_mean_square_grows(
    minimum, batch_size, at, expected, error
):
    """With as many parameters as here; errors are the last digit and four standard errors.

    Below the threshold the distance along the flattest directions is left in the end, which
    shrinks by 6e-5 and 2e-4 in a step: there the number is that of a start in all directions.
    """
    lr = at * mean_square_threshold(minimum, batch_size)
    assert exponent(minimum, lr, batch_size, 30, 1500) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize(
    ("batch_size", "lr", "expected", "errors"),
    [
        (1, (0.04, 0.08), (0.0596, 0.1161), (0.015, 0.05)),
        (10, (0.1, 0.2), (0.1132, 0.2038), (0.01, 0.01)),
    ],
)
def test_sgd_ends_where_its_learning_rate_is_near_the_threshold(batch_size, lr, expected, errors):
    """Each that is known is of one run; errors are three standard deviations over runs.

    With batches of one these are large, and the thresholds that are known on the high side.
    """
    runs = 8
    found = [
        example_curvatures(problem)
        for problem in trained([rate for rate in lr for _ in range(runs)], batch_size, 12_000)
    ]
    thresholds = [mean_square_threshold(each, batch_size) for each in found]
    sharpness = [each.sharpness for each in found]
    for k, rate in enumerate(lr):
        own = slice(k * runs, (k + 1) * runs)
        assert mean(thresholds[own]) == pytest.approx(expected[k], abs=errors[k])
        assert mean(thresholds[own]) > 0.98 * rate
        if batch_size == 10:
            assert mean(sharpness[own]) == pytest.approx((16.7, 9.2)[k], abs=(1.4, 1.0)[k])


@pytest.fixture(scope="module")
def descended():
    """Where full-batch descent gets with two learning rates; the second is at its edge."""
    return trained([0.04, 0.08], N, 3000)


def test_the_end_of_descent_is_unstable_for_sgd_with_these_learning_rates(descended):
    threshold = mean_square_threshold(example_curvatures(descended[0]), 10)
    assert threshold == pytest.approx(0.0523, abs=2e-4)
    assert threshold < 0.1


def test_the_noise_kernel_at_the_edge_of_descent(descended):
    """Which start it is changes these by three in a hundred."""
    minimum = example_curvatures(fitted(descended[1]))
    shares = [noise_share(N, B) for B in (1, 2, 5, 10, 50)]
    kernel = [noise_kernel_threshold(minimum.values, p) for p in shares]
    exact = mean_square_thresholds(minimum, [1, 2, 5, 10, 50])
    assert kernel == [pytest.approx(x, rel=0.03) for x in (0.0351, 0.0558, 0.0739, 0.0774, 0.0784)]
    assert exact == [pytest.approx(x, rel=0.03) for x in (0.0280, 0.0476, 0.0700, 0.0758, 0.0782)]
    for eta, p in zip(exact, shares, strict=True):
        assert 0.8 < noise_kernel(minimum.values, eta, p) < 0.85
