import math

import pytest
import torch

from lossgeom.problem.agreement import EXACT, PIECE, agree, agree_everywhere, has_nan


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


def test_one_wrong_number_among_many_is_not_hidden_by_the_others():
    expected = torch.ones(64, 100, dtype=torch.float64)
    one_wrong = expected.clone()
    one_wrong[3, 7] += 5e-7
    assert agree(one_wrong, expected, EXACT)
    assert not agree_everywhere(one_wrong, expected, EXACT)
    assert agree_everywhere(expected * (1 + 1e-9), expected, EXACT)
    assert not agree_everywhere(expected, expected[:1], EXACT)
    assert agree_everywhere(one_wrong, expected, EXACT, among=100 * expected)
    assert agree_everywhere(expected[:0], expected[:0], EXACT)


def test_numbers_that_are_not_finite_are_where_the_others_are():
    expected = torch.tensor([1.0, math.nan, math.inf])
    assert agree_everywhere(expected + torch.tensor([1e-9, 0, 0]), expected, EXACT)
    assert not agree_everywhere(expected + torch.tensor([1e-3, 0, 0]), expected, EXACT)
    assert not agree_everywhere(expected.flip(0), expected, EXACT)
    assert not agree_everywhere(expected.nan_to_num(), expected, EXACT)


def test_many_numbers_are_compared_in_pieces():
    expected = torch.ones(2 * PIECE + 1)
    other = expected.clone()
    assert agree_everywhere(other, expected, EXACT)
    other[-1] = 1.1
    assert not agree_everywhere(other, expected, EXACT)
    assert not agree_everywhere(expected, other, EXACT)
    other[0] = 1e9  # beside which the difference is none
    assert agree_everywhere(expected[1:], other[1:], EXACT, among=other)


def test_a_nan_among_numbers():
    assert has_nan(torch.tensor([[1.0, math.inf], [math.nan, -math.inf]]))
    assert not has_nan(torch.tensor([1.0, math.inf, -math.inf]))
    assert not has_nan(torch.zeros(0))
