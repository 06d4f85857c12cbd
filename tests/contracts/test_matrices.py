"""What every curvature matrix must do, on every case."""

import gc
import weakref

import pytest
import torch
from torch import nn

from lossgeom import Problem
from lossgeom.curvature import MATRICES
from lossgeom.losses import Loss, as_loss
from tests import reference
from tests.problems import CASES, Case

DENSE = {"Hessian": reference.hessian, "GaussNewton": reference.gauss_newton}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(params=MATRICES, ids=lambda matrix: matrix.__name__)
def matrix(request):
    return request.param


def block(case: Case, k: int = 3, seed: int = 0) -> torch.Tensor:
    P = case.problem().theta.numel()
    return torch.randn(P, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_dense_code(matrix, case):
    expected = DENSE[matrix.__name__](case, reference.theta_of(case))
    actual = matrix(case.problem()).dense()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7 * expected.abs().max())


def test_is_symmetric(matrix, case):
    A = matrix(case.problem())
    dense = A.dense()
    assert A.T is A
    torch.testing.assert_close(dense, dense.T, rtol=1e-10, atol=1e-12)


def test_is_linear(matrix, case):
    A, V = matrix(case.problem()), block(case)
    combined = A @ (2 * V[:, 0] - 3 * V[:, 1])
    torch.testing.assert_close(combined, 2 * (A @ V)[:, 0] - 3 * (A @ V)[:, 1])


def test_does_not_depend_on_the_split_or_the_order(matrix, case):
    if not case.splittable:
        pytest.skip("batch statistics depend on the split")
    x, y = case.inputs, case.targets
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    shuffled = x[order], y[order]
    for batches in ([(x, y)], [(a[None], b[None]) for a, b in zip(*shuffled, strict=True)]):
        torch.testing.assert_close(
            matrix(case.problem(batches)) @ block(case),
            matrix(case.problem()) @ block(case),
            rtol=1e-10,
            atol=1e-12,
        )


def test_scales_with_the_loss(matrix, case):
    loss = as_loss(case.loss, case.options.get("label_smoothing", 0.0))

    def tripled(outputs, batch):
        total, count = loss.terms(outputs, batch)
        return 3 * total, count

    scaled = Case(
        case.name,
        case.model,
        Loss("tripled", tripled, average=loss.average),
        case.batches,
        case.criterion,
        {key: value for key, value in case.options.items() if key == "mode"},
    )
    torch.testing.assert_close(
        matrix(scaled.problem()) @ block(case), 3 * (matrix(case.problem()) @ block(case))
    )


@pytest.mark.parametrize("memory_budget", [0, 2000, 2**30])
def test_does_not_depend_on_the_memory_budget(matrix, case, memory_budget):
    A = matrix(case.problem(), memory_budget=memory_budget)
    expected = matrix(case.problem()) @ block(case)
    for _ in range(3):  # the first product linearises, the later ones use what was kept
        torch.testing.assert_close(A @ block(case), expected, rtol=1e-12, atol=1e-14)


def test_same_bits_every_time(matrix, case):
    assert torch.equal(matrix(case.problem()) @ block(case), matrix(case.problem()) @ block(case))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_leaves_no_trace_in_any_grad_mode(matrix, case, context, unchecked):
    expected = matrix(case.problem()) @ block(case)
    with context():
        before = reference.fingerprint(case.model)
        A = matrix(case.problem())
        result = [A @ block(case), A @ block(case)][1]
        assert reference.fingerprint(case.model) == before
    assert torch.equal(result, expected)
    assert not result.requires_grad


def test_leaves_no_trace_when_it_raises(matrix, case, unchecked):
    def failing(outputs, batch):
        raise RuntimeError("half-way")

    before = reference.fingerprint(case.model)
    broken = Case(case.name, case.model, failing, case.batches, case.criterion)
    with pytest.raises(RuntimeError, match="half-way"):
        matrix(broken.problem()) @ block(case)
    assert reference.fingerprint(case.model) == before


def test_training_goes_on_under_it(matrix, case):
    """The matrix stays where it was taken while the model's parameters move."""
    A = matrix(case.problem(), memory_budget=0)
    expected = A @ block(case)
    state = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in case.model.parameters():
                parameter += 1
        assert torch.equal(A @ block(case), expected)
    finally:
        case.model.load_state_dict(state)


class Sentinel:
    pass


def test_frees_its_graphs(matrix):
    """A sentinel hung into the graph of the forward pass goes with the operator."""
    sentinels = []

    def hang(module, inputs, output):
        if output.grad_fn is not None:
            sentinel = Sentinel()
            output.grad_fn.metadata["sentinel"] = sentinel
            sentinels.append(weakref.ref(sentinel))

    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model[1].register_forward_hook(hang)
    problem = Problem(model, "cross_entropy", [(torch.ones(2, 4), torch.zeros(2).long())])
    A = matrix(problem)
    A @ torch.ones(A.shape[0])
    assert any(reference() is not None for reference in sentinels)  # kept for the next product
    del A
    gc.collect()
    assert all(reference() is None for reference in sentinels)
