"""Distances of Kronecker products from layers' blocks, against dense blocks."""

import importlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import lossgeom as lg
from lossgeom.curvature import _block_norms
from tests.reference import joined

# a function has its name, too
MODULE = importlib.import_module("lossgeom.curvature.kronecker_errors")
NAMES = (
    *("decoupling", "reduce", "sampled", "sampled reduce", "empirical", "empirical reduce"),
    *("EKFAC", "Shampoo", "Shampoo^2", "best"),
)


def perceptron(split=False, dtype=torch.float64, examples=12):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype)
    x, y = torch.randn(examples, 4, dtype=dtype), torch.arange(examples) % 3
    sizes = [5, 7] if split else [examples]
    return lg.Problem(
        model, "cross_entropy", list(zip(x.split(sizes), y.split(sizes), strict=True))
    )


def convolutional():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 2, stride=2), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(12, 3)),
    ).double()
    x, y = torch.randn(6, 1, 4, 4).double(), torch.arange(6) % 3
    return lg.Problem(model, "cross_entropy", [(x, y)])


PROBLEMS = {"perceptron": perceptron, "convolutional": convolutional}


def block_of(problem, name):
    return lg.GaussNewton(problem.with_parameters(f"{name}.weight")).dense()


def empirical_gradients(problem, name):
    """The gradient of each example, m x n, by a backward pass each."""
    model, ((x, y),) = problem.model, problem.batches
    weight = model.get_parameter(f"{name}.weight")
    losses = nn.functional.cross_entropy(model(x), y, reduction="none")
    grads = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses]
    return torch.stack(grads).flatten(2)


def power(M, exponent):
    values, vectors = torch.linalg.eigh(M)
    return vectors @ torch.diag(values.clamp(min=0) ** exponent) @ vectors.T


def dense_products(problem, name):
    """All products but the closest, each in a dense form."""
    found, place = {}, [own.name for own in lg.kronecker_factors(problem)].index(name)
    settings = {"decoupling": {}, "reduce": {"sharing": "reduce"}, "EKFAC": {"corrected": True}}
    for kind in ("sampled", "empirical"):
        settings[kind] = {"curvature": kind}
        settings[f"{kind} reduce"] = {"curvature": kind, "sharing": "reduce"}
    for product, own in settings.items():
        found[product] = lg.kronecker_factors(problem, **own)[place].matrix.dense()
    G = empirical_gradients(problem, name)
    L, R = (G @ G.mT).mean(0), (G.mT @ G).mean(0)
    found["Shampoo"] = torch.kron(power(L, 0.5), power(R, 0.5))
    found["Shampoo^2"] = torch.kron(L, R) / L.trace()
    return found


@pytest.mark.parametrize("kind", PROBLEMS)
def test_errors_are_those_of_dense_blocks(kind):
    problem = PROBLEMS[kind]()
    table = lg.kronecker_errors(problem)
    for layer in table.layers:
        A = block_of(problem, layer.name)
        assert layer.norm.value == pytest.approx(A.norm().item())
        assert layer.trace == pytest.approx(A.trace().item())
        assert tuple(layer.errors) == tuple(layer.trace_ratios) == NAMES
        for name, K in dense_products(problem, layer.name).items():
            error = ((A - K).norm() / A.norm()).item()
            assert layer.errors[name].value == pytest.approx(error, rel=1e-6), name
            ratio = (K.trace() / A.trace()).item()
            assert layer.trace_ratios[name] == pytest.approx(ratio), name
        best = lg.best_kronecker_product(A, layer.shape).dense()
        error = ((A - best).norm() / A.norm()).item()
        assert layer.errors["best"].value == pytest.approx(error, rel=1e-6)
        assert layer.errors["best"].converged
        for name in NAMES:
            assert name == "EKFAC" or layer.errors[name].value >= error - 1e-9


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("memory_budget", [0, 2**30])
def test_best_kronecker_is_that_of_the_dense_block(kind, memory_budget):
    problem = PROBLEMS[kind]()
    for best in lg.best_kronecker(problem, tol=1e-8, memory_budget=memory_budget):
        shape = len(best.matrix.left), len(best.matrix.right)
        expected = lg.best_kronecker_product(block_of(problem, best.name), shape)
        torch.testing.assert_close(best.matrix.dense(), expected.dense(), rtol=1e-5, atol=1e-7)
        assert best.singular_value.value == pytest.approx(expected.frobenius_norm())
        assert best.singular_value.converged


