"""The two examples between which targets change most."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossgeom.bounds import steepest_pair
from tests.bounds.functions import distances

TENTH = 0.1


def by_all_pairs(x, y, slack):
    near, far = distances(x), distances(y) - slack
    return torch.where(far > 0, far / near, 0).max().item()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    N=st.integers(2, 500),
    D=st.integers(1, 64),
    slack=st.sampled_from([0.0, TENTH, 1.0]),
    kind=st.sampled_from(["noise", "classes", "smooth", "copies"]),
)
def test_all_pairs_find_no_steeper_one(seed, N, D, slack, kind):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    if kind == "classes":
        y = torch.eye(4).double()[torch.randint(4, (N,), generator=generator)]
    elif kind == "smooth":
        y = x[:, :1].sin() + 100
    elif kind == "copies":
        x = x.round()
    found = steepest_pair(x, y, slack)
    assert found.ratio == pytest.approx(by_all_pairs(x, y, slack), rel=1e-12)
    if 0 < found.ratio < math.inf:
        i, j = found.first, found.second
        slope = ((y[i] - y[j]).norm() - slack) / (x[i] - x[j]).norm()
        assert slope.item() == pytest.approx(found.ratio, rel=1e-12)
        assert i < j


@pytest.mark.quick
def test_pairs_that_are_close_far_from_the_origin():
    x = torch.tensor([[1e6], [1e6 + 1e-4], [1e6 + 5.0]], dtype=torch.float64)
    y = torch.tensor([[1e6], [1e6 + 1e-3], [1e6 + 20.0]], dtype=torch.float64)
    found = steepest_pair(x, y)
    assert (found.first, found.second) == (0, 1)
    assert found.ratio == pytest.approx(10, rel=1e-3)


@pytest.mark.quick
def test_no_pair_and_two_targets_of_one_input():
    x, y = torch.zeros(3, 2), torch.tensor([[0.0], [1.0], [1.0]])
    assert steepest_pair(x, y, slack=1.0).ratio == 0
    assert steepest_pair(x[:1], y[:1]).first == -1
    found = steepest_pair(x, y, slack=0.5)
    assert (found.ratio, found.first, found.second) == (math.inf, 0, 1)


@pytest.mark.quick
@pytest.mark.usefixtures("unchecked")
def test_errors_of_what_are_no_rows_of_examples():
    x = torch.zeros(3, 2)
    for inputs, targets in (
        (x, torch.zeros(4, 1)),
        (x, torch.zeros(2, 1)),
        (x, torch.zeros(3)),
        (x[:, 0], torch.zeros(3, 1)),
        (x[:0], torch.zeros(0, 1)),
        (x[:, :0], torch.zeros(3, 1)),
    ):
        with pytest.raises(ValueError, match=r"expected inputs \(N, D\) and targets \(N, C\), a f"):
            steepest_pair(inputs, targets)
    for large in (math.inf, 1e200):  # squares of the latter are infinite
        with pytest.raises(ValueError, match="expected inputs and targets that are finite"):
            steepest_pair(x.double() + large, torch.zeros(3, 1))


def test_few_pairs_of_fifty_thousand_are_compared():
    """Two classes with a gap of 0.02 between them, and a wave with its steepest slope of 2 pi."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50_000, 2, generator=generator, dtype=torch.float64)
    right = x[:, 0] > 0.5
    apart = x + 0.01 * torch.stack([right.double() * 2 - 1, torch.zeros(len(x))], 1)
    classes = torch.eye(2).double()[right.long()]
    found = steepest_pair(apart, classes, TENTH)
    assert found.compared < 0.01 * len(x) ** 2 / 2
    nearest, gap = (apart[right], apart[~right]), math.inf
    for part in nearest[0][nearest[0][:, 0] < 0.53].split(1000):
        gap = min(gap, distances(part, nearest[1][nearest[1][:, 0] > 0.47]).min().item())
    assert found.ratio == pytest.approx((2**0.5 - TENTH) / gap, rel=1e-12)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("y", "slack", "message"),
    [
        (math.nan, 0.0, "expected inputs and targets that are finite"),
        (1.0, -1.0, "expected slack >= 0, got -1.0"),
    ],
)
def test_errors(y, slack, message):
    with pytest.raises(ValueError, match=message):
        steepest_pair(torch.zeros(2, 1), torch.full((2, 1), y), slack)
