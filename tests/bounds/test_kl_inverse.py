"""The inverse of the relative entropy of coins."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import rel_entr

from lossgeom.bounds import bernoulli_kl, kl_inverse

pytestmark = pytest.mark.quick
PROBABILITIES = st.floats(0, 1)


def plain_kl(q, p):
    return float(rel_entr(q, p) + rel_entr(1 - q, 1 - p))


@given(PROBABILITIES, PROBABILITIES)
def test_it_is_the_relative_entropy(q, p):
    assert bernoulli_kl(q, p) == pytest.approx(plain_kl(q, p), rel=1e-9, abs=1e-14)


def test_close_probabilities_do_not_cancel():
    q, apart = 0.25, 2.0**-40
    assert bernoulli_kl(q, q + apart) == pytest.approx(apart**2 / (2 * q * (1 - q)), rel=1e-9)


def test_ends_are_plain_floats():
    assert [str(kl_inverse(q, 0)) for q in (0, 1)] == ["0.0", "1.0"]


def test_known_values():
    assert kl_inverse(0.05, 0.1) == pytest.approx(0.206401, abs=5e-7)
    assert kl_inverse(0.0, 0.1) == pytest.approx(0.095163, abs=5e-7)


@pytest.mark.parametrize("c", [1e-12, 0.01, 0.4])
@pytest.mark.parametrize("q", [1e-9, 0.02, 0.5, 0.97])
def test_it_is_the_root_that_scipy_finds(q, c):
    root = brentq(lambda p: plain_kl(q, p) - c, q, 1 - 1e-16, xtol=1e-15)
    assert kl_inverse(q, c) == pytest.approx(root, rel=1e-3 if c < 1e-9 else 1e-9)


@given(st.floats(0, 0.999), st.floats(1e-9, 50))
def test_it_inverts(q, c):
    x = kl_inverse(q, c)
    assert q <= x <= 1
    assert bernoulli_kl(q, max(x - 1e-9, q)) <= c <= bernoulli_kl(q, min(x + 1e-9, 1))


def test_it_is_exact_at_its_ends():
    assert kl_inverse(0.0, 0.3) == -math.expm1(-0.3)
    assert kl_inverse(0.0, 1e-20) == 1e-20
    assert [kl_inverse(q, 0.0) for q in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    assert [kl_inverse(q, math.inf) for q in (0.0, 0.3, 1.0)] == [1.0, 1.0, 1.0]
    assert kl_inverse(1.0, 0.3) == 1.0
    assert all(math.isnan(kl_inverse(*pair)) for pair in [(0.3, math.nan), (math.nan, 0.3)])


def test_errors():
    with pytest.raises(ValueError, match=r"expected a probability q from 0 to 1, got 1\.5"):
        kl_inverse(1.5, 0.1)
    with pytest.raises(ValueError, match=r"expected c >= 0, got -0\.1"):
        kl_inverse(0.5, -0.1)
