import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.lab.models.resnet18 import BasicBlock
from lossgeom.lipschitz.certified import blocks, expansions, jacobian_bounds, propagation
from lossgeom.lipschitz.certified.blocks import Block, norm_of_sum
from lossgeom.lipschitz.lipschitz import certified_on_balls
from tests.conftest import without_checks
from tests.smoothness.networks import NETWORKS, in_ball, jacobians, norms, problem, warmed_up

FIVE = ("relu", "gelu", "pooled", "residual", "branches")


def expanded_as_large(monkeypatch, largest=2**26, kept=2**22, many=1024):
    """Let small networks be expanded as those of more than 2^22 numbers are."""
    monkeypatch.setattr(jacobian_bounds, "BLOCK_NUMBERS", 1)
    monkeypatch.setattr(jacobian_bounds, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(expansions, "LARGEST", largest)
    monkeypatch.setattr(expansions, "KEPT", kept)
    monkeypatch.setattr(blocks, "MANY", many)


@pytest.fixture(scope="module")
def resnet():
    """A residual network whose Jacobians have 2e7 numbers in all inputs and all activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        body = (BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = nn.Sequential(*stem, *body, nn.Linear(16, 10))
        x = torch.randn(2, 3, 16, 16)
        warmed_up(model, x.repeat(8, 1, 1, 1))
    return model.double().eval(), x[:1].double()


def test_a_residual_network_has_bounds_near_its_jacobians(resnet):
    model, x = resnet
    with without_checks():
        bounds = certified_on_balls(problem(model, x), 0.01)
        everywhere = lg.lipschitz_global(problem(model, x))
    local, variation = bounds.norm.item(), bounds.variation.item()
    at_data = norms(jacobians(model, x)).item()
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        y = in_ball(x, 0.01, generator)
        assert norms(jacobians(model, y)).item() <= local
        assert norms(jacobians(model, y) - jacobians(model, x)).item() <= variation
    assert at_data <= local < 3 * at_data
    assert variation < 3 * at_data
    assert everywhere > 100 * at_data


@pytest.mark.parametrize("name", FIVE)
def test_large_networks_have_the_bounds_of_small_ones(name, monkeypatch):
    model, x = NETWORKS[name]
    with without_checks():
        expected = lg.lipschitz_local(problem(model, x), 0.1)
        expanded_as_large(monkeypatch)
        local = lg.lipschitz_local(problem(model, x), 0.1)
        torch.testing.assert_close(local, expected, rtol=1e-9, atol=0)
        expanded_as_large(monkeypatch, many=0)
        estimated = lg.lipschitz_local(problem(model, x), 0.1)
    torch.testing.assert_close(estimated, expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", FIVE)
def test_no_expansion_takes_more_memory_than_is_announced(name, monkeypatch):
    """Where it would, it is left out from there on, and bounds are looser but hold."""
    model, x = NETWORKS[name]
    boxed, sizes = propagation._boxed, []

    def watched(state, radius):
        if state.expansion is not None:
            columns = [block.columns for block in state.expansion.blocks.values()]
            sizes.append(sum(part.numel() for part in (*columns, state.expansion.entries)))
        return boxed(state, radius)

    with without_checks():
        tight = lg.lipschitz_local(problem(model, x), 0.1)
        monkeypatch.setattr(propagation, "_boxed", watched)
        expanded_as_large(monkeypatch)
        lg.lipschitz_local(problem(model, x), 0.1)
        largest = max(sizes) // 2
        sizes.clear()
        expanded_as_large(monkeypatch, largest=largest)
        loose = lg.lipschitz_local(problem(model, x), 0.1)
        variation = lg.local_variation_upper(problem(model, x), 0.1)
    assert max(sizes, default=0) <= largest
    assert (loose >= tight * (1 - 1e-9)).all()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        y, z = (jacobians(model, in_ball(x, 0.1, generator)) for _ in range(2))
        assert (norms(y) <= loose).all()
        assert (norms(y - z) <= variation).all()


def test_second_derivatives_of_large_networks_are_not_bounded(monkeypatch):
    model, x = NETWORKS["tanh"]
    with without_checks():
        assert lg.local_variation_upper(problem(model, x), 1e-3).max() > 0
        small = lg.local_variation_upper(problem(model, x), 1e-3)
        expanded_as_large(monkeypatch, kept=0)
        large = lg.local_variation_upper(problem(model, x), 1e-3)
    assert (small <= large * (1 + 1e-9)).all()
    assert large.max() < 5 * small.max()  # the deviations of slopes are as small as the ball


@pytest.mark.quick
@pytest.mark.parametrize("many", [0, 1024])
def test_sums_are_below_their_bound_and_half_a_gain_is_caught(many, monkeypatch):
    """sum_k X_k T_k G_k with ||T_k|| <= 1, ||G_k|| <= g_k; all aligned is the worst case."""
    monkeypatch.setattr(blocks, "MANY", many)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        K, gains = (3, 5, 2), torch.rand(3, 1, generator=generator, dtype=torch.float64)
        X = [torch.randn(1, k, 4, generator=generator, dtype=torch.float64) for k in K]
        none = torch.zeros(1, dtype=torch.float64)
        parts = [Block(x, none, g) for x, g in zip(X, gains, strict=True)]
        bound = norm_of_sum(parts).item()
        products = []
        for x, g in zip(X, gains, strict=True):
            G = torch.randn(x.shape[1], 4, generator=generator, dtype=torch.float64)
            products.append(x[0].T @ (g * G / torch.linalg.matrix_norm(G, ord=2)))
        assert torch.linalg.matrix_norm(sum(products), ord=2) <= bound
        # one block alone at its worst
        alone = [Block(X[0], none, gains[0]), *(Block(x, none, none) for x in X[1:])]
        exact = (gains[0] * torch.linalg.matrix_norm(X[0][0], ord=2)).item()
        assert exact <= norm_of_sum(alone).item() <= exact * (1 + 1e-6)
        halved = [Block(X[0], none, gains[0] / 2), *alone[1:]]
        assert norm_of_sum(halved).item() < exact


@pytest.mark.quick
def test_tall_matrices_need_no_gram_matrix_of_their_rows(monkeypatch):
    monkeypatch.setattr(blocks, "MANY", 10)
    monkeypatch.setattr(blocks, "_norm_of_large_sum", None)
    X, one = torch.ones(1, 12, 100, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    bound = norm_of_sum([Block(X, 0 * one, one), Block(X, 0 * one, one)]).item()
    assert bound == pytest.approx(2 * 1200**0.5)


@pytest.mark.quick
@pytest.mark.parametrize("many", [0, 1024])
def test_sums_of_extreme_sizes_are_never_too_small(many, monkeypatch):
    monkeypatch.setattr(blocks, "MANY", many)
    for size, gain in ((1e-200, 1e200), (1e200, 1e-200), (1e160, 1e-170), (0.0, 1.0), (1.0, 0.0)):
        X = torch.full((1, 2, 2), size, dtype=torch.float64)
        unit = torch.eye(2, dtype=torch.float64)[None]
        none, g = torch.zeros(1, dtype=torch.float64), torch.tensor([gain], dtype=torch.float64)
        bound = norm_of_sum([Block(X, none, g), Block(unit, none, 1e-30 * (none + 1))]).item()
        assert bound >= 2 * size * gain
