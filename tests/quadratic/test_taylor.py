"""Taylor models of networks at a point."""

import math

import pytest
import torch
from torch import nn

from lossgeom import Problem
from lossgeom.problem import NonFiniteError
from lossgeom.quadratic import network, squared_error, taylor
from lossgeom.quadratic._second_along import by_forward_mode, by_reverse_mode, way_for
from lossgeom.quadratic.point import slope
from lossgeom.trust.trial import DerivativeError
from tests.problems import mlp
from tests.quadratic.models import double, normal
from tests.quadratic.networks import (
    PLACES,
    classification,
    dense_expansion,
    plain_outputs,
    regression,
    seeded,
    small_step,
)
from tests.reference import fingerprint


@pytest.mark.parametrize(("name", "mode"), PLACES)
def test_against_the_dense_expansion(name, mode):
    """Values, products and the top of J J^T, beside J and Q entry by entry."""
    problem = regression(name, sizes=(4, 2), mode=mode)
    f, J, Q = dense_expansion(problem)
    y = torch.cat([targets.reshape(-1) for _, targets in problem.batches])
    d, s = small_step(problem), 1 / math.sqrt(6)
    u = normal(1, len(f), seed=5)
    for order in (1, 2):
        JT = J + (order - 1) * (Q @ d[0])
        z = s * (f + (J + JT) @ d[0] / 2 - y)
        point = taylor(problem, order).at(d)
        close = {"rtol": 1e-6, "atol": 1e-8}
        torch.testing.assert_close(point.z[0], z, **close)
        torch.testing.assert_close(point.pullback(u)[0], s * JT.T @ u[0], **close)
        torch.testing.assert_close(point.tangent.jacobian.dense(), s * JT, **close)
        expected = s**2 * torch.linalg.matrix_norm(JT, 2) ** 2
        torch.testing.assert_close(point.largest_ntk_eigenvalues()[0], expected, **close)


@pytest.mark.parametrize(("name", "mode"), PLACES)
def test_the_network_itself(name, mode):
    problem = regression(name, sizes=(4, 2), mode=mode)
    model, d = network(problem), small_step(problem)
    y = torch.cat([targets.reshape(-1) for _, targets in problem.batches])
    outputs, there = plain_outputs(problem), problem.theta + d[0]
    torch.testing.assert_close(model.at(d).z[0], (outputs(there) - y) / math.sqrt(6))
    torch.testing.assert_close(model.at(d).pullback(model.at(d).z)[0], problem.at(there).gradient())
    J = torch.autograd.functional.jacobian(outputs, there) / math.sqrt(6)
    expected = torch.linalg.matrix_norm(J, 2).square()
    torch.testing.assert_close(model.at(d).largest_ntk_eigenvalues()[0], expected)


@pytest.mark.parametrize(("name", "mode"), PLACES)
def test_the_way_is_the_right_one(name, mode):
    """Forward mode is wrong through norm layers, unless their statistics are constants."""
    problem = regression(name, mode=mode)
    wrong = name == "layer norm" or (name, mode) == ("batch norm", "train")
    assert way_for(problem) is (by_reverse_mode if wrong else by_forward_mode)
    unchecked = regression(name, mode=mode, check=False)
    assert way_for(unchecked) is by_reverse_mode


def test_the_way_for_some_parameters_is_not_that_for_all():
    problem = regression("layer norm")
    assert way_for(problem.with_parameters("3.*")) is by_forward_mode
    assert way_for(problem) is by_reverse_mode


@pytest.mark.parametrize("name", ["tanh", "layer norm"])
def test_errors_are_of_second_and_third_order(name):
    problem = regression(name)
    true, d = network(problem), small_step(problem, scale=1.0)
    for order in (1, 2):
        model = taylor(problem, order)
        h = double(1e-2, 5e-3)
        errors = torch.stack([(model.at(x * d).z - true.at(x * d).z).norm() for x in h])
        power = (errors[0] / errors[1]).log2().item()
        assert power == pytest.approx(order + 1, abs=0.1)


