import math

import pytest
import torch

from lossgeom.problem.agreement import EXACT, agree


@pytest.mark.parametrize("size", [1e-200, 1e-170, 1.0, 1e170, 1e300])
def test_tensors_of_any_size(size):
    expected = size * torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert agree(expected, expected, EXACT)
    assert agree(expected * (1 + 1e-9), expected, EXACT)
    assert not agree(expected * (1 + 1e-7), expected, EXACT)
    assert not agree(expected.flip(0), expected, EXACT)


def test_zeros_and_shapes_and_what_is_not_finite():
    zeros = torch.zeros(2)
    assert agree(zeros, zeros, EXACT)
    assert agree(zeros[:0], zeros[:0], EXACT)
    assert not agree(zeros + 1e-30, zeros, EXACT)
    assert not agree(zeros, zeros[None], EXACT)
    for number in (math.inf, math.nan):
        assert not agree(zeros + number, zeros + number, EXACT)
