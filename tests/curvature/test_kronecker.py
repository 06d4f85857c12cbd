"""Kronecker factors of layers, beside Hessians, other libraries and closed forms."""

import importlib

import pytest
import torch
from torch import Tensor, nn

import lossgeom as lg
from lossgeom.curvature import left_out
from tests.problems import CASES
from tests.reference import joined

F64 = torch.float64
BY_NAME = {case.name: case for case in CASES}


def waves(*shape: int) -> Tensor:
    """Numbers that look random and can be written down."""
    n = torch.Size(shape).numel()
    return (torch.arange(1.0, n + 1, dtype=F64) ** 2).sin().reshape(shape)


def with_waves(model: nn.Module) -> nn.Module:
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(waves(*parameter.shape))
    return model


def convolutional(**settings):
    first = nn.Conv2d(2, 3, 2, **{"stride": 2, "padding": 1, **settings})
    return with_waves(nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(27, 3)))


IMAGES, LABELS = waves(7, 2, 4, 4), torch.arange(7) % 3


def split(x, y, *sizes):
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


# The number that a layer has


@pytest.mark.quick
def test_values_of_two_examples():
    """The numeric case of the decoupling: M = diag(2, 1) at x = (1, 0), all ones at (1, 1)."""
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=F64)
    M = torch.stack([torch.diag(torch.tensor([2.0, 1.0])), torch.ones(2, 2)]).double()

    def loss(outputs, batch):
        return 0.5 * torch.einsum("bi,bij,bj->", outputs, batch[1], outputs), len(outputs)

    problem = lg.Problem(nn.Linear(2, 2, bias=False).double(), loss, [(x, M)])
    (factors,) = lg.kronecker_factors(problem)
    H, K = lg.Hessian(problem).dense(), factors.matrix.dense()
    values = [torch.linalg.eigvalsh(A).flip(0).tolist() for A in (H, K)]
    assert values[0] == pytest.approx([2.467716, 0.768701, 0.263583, 0.0], abs=1e-6)
    assert values[1] == pytest.approx([2.368034, 0.904508, 0.345492, 0.131966], abs=1e-6)
    assert ((H - K).norm() / H.norm()).item() == pytest.approx(0.288675, abs=1e-6)
    U, V = (torch.linalg.eigh(A).eigenvectors.flip(1)[:, :2] for A in (H, K))
    overlap = lg.eigenspace_overlap(U, V)
    assert overlap.tolist() == pytest.approx([0.977461, 0.828046], abs=1e-6)


@pytest.mark.quick
def test_values_of_a_softmax():
    model = nn.Linear(1, 3).double()
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
    (factors,) = lg.kronecker_factors(
        lg.Problem(model, "cross_entropy", [(torch.ones(1, 1, dtype=F64), torch.zeros(1).long())])
    )
    values = torch.linalg.eigvalsh(factors.outputs).tolist()
    assert values == pytest.approx([0.0, 0.125597, 0.334403], abs=1e-6)


def test_an_input_that_is_always_the_same_makes_the_product_exact():
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=F64).expand(5, 3)
    model = with_waves(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))
    problem = lg.Problem(model, "cross_entropy", split(x, torch.arange(5) % 3, 3, 2))
    for bias in (False, True):
        first, _ = lg.kronecker_factors(problem, bias=bias)
        own = problem.with_parameters(list(first.parameters if bias else first.parameters[:1]))
        expected = lg.GaussNewton(own).dense()
        torch.testing.assert_close(in_theta(first), expected, rtol=1e-10, atol=1e-14)


def in_theta(factors) -> Tensor:
    """The dense block on the weight in its own order, and then the bias if it is joined."""
    K = factors.matrix.dense()
    m, n = len(factors.outputs), len(factors.inputs)
    if factors.joined:
        places = torch.arange(m * n).view(m, n)
        order = torch.cat([places[:, :-1].flatten(), places[:, -1]])
        K = K[order][:, order]
    return K


