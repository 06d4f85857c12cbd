"""A point near theta, and what is drawn for trials."""

import pytest
import torch

import lossgeom as lg
from lossgeom.problem.nearby import NEARBY, drawn, near_or_at, nearby


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_numbers_at_every_call(dtype):
    theta = torch.zeros(3, 2, dtype=dtype)
    state = torch.get_rng_state()
    found = drawn(theta)
    assert found.shape == theta.shape
    assert found.dtype == dtype
    assert torch.equal(found, drawn(theta))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_parameter_moves_a_little():
    theta = torch.cat([torch.zeros(50), torch.ones(50)])
    moved = (nearby(theta) - theta).abs()
    assert (moved > 0).all()
    assert moved.max() < 4 * NEARBY


def test_where_the_point_nearby_is_outside_of_the_domain():
    theta, seen = torch.ones(4), []

    def look(point):
        seen.append(point)
        if not torch.equal(point, theta):
            raise lg.NonFiniteError("there is nothing here")
        return "here"

    assert near_or_at(theta, look) == "here"
    assert [torch.equal(point, theta) for point in seen] == [False, True]
    assert near_or_at(theta, lambda point: torch.equal(point, theta)) is False
