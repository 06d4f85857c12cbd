"""Stationary states, non-uniformity, worst batches and zeroth-order descent."""

import math

import pytest
import torch

from lossgeom.stability.sgd import (
    ExampleCurvatures,
    certainly_stable,
    coherence,
    largest_batch_sharpness,
    mean_square_threshold,
    moment_constraint,
    noise_share,
    nonuniformity,
    reshuffling_threshold,
    stationary_state,
    zeroth_order_bounds,
    zeroth_order_threshold,
)
from lossgeom.stability.sgd.sampling import all_batches

VALUES = torch.tensor([3.0, 1.0, 0.5, 0.1], dtype=torch.float64)
WITHOUT, WITH = "without replacement", "with replacement"


def random_curvatures(n=5, c=1, P=3, seed=0, gradients=True):
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, c, P, generator=generator, dtype=torch.float64)
    g = torch.randn(n, P, generator=generator, dtype=torch.float64)
    return ExampleCurvatures.of(factors, (g - g.mean(0)) if gradients else None)


@pytest.mark.parametrize("sampling", [WITHOUT, WITH])
@pytest.mark.parametrize("c", [1, 2])
def test_a_stationary_state_stays(sampling, c):
    """A step, averaged over all batches, leaves the covariance as it is."""
    curvatures = random_curvatures(c=c)
    lr = 0.9 * mean_square_threshold(curvatures, 2, sampling=sampling)
    state = stationary_state(curvatures, lr, 2, sampling)
    listed, chances = all_batches(5, 2, sampling)
    after = torch.zeros_like(state.covariance)
    for batch, chance in zip(listed, chances, strict=True):
        H, g = curvatures.matrices[list(batch)].mean(0), curvatures.gradients[list(batch)].mean(0)
        step = torch.eye(curvatures.rank).double() - lr * H
        after += chance * (step @ state.covariance @ step + lr**2 * torch.outer(g, g))
    assert torch.allclose(after, state.covariance, rtol=1e-6, atol=1e-8)
    assert state.random_walk == pytest.approx(0, abs=1e-12)
    expected = 0.5 * (curvatures.values * state.covariance.diagonal()).sum().item()
    assert state.excess_loss == pytest.approx(expected)
    assert state.mean_square == pytest.approx(state.covariance.trace().item())


def test_a_simulation_comes_to_the_stationary_state():
    curvatures, lr = random_curvatures(seed=3), 0.2
    assert lr < 0.7 * mean_square_threshold(curvatures, 1)
    state = stationary_state(curvatures, lr, 1)
    generator = torch.Generator().manual_seed(0)
    w, found = torch.zeros(2000, curvatures.rank, dtype=torch.float64), []
    for step in range(400):
        i = torch.randint(5, (2000,), generator=generator)
        moved = (curvatures.matrices[i] @ w[:, :, None])[:, :, 0] + curvatures.gradients[i]
        w = w - lr * moved
        found += [(w.square() @ curvatures.values).mean().item() / 2] * (step >= 100)
    assert sum(found) / len(found) == pytest.approx(state.excess_loss, rel=0.03)


@pytest.mark.quick
def test_random_walks_and_what_has_no_state():
    factors = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]]])
    gradients = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    state = stationary_state(ExampleCurvatures.of(factors, gradients), 0.1, 1)
    assert (state.excess_loss, state.random_walk) == (0.0, pytest.approx(0.01))
    curvatures = random_curvatures()
    threshold = mean_square_threshold(curvatures, 2)
    with pytest.raises(ValueError, match=f"expected lr below {threshold:.6g}, up to which SGD"):
        stationary_state(curvatures, 1.01 * threshold, 2)
    whole = stationary_state(curvatures, 0.5 * mean_square_threshold(curvatures, 5), 5)
    assert whole.mean_square == 0


@pytest.mark.quick
def test_nonuniformity_and_coherence():
    curvatures = random_curvatures(c=2)
    H = curvatures.matrices
    variance = (H @ H).mean(0) - H.mean(0) @ H.mean(0)
    expected = torch.linalg.eigvalsh(variance)[-1].sqrt().item()
    assert nonuniformity(curvatures) == pytest.approx(expected)
    products = torch.einsum("iab,jba->ij", H, H).sqrt()
    assert torch.allclose(coherence(curvatures), products)
    assert nonuniformity(ExampleCurvatures.of(torch.zeros(2, 1, 1))) == 0


