"""A residual network with BatchNorm, on images in ragged batches."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from curvlinops import GGNLinearOperator, HessianLinearOperator
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

import lossgeom as lg
from lossgeom.lab.models import resnet18
from tests.real_models.plain import Plain, assert_close, check, direction, untouched

SIZES = (4, 2)


@pytest.fixture(scope="module")
def model():
    """With running statistics that have seen data."""
    generator = torch.Generator().manual_seed(2)
    model = resnet18(width=4).double().train()
    with torch.no_grad():
        for _ in range(3):
            model(2 * torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64) + 1)
    return model


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(SIZES), 3, 32, 32, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (sum(SIZES),), generator=generator)
    return list(zip(x.split(SIZES), y.split(SIZES), strict=True))


def plain_in(mode, model, batches):
    """In eval mode on all images at once; in train mode the statistics are those of each batch."""
    y = torch.cat([targets for _, targets in batches])

    def outputs(model):
        if mode == "eval":
            return model(torch.cat([x for x, _ in batches]))
        return torch.cat([model(x) for x, _ in batches])

    return Plain(model, outputs, lambda f: F.cross_entropy(f, y), mode)


def test_is_the_network_of_the_paper():
    model = resnet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert sum(getattr(m, "kernel_size", None) != (1, 1) for m in layers) == 18
    state = torch.get_rng_state()
    small, same, other = (resnet18(7, width=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert torch.equal(small.conv.weight, same.conv.weight)
    assert not torch.equal(small.conv.weight, other.conv.weight)
    with pytest.raises(ValueError, match="expected width of at least 1, got 0"):
        resnet18(width=0)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_products_agree_with_plain_ones(mode, model, batches, unchecked):
    problem = lg.Problem(model, "cross_entropy", batches, mode=mode)
    with untouched(model):
        check(problem, plain_in(mode, model, batches))
    notes = {
        "eval": (),
        "train": ("BatchNorm uses the statistics of each batch, of 4, 2 examples",),
    }
    assert problem.notes == notes[mode]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_sharpness_agrees_with_scipy(mode, model, batches):
    plain = plain_in(mode, model, batches)
    P, product = plain.theta.numel(), plain.hessian()
    reference = LinearOperator(
        (P, P), lambda v: product(torch.from_numpy(v.reshape(-1))).numpy(), dtype=np.float64
    )
    # the error of both is the square of the tolerance over the gap to the next eigenvalue
    (expected,) = eigsh(reference, 1, which="LA", tol=1e-3, return_eigenvectors=False)
    estimate = lg.sharpness(lg.Problem(model, "cross_entropy", batches, mode=mode))
    assert estimate.converged
    assert estimate.value == pytest.approx(expected, rel=1e-5)


def test_batch_statistics_are_of_the_batches(model, batches):
    """Another split is another function in train mode, and the same one in eval mode."""
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    v = direction(lg.Problem(model, "cross_entropy", batches).theta)
    products = {
        (mode, len(data)): lg.Hessian(lg.Problem(model, "cross_entropy", data, mode=mode)) @ v
        for mode in ("eval", "train")
        for data in (batches, [(x, y)])
    }
    assert_close(products["eval", 2], products["eval", 1])
    gap = products["train", 2] - products["train", 1]
    assert gap.norm() > 1e-3 * products["train", 1].norm()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(lg.Hessian, HessianLinearOperator), (lg.GaussNewton, GGNLinearOperator)],
)
def test_agrees_with_curvlinops(ours, theirs, model, batches):
    """In eval mode, the only one in which theirs is told how the model runs."""
    model = copy.deepcopy(model).eval()
    reference = theirs(model, nn.CrossEntropyLoss(), list(model.parameters()), batches)
    matrix = ours(lg.Problem(model, "cross_entropy", batches))
    v = direction(torch.empty(matrix.shape[1], dtype=torch.float64))
    assert_close(matrix @ v, reference @ v)
