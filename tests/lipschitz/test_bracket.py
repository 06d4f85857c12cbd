"""A number that is known from both sides."""

import pytest
import torch

from lossgeom.lipschitz import Bracket

pytestmark = pytest.mark.quick


def test_single_numbers():
    between, exactly = Bracket.between(0.5, 2.0), Bracket.exactly(3.0)
    assert between.max == (0.5, 2.0)
    assert between.tightness == 0.25
    assert exactly.max == (3.0, 3.0)
    assert exactly.tightness == 1


def test_the_largest_may_be_another_on_each_side():
    bracket = Bracket(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 3.0]))
    assert bracket.max == (2.0, 5.0)
    assert Bracket.between(0.0, 0.0).tightness == 1
