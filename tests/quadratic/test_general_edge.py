"""Limits at the edge for any Q, beside runs."""

import pytest
import torch

from benchmarks import edge_limits
from lossgeom.quadratic import Dense, Descent, Planar, descend, edge_limit_at
from tests.quadratic.models import double, normal, symmetric


def test_one_output_is_an_angle():
    J, Q = normal(4, 1, 5), symmetric(1, 5, seed=1)
    QJ = J[:, 0] @ Q[0]
    cosine = torch.nn.functional.cosine_similarity(J[:, 0], QJ)
    torch.testing.assert_close(edge_limit_at(J, Dense(Q)), 2 - (1 - cosine.square()) / 2)


def test_only_directions_count():
    """And with as many outputs as parameters minima are points, where nothing drifts."""
    J, Q = normal(4, 2, 5), symmetric(2, 5, seed=1)
    found = edge_limit_at(J, Dense(Q))
    assert found.isfinite().any()
    torch.testing.assert_close(edge_limit_at(3 * J, Dense(0.1 * Q)), found, equal_nan=True)
    square = edge_limit_at(normal(20, 2, 2), Dense(symmetric(2, 2, seed=1)))
    torch.testing.assert_close(square, torch.full_like(square, 2))


def test_no_limit_where_no_cycle_is_stable():
    Q = torch.zeros(2, 3, 3, dtype=torch.float64)
    Q[0, 0, 1] = Q[0, 1, 0] = Q[0, 0, 2] = Q[0, 2, 0] = 1
    J = torch.eye(2, 3, dtype=torch.float64)[None] * double(2, 1, 0).sqrt()
    assert edge_limit_at(J, Dense(Q)).item() == pytest.approx(2 - 2 / (4 + 4))
    Q[1, 0, 0] = -10  # C = 8 - 20 sqrt(2)
    assert edge_limit_at(J, Dense(Q)).isnan().all()


@pytest.mark.parametrize(
    ("beta", "eps", "start"), [(0, 0.01, 2.2), (0.3, 0.01, 2.2), (0.6, 2e-3, 2.05)]
)
def test_the_plane_with_momentum(unchecked, beta, eps, start):
    """In units of the edge, 2 (1 + beta) / lr, limits are as without."""
    # z in units of lr / (1 + beta), the learning rate that alternating steps have
    model = Planar(eps).model(double(0.01), double(start)).rescaled((1 + beta) / 0.1)
    descent = Descent(int(200 / eps), 0.1, beta, tol=1e-9)
    found = descend(model, descent)
    distance = 2 - 2 * found.ntk[-1] / descent.edge
    expected = 2 - edge_limit_at(found.final["J"], model.Q)
    torch.testing.assert_close(distance, expected, rtol=0.05, atol=0)
    torch.testing.assert_close(distance, double(eps / 2), rtol=0.05, atol=0)


@pytest.mark.parametrize(("D", "P"), [(1, 8), (2, 4), (3, 10)])
def test_several_outputs_and_eigenvalues(unchecked, D, P):
    """Most runs are within 10%, which their neighbour's prediction is not."""
    cell = edge_limits.cell(edge_limits.Options(runs=60, steps=6000, seed=7), D, P, 0.1)
    assert cell.measured.numel() > 30
    ratio = cell.measured / cell.predicted
    assert abs(ratio.median() - 1) < 0.06
    assert ((ratio - 1).abs() < 0.1).double().mean() > 0.8
    other = cell.measured / cell.predicted.roll(1)
    assert ((other - 1).abs() < 0.1).double().mean() < 0.5
