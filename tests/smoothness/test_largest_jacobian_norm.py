"""The largest norm, with and without those of all examples."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.smoothness import _pieces
from lossgeom.smoothness.exact import from_gram, gram, gram_bound, row_norm
from tests.problems import mlp


def random_problem(seed, dtype, splits=(13, 20, 7)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp(6, 12, 5, activation=nn.ReLU).to(dtype)
        parts = torch.randn(sum(splits), 6).mul(torch.rand(sum(splits), 1) * 3).split(splits)
    return lg.Problem(model, "cross_entropy", [(x, torch.zeros(len(x)).long()) for x in parts])


@pytest.mark.parametrize("outputs", ["logits", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_maximum_over_all(outputs, dtype, unchecked, monkeypatch):
    pruned = 0
    for seed in range(20):
        problem = random_problem(seed, dtype)
        for size in (32 * 2**20, 5_000):
            monkeypatch.setattr(_pieces, "PIECE_BYTES", size)
            norms = lg.jacobian_norms(problem, outputs)
            found = lg.largest_jacobian_norm(problem, outputs)
            assert found.value == pytest.approx(norms.max, rel=1e-12)
            assert (found.example, found.examples) == (norms.argmax, 40)
            pruned += found.pruned
    assert pruned > 20 * 40  # more than half


def test_of_several_that_are_equal_the_first():
    """Every example ties."""
    model = nn.Linear(3, 2)
    data = [(torch.randn(n, 3), torch.zeros(n).long()) for n in (5, 9)]
    problem = lg.Problem(model, "cross_entropy", data)
    norms, found = lg.jacobian_norms(problem), lg.largest_jacobian_norm(problem)
    assert found.value == pytest.approx(norms.max, rel=1e-12)
    assert found.example == norms.argmax == 0
    assert float(found) == found.value


def test_ties_of_some_examples(unchecked):
    for seed in range(5):
        problem = random_problem(seed, torch.float32, splits=(20,))
        ((x, y),) = problem.batches
        twice = [(torch.cat([x, x]), torch.cat([y, y])), (x, y)]
        again = lg.Problem(problem.model, "cross_entropy", twice)
        norms, found = lg.jacobian_norms(again), lg.largest_jacobian_norm(again)
        assert found.value == pytest.approx(norms.max, rel=1e-12)
        assert found.example == norms.argmax


def test_bounds_are_bounds():
    rows = torch.randn(200, 6, 9, generator=torch.Generator().manual_seed(0)).double()
    rows[::2, 1:] = rows[::2, :1]  # of rank one: the bounds are then sharp
    G, scale = gram(rows)
    norms = from_gram(G, scale)
    assert (gram_bound(G, scale) >= norms * (1 - 1e-12)).all()
    assert (row_norm(rows) >= gram_bound(G, scale) * (1 - 1e-12)).all()
    torch.testing.assert_close(norms[::2], row_norm(rows)[::2])


def test_a_zero_jacobian():
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    found = lg.largest_jacobian_norm(lg.Problem(model, "cross_entropy", data))
    assert (found.value, found.example) == (0.0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_outputs_than_inputs(dtype):
    """The Gram matrices are those of the columns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp(2, 12, 40).to(dtype)
        x = torch.randn(9, 2)
    problem = lg.Problem(model, "cross_entropy", [(x, torch.zeros(9).long())])
    J = torch.stack([torch.autograd.functional.jacobian(model, one) for one in x.to(dtype)])
    expected = torch.linalg.matrix_norm(J.double(), ord=2)
    assert gram(J)[0].shape == (9, 2, 2)
    norms = lg.jacobian_norms(problem, method="exact")
    rtol = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(norms.values, expected, rtol=rtol, atol=0)
    found = lg.largest_jacobian_norm(problem)
    assert (found.value, found.example) == (pytest.approx(norms.max, rel=1e-12), norms.argmax)
