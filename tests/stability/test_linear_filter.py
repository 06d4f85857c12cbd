"""Where optimisers that filter gradients become unstable, against closed forms and slow code."""

import math

import numpy as np
import pytest

from lossgeom.stability import LinearFilter, edge

pytestmark = pytest.mark.quick
LR, B, W = 0.1, 0.9, 0.5
CLOSED_FORMS = {
    "gradient descent": (LinearFilter(), 0.0, 2 / LR),
    "with decoupled decay": (LinearFilter(), W, 2 / LR - W),
    "heavy ball": (LinearFilter.heavy_ball(B), 0.0, 2 * (1 + B) / LR),
    "dampened": (LinearFilter.heavy_ball(B, 0.3), 0.0, 2 * (1 + B) / (LR * 0.7)),
    "Nesterov": (LinearFilter.nesterov(B), 0.0, 2 * (1 + B) / (LR * (1 + 2 * B))),
    "Nesterov, dampened": (
        LinearFilter.nesterov(B, 0.3),
        0.0,
        2 * (1 + B) / (LR * (1 + 2 * B - 0.3 * B)),
    ),
    "Adam": (LinearFilter.adam(B), 0.0, 2 * (1 + B) / ((1 - B) * LR)),
    "AdamW": (LinearFilter.adam(B), W, (2 / LR - W) * (1 + B) / (1 - B)),
    "NAdam": (
        LinearFilter.nadam(B, 0.2, 0.8),
        0.0,
        2 / (LR * (0.2 + 0.8 * (1 - B) / (1 + B))),
    ),
    "QHM": (LinearFilter.qhm(B, 0.7), 0.0, 2 / (LR * (0.3 + 0.7 * (1 - B) / (1 + B)))),
    "QHM of nothing": (LinearFilter.qhm(B, 0.0), 0.0, 2 / LR),
    "AdEMAMix": (LinearFilter.ademamix(B, 0.999, 5.0), 0.0, 362.760),
}
FILTERS = {
    **{name: (found, decay) for name, (found, decay, _) in CLOSED_FORMS.items()},
    "AdEMAMix with decay": (LinearFilter.ademamix(B, 0.999, 5.0), W),
    "AdEMAMix of one average": (LinearFilter.ademamix(B, 0.0, 0.5), 0.0),
    "two steps late": (LinearFilter((0.0, 0.0, 1.0)), 0.0),
    "a difference": (LinearFilter((1.5, -0.8), (1.0, -0.5, 0.3)), W),
    "an ascent that decay holds": (LinearFilter((1.0, -1.5)), W),
    "a long average": (LinearFilter((0.2, 0.2, 0.2, 0.2, 0.2)), 0.0),
}


def spectral_radius(found: LinearFilter, s: float, lr: float, decay: float) -> float:
    """Of the companion matrix of the recursion, whose roots these are."""
    size = max(len(found.numerator), len(found.denominator))
    top, bottom = np.zeros(size), np.zeros(size)
    top[: len(found.numerator)], bottom[: len(found.denominator)] = (
        found.numerator,
        found.denominator,
    )
    polynomial = np.convolve([1.0, lr * decay - 1], bottom)
    polynomial[1:] += lr * s * top
    return max(abs(np.roots(polynomial)))


def slow_edge(found: LinearFilter, lr: float, decay: float) -> float:
    """By a walk up from 0 in small steps, and bisection where the radius first exceeds 1."""
    factor, s = 1.01, 1e-3
    while spectral_radius(found, s * factor, lr, decay) < 1:
        s *= factor
    low, high = s, s * factor
    for _ in range(40):
        middle = (low + high) / 2
        stable = spectral_radius(found, middle, lr, decay) < 1
        low, high = (middle, high) if stable else (low, middle)
    return low


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms(name):
    found, decay, expected = CLOSED_FORMS[name]
    rel = 1e-6 if name == "AdEMAMix" else 1e-13
    assert edge(found, LR, decay) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("name", FILTERS)
def test_against_companion_matrices(name):
    found, decay = FILTERS[name]
    assert edge(found, LR, decay) == pytest.approx(slow_edge(found, LR, decay), rel=1e-9)


def test_random_filters_against_companion_matrices():
    generator = np.random.default_rng(0)
    for _ in range(6):
        poles = generator.uniform(-0.8, 0.9, size=2)
        zeros = generator.uniform(-1.5, 0.9, size=2)
        found = LinearFilter(tuple(np.poly(zeros).tolist()), tuple(np.poly(poles).tolist()))
        assert edge(found, LR) == pytest.approx(slow_edge(found, LR, 0.0), rel=1e-9)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_averages_of_gradients_turn_around_at_the_edge(name):
    found, decay, _ = CLOSED_FORMS[name]
    kept = 1 - LR * decay
    at_minus_one = (1 + kept) / (LR * found.response(-1).real)
    assert edge(found, LR, decay) == pytest.approx(at_minus_one, rel=1e-13)


def test_the_last_gradient_alone_decides_where_all_others_are_forgotten():
    assert LinearFilter.heavy_ball(0.0, 0.3) == LinearFilter()
    assert LinearFilter.adam(0.0) == LinearFilter()


def test_gradients_that_are_late():
    """A step late: z^2 - z + lr s has the root at 60 degrees, with lr s = 1."""
    assert edge(LinearFilter((0.0, 1.0)), LR) == pytest.approx(1 / LR, rel=1e-13)


def test_no_edge_and_nothing_below_one():
    assert edge(LinearFilter(), lr=0.0) == math.inf
    assert edge(LinearFilter.heavy_ball(0.5, 1.0), lr=1.0) == math.inf
    assert edge(LinearFilter.heavy_ball(1.0), lr=1.0) == 0.0
    assert edge(LinearFilter((-1.0,)), lr=1.0) == 0.0
    assert edge(LinearFilter(), lr=1.0, decoupled_decay=2.0) == 0.0


def test_errors():
    with pytest.raises(ValueError, match="expected lr >= 0, got -1"):
        edge(LinearFilter(), lr=-1.0)
    with pytest.raises(ValueError, match="expected lr >= 0 and finite, got inf"):
        edge(LinearFilter(), lr=math.inf)
    with pytest.raises(ValueError, match="expected decoupled_decay >= 0, got nan"):
        edge(LinearFilter(), lr=1.0, decoupled_decay=math.nan)