def test_best_kronecker_is_found_from_a_start_that_hardly_holds_it():
    """The second input is small, and so the factor of the inputs is nearly the wrong one."""
    first, last = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -1], [-1, 1]]))
        last.weight.copy_(torch.tensor([[1.0, 0], [0, 1500]]))
    x = torch.tensor([[1.0, 0], [0, 1e-3]]).double()
    model = nn.Sequential(first, nn.ReLU(), last).double()
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(2, 2).double())])
    best, A = lg.best_kronecker(problem)[0], block_of(problem, "0")
    expected = lg.best_kronecker_product(A, (2, 2)).dense()
    assert (A - best.matrix.dense()).norm() == pytest.approx((A - expected).norm().item())


def test_best_kronecker_with_the_bias_joined():
    problem = perceptron()
    for best in lg.best_kronecker(problem, bias=True, tol=1e-8):
        m, n = len(best.matrix.left), len(best.matrix.right)
        A = lg.GaussNewton(problem.with_parameters(f"{best.name}.*")).dense()
        expected = lg.best_kronecker_product(joined(A, m, n), (m, n))
        torch.testing.assert_close(best.matrix.dense(), expected.dense(), rtol=1e-5, atol=1e-7)


def test_neither_batches_nor_memory_change_a_value():
    expected = lg.kronecker_errors(perceptron(), matvecs=30)
    for other in (
        lg.kronecker_errors(perceptron(split=True)),
        lg.kronecker_errors(perceptron(), memory_budget=0),
    ):
        for layer, own in zip(expected.layers, other.layers, strict=True):
            for name in NAMES:
                assert own.errors[name].value == pytest.approx(layer.errors[name].value, rel=1e-5)


@pytest.mark.parametrize("pieces", [1, 2**26])
def test_the_norm_of_a_large_block_is_that_of_a_gram_matrix(monkeypatch, pieces):
    problem = convolutional().take(5)  # 15 columns, and 18, 24 and 36 weights
    expected = lg.kronecker_errors(problem)
    monkeypatch.setattr(_block_norms, "PIECE_BYTES", pieces)
    monkeypatch.setattr(_block_norms, "EXACT", 15)
    for layer, own in zip(lg.kronecker_errors(problem).layers, expected.layers, strict=True):
        assert layer.norm.stderr == 0
        assert layer.norm.value == pytest.approx(own.norm.value)


def test_an_estimated_norm_is_in_the_error_bar(monkeypatch):
    problem = perceptron()
    exact = lg.kronecker_errors(problem)
    monkeypatch.setattr(_block_norms, "EXACT", 0)
    inside = []
    for seed in range(6):
        table = lg.kronecker_errors(problem, matvecs=12, seed=seed)
        for layer, own in zip(table.layers[:1], exact.layers, strict=False):
            assert layer.norm.stderr > 0
            for name in ("decoupling", "Shampoo", "best"):
                found = layer.errors[name]
                inside.append(abs(found.value - own.errors[name].value) <= 4 * found.stderr)
    assert all(inside)
    assert "+-" in str(table)


@pytest.mark.quick
def test_an_estimated_norm_is_no_less_than_what_products_explain(monkeypatch):
    """Where the estimate came out too low, no error is zero without a bar."""
    problem = perceptron(examples=1)
    exact = lg.kronecker_errors(problem)
    low = [replace(own.norm, value=0.9 * own.norm.value, stderr=0.01) for own in exact.layers]
    monkeypatch.setattr(MODULE, "block_norms", lambda *_: low)
    for layer, own in zip(lg.kronecker_errors(problem).layers, exact.layers, strict=True):
        assert layer.norm.value == pytest.approx(own.norm.value)
        assert all(error.stderr > 1e-3 for error in layer.errors.values())


