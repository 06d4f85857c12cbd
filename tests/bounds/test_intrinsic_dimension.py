"""The dimension of what data lie on."""

import sys

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from lossgeom.bounds import Cube, IntrinsicDimension, Sphere, intrinsic_dimension
from lossgeom.estimate import Estimate


def plainly(points):
    """The two estimates from sorted distances."""
    r = cKDTree(points.numpy()).query(points.numpy(), k=21)[0][:, 1:]
    log_ratios = np.sort(np.log(r[:, 1] / r[:, 0]))[: int(0.9 * len(r))]
    rest = -np.log(1 - np.arange(1, len(log_ratios) + 1) / len(r))
    return (log_ratios @ rest) / (log_ratios @ log_ratios), 1 / np.log(r[:, -1:] / r[:, :-1]).mean()


@pytest.mark.parametrize(
    ("points", "dimension"),
    [
        (Sphere(1).sample(500), 1),
        (Sphere(2).sample(1000) @ torch.randn(3, 30, generator=torch.Generator()).double(), 2),
        (Cube(5).sample(1000), 5),
    ],
)
def test_known_dimensions_and_plain_formulas(points, dimension):
    found = intrinsic_dimension(points)
    both = found.two_nearest_neighbours.value, found.maximum_likelihood.value
    assert both == pytest.approx((dimension, dimension), rel=0.15)
    assert both == pytest.approx(plainly(points), rel=1e-6)
    assert len(points) == found.N


def test_the_rate_is_an_extrapolation_with_the_larger_dimension():
    found = IntrinsicDimension(Estimate(3.0), Estimate(2.5), N=100)
    rate = found.rate(1000)
    assert rate.predicted
    assert rate.value == pytest.approx((np.log(1000) / 1000 * 100 / np.log(100)) ** (1 / 3))
    assert found.rate(100).value == 1


def test_errors(monkeypatch):
    points = Cube(2).sample(30)
    with pytest.raises(ValueError, match=r"expected at least 22 points, all different, got 21, of"):
        intrinsic_dimension(points[:21])
    with pytest.raises(ValueError, match=r"got 31, of which 30 are different: points\.unique\("):
        intrinsic_dimension(torch.cat([points, points[:1]]))
    monkeypatch.setitem(sys.modules, "skdim.id", None)
    with pytest.raises(ImportError, match=r"skdim\.id is needed .* 'lossgeom\[dimension\]'"):
        intrinsic_dimension(points)
