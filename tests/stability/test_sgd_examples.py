"""Curvatures and gradients of single examples, beside dense code."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.stability.sgd import (
    ExampleCurvatures,
    TooLargeError,
    example_curvatures,
    mean_square_threshold,
)


def net(outputs=1, inputs=3, width=5):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs)).double()


def data(n=6, outputs=1):
    g = torch.Generator().manual_seed(2)
    x = torch.randn(n, 3, generator=g, dtype=torch.float64)
    return x, torch.randn(n, outputs, generator=g, dtype=torch.float64)


def dense(model, x, loss_of_example):
    """H_i and g_i of every example, by functional transforms."""
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def outputs(theta, xi):
        pieces = theta.split([shape.numel() for shape in shapes])
        named = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        return torch.func.functional_call(model, named, (xi[None],))[0]

    found = []
    for i, xi in enumerate(x):
        J = torch.func.jacrev(outputs)(theta, xi).reshape(-1, len(theta))
        f = outputs(theta, xi).detach()
        r = torch.func.grad(loss_of_example)(f, i).reshape(-1)
        A = torch.func.hessian(loss_of_example)(f, i).reshape(len(r), len(r))
        found.append((J.T @ A @ J, J.T @ r))
    H, g = zip(*found, strict=True)
    return torch.stack(H), torch.stack(g)


def assert_same(found: ExampleCurvatures, H, g):
    """All that does not depend on the signs of eigenvectors."""
    values, vectors = torch.linalg.eigh(H.mean(0))
    values, vectors = values.flip(0)[: found.rank], vectors.flip(1)[:, : found.rank]
    assert torch.allclose(found.values, values, rtol=1e-8)
    assert values.sum() == pytest.approx(H.mean(0).trace().item(), rel=1e-9)
    assert torch.allclose(found.matrices.mean(0), torch.diag(values), atol=1e-10 * values[0])
    products = torch.einsum("iab,jba->ij", found.matrices, found.matrices)
    assert torch.allclose(products, torch.einsum("iab,jba->ij", H, H), rtol=1e-7)
    assert torch.allclose(found.norms, torch.linalg.eigvalsh(H)[:, -1], rtol=1e-8)
    assert torch.allclose(found.gradient_norms, g.norm(dim=1), rtol=1e-8)
    assert found.mean_gradient == pytest.approx(g.mean(0).norm().item(), rel=1e-8)
    inside = torch.einsum("ia,iab,ib->i", found.gradients, found.matrices, found.gradients)
    assert torch.allclose(inside, torch.einsum("ia,iab,ib->i", g, H, g), rtol=1e-7)
    assert (found.top @ H.mean(0) @ found.top).item() == pytest.approx(values[0].item(), rel=1e-8)
    along = found.along_top
    assert torch.allclose(along, torch.einsum("a,iab,b->i", found.top, H, found.top), rtol=1e-7)


@pytest.mark.parametrize("n", [6, 40])
@pytest.mark.parametrize("outputs", [1, 2])
def test_squared_errors(n, outputs):
    """With fewer outputs than parameters, and with more; the last batch is smaller."""
    model, (x, y) = net(outputs), data(n, outputs)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    found = example_curvatures(lg.Problem(model, "squared_error", batches))
    assert_same(found, *dense(model, x, lambda f, i: 0.5 * (f - y[i]).square().sum()))
    mean = example_curvatures(lg.Problem(model, nn.MSELoss(), batches))
    assert_same(mean, *dense(model, x, lambda f, i: (f - y[i]).square().mean()))


def test_cross_entropy():
    model, (x, _) = net(3), data(7)
    y = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    found = example_curvatures(lg.Problem(model, "cross_entropy", [(x, y)]))
    assert_same(found, *dense(model, x, lambda f, i: F.cross_entropy(f, y[i])))


class Tokens(nn.Module):
    """Four tokens with three classes each."""

    def __init__(self):
        super().__init__()
        self.inner = net(12)

    def forward(self, x):
        return self.inner(x).reshape(-1, 4, 3)


def test_tokens_of_one_example_are_one_example():
    model, (x, _) = Tokens(), data(5)
    y = torch.arange(20).reshape(5, 4) % 3
    found = example_curvatures(lg.Problem(model, "token_cross_entropy", [(x, y)]))
    assert found.factors.shape[:2] == (5, 12)
    assert_same(found, *dense(model, x, lambda f, i: F.cross_entropy(f.reshape(4, 3), y[i])))


def test_a_loss_of_ones_own():
    model, (x, y) = net(2), data(5, 2)

    def quartic(outputs, batch):
        return (outputs - batch[1]).pow(4).sum(), len(outputs)

    found = example_curvatures(lg.Problem(model, quartic, [(x, y)]))
    assert_same(found, *dense(model, x, lambda f, i: (f - y[i]).pow(4).sum()))


def test_parameters_of_one_layer_and_single_precision():
    model, (x, y) = net(), data()
    double = example_curvatures(lg.Problem(model, "squared_error", [(x, y)], parameters="2.*"))
    assert double.rank == 6
    single = example_curvatures(
        lg.Problem(model.float(), "squared_error", [(x.float(), y.float())], parameters="2.*")
    )
    thresholds = [mean_square_threshold(found, 2) for found in (double, single)]
    assert thresholds[1] == pytest.approx(thresholds[0], rel=1e-4)


@pytest.mark.quick
def test_too_many_outputs():
    x, y = data(6, 2)
    problem = lg.Problem(net(2), "squared_error", [(x, y)])
    with pytest.raises(TooLargeError, match=r"6 examples with 2 outputs each and 32 parameters"):
        example_curvatures(problem, largest=11)


def test_what_is_no_mean_over_examples():
    x, y = data(6, 1)
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    with pytest.raises(ValueError, match="BatchNorm in mode='train' makes the loss of an example"):
        example_curvatures(lg.Problem(normed, "squared_error", [(x, y)], mode="train"))
    assert example_curvatures(lg.Problem(normed, "squared_error", [(x, y)], mode="eval")).n == 6
    with pytest.raises(ValueError, match=r"is a sum, whose steps grow.*learning rate lr \* batch_"):
        example_curvatures(lg.Problem(net(), nn.MSELoss(reduction="sum"), [(x, y)]))

    def pairs(outputs, batch):
        return (outputs - outputs.mean(0)).square().sum(), len(outputs)

    with pytest.raises(ValueError, match="sum over examples"):
        example_curvatures(lg.Problem(net(), pairs, [(x, y)]))
    labels = torch.arange(24).reshape(6, 4) % 3
    labels[0, 0] = -100
    with pytest.raises(ValueError, match=r"as many terms for one.*got 3 to 4: what a batch divid"):
        example_curvatures(lg.Problem(Tokens(), "token_cross_entropy", [(x, labels)]))

    class Shared(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    mixed = nn.Sequential(nn.Linear(3, 1), Shared()).double()
    with pytest.raises(ValueError, match="outputs of one example to depend on its own inputs"):
        example_curvatures(lg.Problem(mixed, "squared_error", [(x, y)]))


def concave(outputs, batch):
    return -(outputs - batch[1]).square().sum(), len(outputs)


def test_a_loss_that_is_not_convex():
    with pytest.raises(ValueError, match="'concave' is not convex in the outputs"):
        example_curvatures(lg.Problem(net(), concave, [data()]))


@pytest.mark.quick
def test_factors_that_are_none():
    with pytest.raises(ValueError, match=r"finite factors \(n, c, P\) of at least one example"):
        ExampleCurvatures.of(torch.full((2, 1, 3), torch.nan))