def test_exact_where_the_network_is_quadratic():
    """Two linear layers, one output with a square; at any distance."""
    problem = regression("two linear")
    d = 10 * small_step(problem)
    torch.testing.assert_close(taylor(problem, 2).at(d).z, network(problem).at(d).z)
    held = problem.with_parameters("0.*")
    d = 10 * small_step(held)
    torch.testing.assert_close(taylor(held, 1).at(d).z, network(held).at(d).z)


class Square(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(double(1.0, -2.0))

    def forward(self, x):
        return (x @ self.w).square()[:, None]


@pytest.mark.quick
def test_by_hand():
    """z = (w . x)^2 - y at w = (1, -2), x = (3, 1), y = 4, moved by (1, 1)."""
    data = [(double(3, 1)[None], double(4)[None])]
    problem = Problem(Square(), "squared_error", data)
    d = double(1, 1)[None]
    linear, quadratic = (taylor(problem, order).at(d) for order in (1, 2))
    assert linear.z.item() == pytest.approx(1 + 2 * 4 - 4)
    assert quadratic.z.item() == pytest.approx((3 * 2 - 1) ** 2 - 4)
    assert linear.pullback(double(1)[None])[0].tolist() == pytest.approx([6, 2])
    assert quadratic.pullback(double(1)[None])[0].tolist() == pytest.approx([30, 10])
    assert quadratic.largest_ntk_eigenvalues().item() == pytest.approx(1000)


@pytest.mark.parametrize("order", [1, 2])
def test_ragged_batches_are_one_batch(order):
    whole, ragged = regression(sizes=(7,)), regression(sizes=(4, 2, 1))
    d = small_step(whole)
    a, b = (taylor(problem, order).at(d) for problem in (whole, ragged))
    torch.testing.assert_close(a.z, b.z)
    torch.testing.assert_close(a.pullback(a.z), b.pullback(b.z))
    torch.testing.assert_close(a.largest_ntk_eigenvalues(), b.largest_ntk_eigenvalues())


LOSSES = {
    "squared_error": lambda: regression(sizes=(4, 2)),
    "mse": lambda: regression(sizes=(4, 2), loss=nn.MSELoss()),
    "sum": lambda: regression(sizes=(4, 2), loss=nn.MSELoss(reduction="sum")),
    "huber": lambda: regression(sizes=(4, 2), loss=nn.HuberLoss()),
    "cross_entropy": classification,
    "smoothed": lambda: classification(label_smoothing=0.2),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_the_problems(loss):
    problem = LOSSES[loss]()
    there = problem.at(problem.theta + small_step(problem)[0])
    for model in (network(problem), taylor(problem, 1), taylor(problem, 2)):
        here = model.at(model.origin)
        torch.testing.assert_close(model.loss(here.z).item(), problem.loss())
        found = here.pullback(slope(model.loss, here.z))[0]
        torch.testing.assert_close(found, problem.gradient())
        assert (model.loss is squared_error) == (loss in ("squared_error", "mse", "sum"))
    true = network(problem)
    z = true.at(small_step(problem)).z
    torch.testing.assert_close(true.loss(torch.cat([z, z])), double(*2 * [there.loss()]))


@pytest.mark.parametrize("loss", ["squared_error", "mse", "sum"])
def test_the_kernel_is_the_gauss_newton_matrix(loss):
    from lossgeom import GaussNewton

    problem = LOSSES[loss]()
    values = torch.linalg.eigvalsh(GaussNewton(problem).dense())
    for model in (network(problem), taylor(problem, 1), taylor(problem, 2)):
        found = model.at(model.origin).largest_ntk_eigenvalues()
        torch.testing.assert_close(found[0], values[-1])


def test_dropout_with_a_seed():
    """Each batch has its own draw, the same in every evaluation."""
    problem = Problem(
        seeded(lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 2))),
        "squared_error",
        list(regression(sizes=(4, 2)).batches),
        mode="train",
        seed=5,
    )
    d = 1e-3 * small_step(problem)
    true, model = network(problem), taylor(problem)
    assert torch.equal(model.at(d).z, model.at(d).z)
    torch.testing.assert_close(model.at(d).z, true.at(d).z, rtol=0, atol=1e-8)
    assert not torch.allclose(taylor(problem, 1).at(d).z, true.at(d).z, rtol=0, atol=1e-8)


