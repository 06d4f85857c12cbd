"""The numbers of an interpolating network on digits."""

import copy

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.stability.sgd import (
    example_curvatures,
    mean_square_threshold,
    mean_square_thresholds,
    moment_constraint,
    necessary_conditions,
    noise_kernel,
    noise_kernel_threshold,
    noise_share,
    nonuniformity,
)
from tests.stability.digits import N, fitted, trained

SIZES = [1, 2, 5, 10, 50, 100]


@pytest.fixture(scope="module")
def problem():
    """Descent on 100 digits, odd and even, and Gauss-Newton steps of least length."""
    return fitted(trained([0.02], N, 3000)[0])


@pytest.fixture(scope="module")
def curvatures(problem):
    return example_curvatures(problem)


def test_curvatures(curvatures):
    assert curvatures.sharpness == pytest.approx(33.12, abs=0.006)
    assert curvatures.trace == pytest.approx(71.42, abs=0.006)
    assert nonuniformity(curvatures) == pytest.approx(40.3, abs=0.06)


def test_thresholds(curvatures):
    found = mean_square_thresholds(curvatures, SIZES)
    expected = [0.0235, 0.0387, 0.0545, 0.0585, 0.0603, 0.0604]
    assert found == [pytest.approx(value, abs=6e-5) for value in expected]
    assert necessary_conditions(curvatures, 1.0)["Frobenius norms"] == pytest.approx(
        0.0249, abs=6e-5
    )
    ten = necessary_conditions(curvatures, noise_share(100, 10))
    assert ten["top eigenvector"] == min(ten.values()) == pytest.approx(0.0594, abs=6e-5)
    assert moment_constraint(curvatures, found[0], 1) == pytest.approx(0.18, abs=0.006)
    assert moment_constraint(curvatures, found[3], 10) == pytest.approx(0.11, abs=0.006)


def test_certificates(problem):
    inside, outside = (lg.certify_sgd(problem, lr, 10) for lr in (0.9 * 0.0585, 1.3 * 0.0585))
    assert (inside.state, outside.state) == ("stable", "unstable")
    assert inside.minimum == "interpolating"
    assert inside.residual < 1e-12


def test_the_noise_kernel(curvatures):
    """An estimate from above: its edge is up to a fifth above the exact threshold."""
    for B, eta in zip(SIZES[:5], mean_square_thresholds(curvatures, SIZES[:5]), strict=True):
        p = noise_share(100, B)
        assert 0.83 < noise_kernel(curvatures.values, eta, p) < 0.86
        assert 1 < noise_kernel_threshold(curvatures.values, p) / eta < 1.2


def distance(problem, lr, steps=1000):
    """How far torch's own optimiser goes from a start next to the minimum."""
    (x, y), generator = problem.batches[0], torch.Generator().manual_seed(0)
    model = copy.deepcopy(problem.model)
    near = torch.randn(len(problem.theta), generator=generator, dtype=torch.float64)
    nn.utils.vector_to_parameters(problem.theta + 1e-6 * near / near.norm(), model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, foreach=False)
    for _ in range(steps):
        batch = torch.randperm(100, generator=generator)[:10]
        optimizer.zero_grad()
        (0.5 * (model(x[batch]) - y[batch]).square().mean()).backward()
        optimizer.step()
    moved = nn.utils.parameters_to_vector(model.parameters()) - problem.theta
    return moved.norm().item()


def test_momentum_lowers_the_threshold_and_sgd_leaves_above_it(problem, curvatures):
    """Full batches would be stable up to four times that."""
    lr = mean_square_threshold(curvatures, 10, momentum=0.9)
    assert lr == pytest.approx(0.02899, abs=6e-6)
    assert lr < 0.26 * 2 * 1.9 / curvatures.sharpness
    assert distance(problem, 0.9 * lr) < 1e-6
    assert distance(problem, 1.3 * lr) > 1e-3