def test_a_single_example_is_a_product_itself():
    for dtype, least in ((torch.float64, 1e-6), (torch.float32, 5e-3)):
        for layer in lg.kronecker_errors(perceptron(dtype=dtype, examples=1)).layers:
            for name in ("decoupling", "EKFAC", "best"):
                error = layer.errors[name]
                assert error.value <= error.stderr + 1e-12 <= least


def test_a_loss_without_a_likelihood_has_no_sampled_targets():
    problem = perceptron()

    def half_square(outputs, batch):
        return 0.5 * outputs.square().sum(), len(outputs)

    table = lg.kronecker_errors(lg.Problem(problem.model, half_square, problem.batches))
    assert "sampled" not in table.layers[0].errors
    assert "empirical" in table.layers[0].errors


def test_a_dead_layer_has_no_relative_error():
    problem = perceptron()
    nn.init.zeros_(problem.model[2].weight)
    layer = lg.kronecker_errors(problem.refreshed()).layers[0]
    assert layer.norm.value == 0
    assert all(math.isnan(error.value) for error in layer.errors.values())
    assert not any(error.converged for error in layer.errors.values())
    assert all(math.isnan(ratio) for ratio in layer.trace_ratios.values())


def test_says_where_the_iteration_has_not_converged():
    (best, _) = lg.best_kronecker(perceptron(), max_iterations=1, tol=1e-12)
    assert not best.singular_value.converged
    assert best.singular_value.residual > 0


@pytest.mark.quick
def test_prints_a_table():
    lines = str(lg.kronecker_errors(perceptron())).splitlines()
    assert lines[0] == "relative Frobenius error"
    assert lines[1].split()[:3] == ["layer", "size", "decoupling"]
    assert lines[2].split()[:4] == ["0", "6", "x", "4"]
    assert lines[5] == "trace, relative to that of the block"
    assert len(lines) == 9


def test_the_decoupling_of_digits_is_near_the_optimum():
    """A perceptron on 1,000 digits, whose errors were computed with other code before."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:1000]
    x, y = torch.from_numpy(images[order] / 16), torch.from_numpy(labels[order])
    torch.manual_seed(0)
    first, second, third = (
        nn.Linear(n, m, dtype=torch.float64) for n, m in ((64, 20), (20, 20), (20, 10))
    )
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(60):
        for part in torch.randperm(1000).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    table = lg.kronecker_errors(lg.Problem(model, "cross_entropy", [(x, y)]))
    expected = ((0.219, 0.254, 0.991), (0.265, 0.303, 0.920), (0.394, 0.460, 0.891))
    for layer, (best, decoupling, ratio) in zip(table.layers, expected, strict=True):
        found = {name: error.value for name, error in layer.errors.items()}
        assert found["best"] == pytest.approx(best, abs=0.002)
        assert found["decoupling"] == pytest.approx(decoupling, abs=0.002)
        assert 1 / layer.trace_ratios["decoupling"] == pytest.approx(ratio, abs=0.002)
        assert found["decoupling"] < min(found["empirical"], found["Shampoo"], found["Shampoo^2"])


def test_errors(unchecked):
    with pytest.raises(TypeError, match="expected a Problem"):
        lg.kronecker_errors(nn.Linear(2, 1))
    with pytest.raises(ValueError, match="expected tol > 0 and < 1, got 1"):
        lg.best_kronecker(perceptron(), tol=1.0)
    with pytest.raises(ValueError, match="expected max_iterations of at least 1"):
        lg.best_kronecker(perceptron(), max_iterations=0)
    with pytest.raises(ValueError, match="expected memory_budget of at least 0"):
        lg.best_kronecker(perceptron(), memory_budget=-1)
    wrong = {"seed": -1, "samples": 0, "matvecs": 1, "memory_budget": -1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"expected {name} of at least"):
            lg.kronecker_errors(perceptron(), **{name: value})
    with pytest.raises(TypeError, match="expected samples to be a whole number"):
        lg.kronecker_factors(perceptron(), samples=1.5)
    with pytest.raises(ValueError, match="expected samples of at least 1"):
        lg.kronecker_factors(perceptron(), samples=0)
