"""Eigenpairs of layers' blocks against dense blocks, whichever way products are made."""

import importlib
from functools import partial

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.linalg import lanczos
from tests.linalg.test_residuals import assert_covers

pytestmark = pytest.mark.quick
# a function has its name, too
MODULE = importlib.import_module("lossgeom.curvature.layer_eigenpairs")


class Twice(nn.Module):
    """A layer that is called two times, so that outputs are no linear function of its weight."""

    def __init__(self):
        super().__init__()
        self.same, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.same(self.same(x).relu()))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )


def dense_of(*between):
    return nn.Sequential(nn.Linear(4, 6), *between, nn.Linear(6, 3))


CASES = {
    "relu": (partial(dense_of, nn.ReLU(), nn.BatchNorm1d(6)), (4,)),
    "tanh": (partial(dense_of, nn.Tanh(), nn.LayerNorm(6)), (4,)),
    "convolution": (convolutional, (1, 6, 6)),
    "twice": (Twice, (4,)),
}


def problem_of(name, dtype=torch.float64, loss="cross_entropy"):
    make, size = CASES[name]
    torch.manual_seed(0)
    model = make().to(dtype)
    batches = [(torch.randn(n, *size, dtype=dtype), torch.randint(3, (n,))) for n in (7, 3)]
    return lg.Problem(model, loss, batches)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_pairs_are_those_of_dense_blocks(name, matrix):
    problem = problem_of(name)
    found = lg.layer_eigenpairs(problem, 5, matrix=matrix, tol=1e-6)
    make = lg.Hessian if matrix == "hessian" else lg.GaussNewton
    assert len(found) == 2
    for layer, pairs in found.items():
        A = make(problem.with_parameters(f"{layer}.weight")).dense()
        expected = torch.linalg.eigvalsh(A).flip(0)[:5]
        torch.testing.assert_close(pairs.values, expected, rtol=1e-6, atol=1e-9)
        true = (A @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
        assert_covers(pairs.residuals + 1e-14, true)
        assert pairs.converged.all()


@pytest.mark.parametrize("name", ["relu", "convolution"])
def test_a_batch_whose_targets_are_all_ignored_changes_nothing(name):
    problem = problem_of(name)
    ignored = problem.batches[0][0], torch.full((7,), -100)
    for batches in ([ignored, *problem.batches], [*problem.batches, ignored]):
        more = lg.layer_eigenpairs(lg.Problem(problem.model, "cross_entropy", batches), 3)
        for layer, pairs in lg.layer_eigenpairs(problem, 3).items():
            torch.testing.assert_close(more[layer].values, pairs.values)


def test_large_layers_are_left_out_and_that_is_said(monkeypatch):
    monkeypatch.setattr(MODULE, "LARGEST", 20)
    problem = problem_of("relu")
    assert list(lg.layer_eigenpairs(problem, 2)) == ["3"]
    lg.layer_eigenpairs(problem, 2)
    assert problem.notes.count("no eigenvectors of the block of 0: more than 20 weights") == 1


def test_rows_take_the_place_of_hessian_products_between_relus_only(monkeypatch):
    """A search by rows takes a handful of Hessian products: to compare, not to look."""
    asked = []
    search = lanczos.top_eigenpairs

    def seen(A, *args, **settings):
        asked.append(type(A).__name__)
        return search(A, *args, **settings)

    monkeypatch.setattr(MODULE, "top_eigenpairs", seen)
    kinds = {"relu": "MatrixFree", "convolution": "MatrixFree", "tanh": "Hessian"}
    for name, kind in kinds.items():
        asked.clear()
        lg.layer_eigenpairs(problem_of(name), 2)
        assert asked == [kind] * 2
    asked.clear()
    lg.layer_eigenpairs(problem_of("relu"), 2, memory_budget=0)
    assert asked == ["Hessian"] * 2


class Square(torch.autograd.Function):
    """A function whose second derivative is taken by NumPy, which no recording sees."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return Doubled.apply(x, gradient)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gradient):
        ctx.save_for_backward(x, gradient)
        return torch.from_numpy(2 * x.detach().numpy() * gradient.detach().numpy())

    @staticmethod
    def backward(ctx, u):
        x, gradient = ctx.saved_tensors
        both = [2 * other.numpy() * u.detach().numpy() for other in (gradient, x)]
        return tuple(map(torch.from_numpy, both))


class Squared(nn.Module):
    def forward(self, x):
        return Square.apply(x)


def test_what_a_recording_does_not_see_is_not_replayed():
    torch.manual_seed(0)
    model, x = dense_of(Squared()).double(), torch.randn(7, 4).double()
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(7, 3).double())])
    pairs = lg.layer_eigenpairs(problem, 3)["0"]
    A = lg.Hessian(problem.with_parameters("0.weight")).dense()
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(A).flip(0)[:3])


class NearlyPiecewiseLinear(nn.Module):
    """Two ReLUs beside a GELU that curves on an example where its own slope is zero."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1, -1], [-1, 1], [-0.7517915246935645, -20]]))
            self.last.weight.copy_(torch.tensor([[1e3, 1, 5]]))

    def forward(self, x):
        z = self.first(x)
        return self.last(torch.cat([z[:, :2].relu(), nn.functional.gelu(z[:, 2:])], 1))


def test_finds_a_small_pair_that_the_products_made_from_rows_have_not():
    model, x = NearlyPiecewiseLinear().double(), torch.eye(2).double()[[1, 1, 1, 1, 0]]
    problem = lg.Problem(model, "squared_error", [(x, model(x).detach() - 3)])
    pairs = lg.layer_eigenpairs(problem, 2)["first"]
    A = lg.Hessian(problem.with_parameters("first.weight")).dense()
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(A).flip(0)[:2])
    assert pairs.converged.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_made_from_rows_are_compared_by_five(monkeypatch, dtype):
    products = []
    multiply = lg.Hessian.matmat
    monkeypatch.setattr(
        lg.Hessian, "matmat", lambda A, V: (products.append(V.shape[1]), multiply(A, V))[1]
    )
    found = lg.layer_eigenpairs(problem_of("relu", dtype), 5)
    assert all(pairs.converged.all() for pairs in found.values())
    assert sum(products) == 5 * len(found)


def test_an_unknown_matrix_and_no_pair(unchecked):
    problem = problem_of("relu")
    with pytest.raises(ValueError, match="unknown matrix 'fisher'"):
        lg.layer_eigenpairs(problem, matrix="fisher")
    with pytest.raises(ValueError, match="expected k"):
        lg.layer_eigenpairs(problem, 0)
    with pytest.raises(TypeError, match=r"expected k to be a whole number, got 1\.5"):
        lg.layer_eigenpairs(problem, 1.5)
    with pytest.raises(ValueError, match="expected seed of at least 0"):
        lg.layer_eigenpairs(problem, seed=-1)
    with pytest.raises(ValueError, match="expected memory_budget of at least 0"):
        lg.layer_eigenpairs(problem, memory_budget=-1)


def test_a_block_may_need_more_than_is_kept_by_default(monkeypatch):
    monkeypatch.setattr("lossgeom.curvature._memory.WORKSPACE", 3 * 2**30)
    problem = problem_of("tanh")
    assert lg.Hessian(problem).memory.least > MODULE.MEMORY_BUDGET
    assert all(pairs.converged.all() for pairs in lg.layer_eigenpairs(problem, 1).values())
    with pytest.raises(lg.MemoryBudgetError, match="needs at least 3,"):
        lg.layer_eigenpairs(problem, 1, memory_budget=MODULE.MEMORY_BUDGET)