def test_float32():
    wide = regression()
    narrow = regression(dtype=torch.float32)
    d = small_step(wide)
    for order in (1, 2):
        expected, found = taylor(wide, order).at(d), taylor(narrow, order).at(d.float())
        assert found.z.dtype == found.pullback(found.z).dtype == torch.float32
        torch.testing.assert_close(found.z.double(), expected.z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            found.largest_ntk_eigenvalues().double(), expected.largest_ntk_eigenvalues(),
            rtol=1e-4, atol=0,
        )  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), [("batch norm", "train"), ("tanh", "eval")])
def test_no_trace_is_left(name, mode, unchecked):
    problem = regression(name, mode=mode)
    before, theta = fingerprint(problem.model), problem.theta.clone()
    for model in (network(problem), taylor(problem, 1), taylor(problem, 2)):
        point = model.at(small_step(problem))
        point.pullback(point.z)
        point.largest_ntk_eigenvalues()
    assert fingerprint(problem.model) == before
    assert torch.equal(problem.theta, theta)


def test_a_network_that_does_not_depend_on_its_parameters():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(double(1.0))

        def forward(self, x):
            return 2 * x

    problem = Problem(Constant(), "squared_error", [(double(1)[None], double(1)[None])])
    for model in (network(problem), taylor(problem, 1), taylor(problem, 2)):
        point = model.at(double(1)[None])
        assert (point.z.item(), point.pullback(point.z).item()) == (1, 0)
        assert point.largest_ntk_eigenvalues().item() == 0


class _Wrong(torch.autograd.Function):
    """x^2, whose second derivative is wrong, or has a wrong derivative in what it is linear in."""

    @staticmethod
    def forward(ctx, x, which):
        ctx.save_for_backward(x)
        ctx.which = which
        return x.square()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (_Slope.apply(x, g) if ctx.which == "later" else 2 * x.detach() * g), None


class _Slope(torch.autograd.Function):
    """2 x g."""

    @staticmethod
    def forward(ctx, x, g):
        ctx.save_for_backward(x, g)
        return 2 * x * g

    @staticmethod
    def backward(ctx, h):
        x, g = ctx.saved_tensors
        return 2 * g.detach() * h, 2 * x * h


def wrong(which):
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return _Wrong.apply(self.linear(x), which)

    batches = list(regression().batches)
    return Problem(seeded(Model), "squared_error", batches)


def test_wrong_derivatives_are_refused():
    for make in (network, taylor):
        with pytest.raises(DerivativeError, match=r"second derivative.* disagrees"):
            make(wrong("second"))
    model = taylor(wrong("later"))
    text = r"by forward mode RuntimeError.*by reverse mode a relative error of .*order=1 does with"
    with pytest.raises(DerivativeError, match=text):
        model.at(model.origin)
    problem = wrong("later")
    linear = taylor(problem, 1)
    torch.testing.assert_close(linear.at(linear.origin).z, network(problem).start)


def test_bad_arguments(unchecked):
    problem = regression()
    with pytest.raises(ValueError, match=r"expected order to be one of 1 or 2, got 3"):
        taylor(problem, 3)
    for make in (network, taylor):
        with pytest.raises(TypeError, match="expected a Problem"):
            make(problem.model)
    with pytest.raises(ValueError, match=r"expected parameters \(1, P\), of one run; got \(2, "):
        taylor(problem).at(small_step(problem).repeat(2, 1))
    broken = seeded(lambda: mlp(3, 2))
    nn.init.constant_(broken[0].weight, math.inf)
    with pytest.raises(NonFiniteError):
        taylor(Problem(broken, "squared_error", list(problem.batches), check=False))