@pytest.mark.parametrize("sampling", [WITHOUT, WITH, "reshuffling"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_certainly_stable_is_stable(sampling, seed):
    curvatures = random_curvatures(n=4, c=1 + seed % 2, seed=seed)
    for batch_size in (1, 2, 3, 4):
        p = None if sampling == "reshuffling" else noise_share(4, batch_size, sampling)
        certain = certainly_stable(curvatures, batch_size, p, sampling)
        assert certain <= mean_square_threshold(curvatures, batch_size, sampling=sampling) * (
            1 + 1e-6
        )


@pytest.mark.quick
def test_the_worst_batch():
    curvatures = random_curvatures(n=6)
    for B in (2, 3, 5):
        batches, _ = all_batches(6, B, WITHOUT)
        tops = [torch.linalg.eigvalsh(curvatures.matrices[list(b)].mean(0))[-1] for b in batches]
        assert largest_batch_sharpness(curvatures, B) == (pytest.approx(max(tops).item()), True)
    with_replacement, exact = largest_batch_sharpness(curvatures, 3, WITH)
    assert (with_replacement, exact) == (pytest.approx(curvatures.norms.max().item()), True)
    many = random_curvatures(n=60, P=20)
    value, exact = largest_batch_sharpness(many, 30)
    assert not exact
    some = torch.stack([many.matrices[torch.randperm(60)[:30]].mean(0) for _ in range(50)])
    assert torch.linalg.eigvalsh(some)[:, -1].max() <= value
    ragged, exact = largest_batch_sharpness(curvatures, 4, "reshuffling")
    assert not exact
    assert ragged >= largest_batch_sharpness(curvatures, 2)[0]


def test_the_moment_constraint_holds_at_the_threshold():
    for seed in range(6):
        curvatures = random_curvatures(P=2, seed=seed)
        for B in (1, 2, 3):
            eta = mean_square_threshold(curvatures, B)
            assert 0 < moment_constraint(curvatures, eta, B) <= 1
            assert moment_constraint(curvatures, 2 / curvatures.sharpness, B, 1) <= 1 + 1e-9


def zeroth_order_growth(values, lr, momentum):
    """The spectral radius of the map on second moments of (w_t, w_t-1), by Isserlis' theorem."""
    r = len(values)
    H, one, zero = torch.diag(values), torch.eye(r).double(), torch.zeros(r, r).double()
    mean = torch.cat(
        [
            torch.cat([(1 + momentum) * one - lr * H, -momentum * one], 1),
            torch.cat([one, zero], 1),
        ]
    )
    columns = []
    for unit in torch.eye(4 * r * r).double().reshape(-1, 2 * r, 2 * r):
        S = mean @ unit @ mean.T
        inner = H @ unit[:r, :r] @ H
        S[:r, :r] += lr**2 * (inner.T + inner.trace() * one)
        columns.append(S.reshape(-1))
    return torch.linalg.eigvals(torch.stack(columns, 1)).abs().max().item()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_zeroth_order(momentum):
    eta = zeroth_order_threshold(VALUES, momentum)
    assert zeroth_order_growth(VALUES, eta, momentum) == pytest.approx(1, abs=1e-7)
    assert zeroth_order_growth(VALUES, 1.01 * eta, momentum) > 1
    low, high = zeroth_order_bounds(4.6, 3.0, momentum)
    assert low <= eta <= high
    if not momentum:
        assert eta == pytest.approx(0.205425, abs=5e-7)
        assert 2 / eta == pytest.approx(9.735936, abs=5e-7)


@pytest.mark.quick
def test_zeroth_order_in_one_direction_and_errors():
    one = zeroth_order_threshold(torch.tensor([2.0]), 0.5)
    assert one == pytest.approx(zeroth_order_bounds(2.0, 2.0, 0.5)[0])
    assert zeroth_order_threshold(torch.zeros(3)) == math.inf
    with pytest.raises(ValueError, match="eigenvalues of a minimum, finite and at least 0, got"):
        zeroth_order_threshold(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="expected a sharpness from 0 to the trace of a min"):
        zeroth_order_bounds(1.0, 2.0)


def test_reshuffling_where_the_last_batch_is_small_can_be_less_stable():
    curvatures = random_curvatures(n=5, c=1, P=2, seed=1)
    found = [
        (reshuffling_threshold(curvatures, B), mean_square_threshold(curvatures, B)) for B in (3, 4)
    ]
    assert any(epochs < independent for epochs, independent in found)
