"""Upper bounds of norms, against exact arithmetic and whole matrices."""

import math
from fractions import Fraction

import pytest
import torch

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator_norms import convolution_norm, dense_norm, gram_norm


def test_a_wide_image_reaches_the_fourier_bound():
    weight = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = torch.eye(400, dtype=torch.float64).reshape(400, 2, 200)
    columns = torch.nn.functional.conv1d(unit, weight, padding=1).flatten(1)
    exact = torch.linalg.matrix_norm(columns, ord=2).item()
    bound = convolution_norm(weight, [200], [1], [1], [1], 1)
    assert exact <= bound <= 1.001 * exact


def test_dense_norms_are_above_the_exact_ones():
    """Of u v^T with whole numbers, whose squared norm (u u)(v v) is a whole number too."""
    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(50):
        u, v = (torch.randint(-99, 100, (n,), generator=generator) for n in (7, 9))
        exact = Fraction(int(u @ u) * int(v @ v))
        M = torch.outer(u, v).double()
        assert Fraction(dense_norm(M).item()) ** 2 >= exact
        below += Fraction(torch.linalg.matrix_norm(M, ord=2).item()) ** 2 < exact
    assert below > 0  # so that rounding matters here


def test_norms_from_gram_matrices_are_those_of_the_matrices():
    M = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.matrix_norm(M, ord=2)
    bounds = gram_norm(M.mT @ M, 6)
    assert (exact <= bounds).all()
    torch.testing.assert_close(bounds, exact)
    assert not (exact <= gram_norm(M.mT @ M / 4, 6)).any()
    broken = torch.tensor([[[1.0, float("nan")], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert gram_norm(broken.double(), 2).tolist() == pytest.approx([float("inf"), 1.0])


def test_dense_norms_survive_extremes():
    for scale in (1e-200, 1.0, 1e200):
        M = scale * torch.tensor([[3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
        assert dense_norm(M).item() == pytest.approx(5 * scale)
        assert dense_norm(M).item() >= 5 * scale
    assert dense_norm(torch.zeros(2, 3, 4, dtype=torch.float64)).tolist() == [0, 0]
    bad = torch.tensor([[[math.nan, 1.0]], [[math.inf, 1.0]], [[3.0, 4.0]]], dtype=torch.float64)
    assert dense_norm(bad).tolist() == [math.inf, math.inf, pytest.approx(5.0)]


def test_lengths_survive_squares_that_vanish_or_overflow():
    x = torch.tensor([[3e-300, 4e-300], [3e300, 4e300], [0.0, 0.0]], dtype=torch.float64)
    assert lengths(x, 1).tolist() == pytest.approx([5e-300, 5e300, 0.0], rel=1e-14, abs=0)
    tiny = convolution_norm(1e-200 * torch.ones(1, 1, 2).double(), [9], [1], [0], [1], 1)
    assert tiny == pytest.approx(2e-200, rel=1e-6, abs=0)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30, 0.0])
def test_lengths_of_long_vectors_in_float32(scale):
    """Also of columns, of other layouts, and of numbers whose squares float32 does not hold."""
    x = scale * torch.randn(2, 3, 70_001)
    right = x.double().square().sum(2).sqrt()
    for found in (lengths(x, 2), lengths(x, -1), lengths(x.transpose(1, 2), 1)):
        assert found.dtype == torch.float64
        assert found.flatten().tolist() == pytest.approx(right.flatten().tolist(), rel=1e-6, abs=0)
    x[0, 0, 5] = math.nan
    assert lengths(x, 2).isnan().sum() == 1