# Corrected eigenvalues


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("bias", [False, True])
def test_corrected_eigenvalues_are_the_diagonal_of_the_block(bias, sharing):
    problem = lg.Problem(convolutional(), "cross_entropy", split(IMAGES, LABELS, 4, 3))
    own, _ = lg.kronecker_factors(problem, bias=bias, sharing=sharing, corrected=True)
    block = problem.with_parameters(list(own.parameters if bias else own.parameters[:1]))
    H = lg.GaussNewton(block).dense()
    H = joined(H, *own.corrected.shape) if bias else H
    U = torch.kron(own.eigenbasis.left, own.eigenbasis.right)
    torch.testing.assert_close(own.corrected.flatten(), (U.T @ H @ U).diagonal())
    plain, _ = lg.kronecker_factors(problem, bias=bias, sharing=sharing)
    assert (own.matrix.dense() - H).norm() < (plain.matrix.dense() - H).norm()
    assert own.matrix.trace() == pytest.approx(H.trace().item())
    assert plain.corrected is None


# Sampled targets


@pytest.mark.parametrize("name", ["weighted", "attention", "mse"])
def test_sampled_factors_are_right_in_expectation(name, unchecked):
    """Within 4 standard errors along a direction; the double is not."""
    problem = BY_NAME[name].problem()
    for sharing in ("expand", "reduce"):
        exact = lg.kronecker_factors(problem, sharing=sharing)[0].outputs
        v = waves(len(exact))
        found = torch.stack(
            [
                v
                @ lg.kronecker_factors(
                    problem, curvature="sampled", sharing=sharing, seed=seed, samples=5
                )[0].outputs
                @ v
                for seed in range(16)
            ]
        )
        error = 4 * found.std() / 4
        assert (found.mean() - v @ exact @ v).abs() < error
        assert (found.mean() - 2 * v @ exact @ v).abs() > error


def test_a_seed_draws_the_same_targets_in_other_batches():
    case = BY_NAME["ragged"]
    whole = case.problem([(case.inputs, case.targets)])
    settings = {"curvature": "sampled", "samples": 2, "corrected": True}
    ours, same, other = (
        lg.kronecker_factors(p, seed=seed, **settings)[0]
        for p, seed in ((case.problem(), 3), (whole, 3), (whole, 4))
    )
    torch.testing.assert_close(ours.outputs, same.outputs)
    torch.testing.assert_close(ours.matrix.dense(), same.matrix.dense())
    assert not torch.allclose(same.outputs, other.outputs)


# What changes nothing


@pytest.mark.parametrize("curvature", ["exact", "empirical"])
def test_batches_and_ignored_examples_change_nothing(curvature):
    """Factors are those of the counted examples, whichever batches they are in."""
    x, model = waves(9, 4), with_waves(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)))
    y = torch.arange(9) % 3
    y[[2, 7]] = -100
    counted = y != -100
    order = torch.tensor([4, 0, 2, 3, 6, 1, 5])
    for sizes, inputs, targets in (
        ((5, 4), x, y),
        ((2, 2, 3), x[counted], y[counted]),
        ((7,), x[counted][order], y[counted][order]),
    ):
        problem = lg.Problem(model, "cross_entropy", split(inputs, targets, *sizes))
        found = lg.kronecker_factors(problem, curvature=curvature, corrected=True)
        if sizes == (5, 4):
            expected = found
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.inputs, b.inputs)
            torch.testing.assert_close(a.mean_input, b.mean_input)
            torch.testing.assert_close(a.outputs, b.outputs)
            torch.testing.assert_close(a.matrix.dense(), b.matrix.dense())


def test_columns_that_do_not_fit_at_once_change_nothing(monkeypatch):
    problem = lg.Problem(convolutional(), "cross_entropy", [(IMAGES, LABELS)])
    before = lg.kronecker_factors(problem, corrected=True)
    module = importlib.import_module("lossgeom.curvature.layer_rows")
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    for a, b in zip(lg.kronecker_factors(problem, corrected=True), before, strict=True):
        torch.testing.assert_close(a.inputs, b.inputs)
        torch.testing.assert_close(a.matrix.dense(), b.matrix.dense())


# Errors


def test_settings_that_do_not_exist(unchecked):
    problem = lg.Problem(nn.Linear(1, 1), "squared_error", [(torch.ones(1, 1), torch.ones(1, 1))])
    with pytest.raises(ValueError, match="unknown curvature 'Exact': did you mean exact"):
        lg.kronecker_factors(problem, curvature="Exact")
    with pytest.raises(ValueError, match="unknown sharing 'mean'"):
        lg.kronecker_factors(problem, sharing="mean")
    with pytest.raises(ValueError, match="samples of at least 1"):
        lg.kronecker_factors(problem, curvature="sampled", samples=0)
    assert not left_out(problem)
