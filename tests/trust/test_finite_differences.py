"""What the comparison of derivatives costs, and whom it blames for what is raised."""

import gc
from types import MethodType

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import lossgeom as lg
from lossgeom.trust.finite_differences import DIRECTIONS, STEPS, Line, Point, examine
from lossgeom.trust.trial import EXAMPLES, examined, on_few
from tests.sentinels import hung_into
from tests.trust.test_doctor import Hidden, RootMeanSquare, problem

pytestmark = pytest.mark.usefixtures("unchecked")
ORDERS = ("first", "second")


def small(*layers: nn.Module, loss="cross_entropy", **options):
    p = problem(*layers, **options)
    p = lg.Problem(p.model, loss, p.batches, **options)
    return on_few(p, p.first_batch(), lambda few: few, double=True)


def counted(run, *layers: nn.Module) -> int:
    """How often a model is called."""
    calls, original = [], type(layers[0]).forward

    def forward(self, x):  # no hook, for what hooks write is put back
        calls.append(1)
        return original(self, x)

    layers[0].forward = MethodType(forward, layers[0])
    p = small(*layers)
    calls.clear()
    run(p)
    return len(calls)


def statuses(p) -> list[str]:
    return [finding.status for finding in examine(Point(p), ORDERS).values()]


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.ReLU(), nn.BatchNorm1d(16)])
def test_a_healthy_model_is_called_three_times(layer):
    assert counted(lambda p: examine(Point(p), ORDERS), layer) == 3
    assert counted(lambda p: examine(Point(p), ["first"]), layer) == 3


def test_orders_share_the_passes_of_every_step_and_direction():
    most = 1 + 2 * DIRECTIONS * len(STEPS)
    assert counted(lambda p: examine(Point(p), ORDERS), Hidden(), nn.Tanh()) == most
    deep = [m for _ in range(6) for m in (RootMeanSquare(), nn.Linear(16, 16), nn.ReLU())]
    assert counted(lambda p: examine(Point(p), ORDERS), *deep) < most / 2


def test_directions_are_drawn_when_they_are_needed(monkeypatch):
    drawn = []
    direction = Point.direction
    monkeypatch.setattr(Point, "direction", lambda self: drawn.append(1) or direction(self))
    assert statuses(small(nn.Tanh())) == ["right", "right"]
    assert len(drawn) == 2  # away from the parameters, and one line
    assert statuses(small(nn.Tanh(), Hidden())) == ["right", "wrong"]
    assert len(drawn) == 2 + 1 + DIRECTIONS


def test_directions_depend_on_the_seed_alone():
    p = small(nn.Tanh(), nn.Dropout(0.5), mode="train", seed=0)
    point, other = Point(p, 0), Point(p, 0)
    expected = [point.direction() for _ in range(3)]
    for v in expected:
        found = other.direction()
        other.here.products(found)
        next(Line(other, found).differences())
        assert torch.equal(found, v)
    assert not torch.equal(Point(p, 1).theta, point.theta)


def without_slope(outputs, batch):
    return outputs.detach().square().sum(), EXAMPLES


@pytest.mark.quick
@pytest.mark.parametrize("loss", ["cross_entropy", "linear", without_slope])
def test_both_products_of_one_graph(loss):
    if loss == "linear":
        loss = lambda outputs, batch: (outputs.sum(), EXAMPLES)  # noqa: E731
    p = small(nn.Tanh(), loss=loss)
    point = Point(p, 0)
    v = point.direction()

    def outputs(theta: Tensor) -> Tensor:
        return p.outputs(theta, point.batch)

    def total(theta: Tensor) -> Tensor:
        return p.terms(outputs(theta), point.batch)[0]

    expected = torch.autograd.functional.hvp(total, point.theta, v)[1]
    pushed = torch.autograd.functional.jvp(outputs, point.theta, v)[1]
    for found, reference in zip(point.here.products(v), (expected, pushed), strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-10, atol=1e-12)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class ByNumPy(torch.autograd.Function):
    """Its backward cannot even run where its graph is wanted."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(gradient.numpy() * ctx.x.cos().numpy())


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


@pytest.mark.parametrize("function", [Once, ByNumPy])
def test_a_gradient_without_a_derivative_is_still_a_gradient(function):
    assert statuses(small(Applied(function))) == ["right", "unsupported"]
    whole = problem(Applied(function))
    lg.check_derivatives(whole, order=1)
    with pytest.raises(lg.DerivativeError, match=r"the second derivative in Applied \(1\) is not"):
        lg.check_derivatives(whole)


def test_a_loss_that_autograd_cannot_follow():
    """It can be evaluated, and raises where gradients are wanted."""

    def by_numpy(outputs, batch):
        return torch.tensor((outputs.numpy() ** 2).sum()), len(outputs)

    assert statuses(small(nn.Tanh(), loss=by_numpy)) == ["unsupported", "unsupported"]


class OnlyHere(nn.Module):
    """Raises at other parameters."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        if self.shift.any():
            raise KeyError("elsewhere")
        return x + self.shift


def test_a_model_that_cannot_be_evaluated_nearby():
    whole = problem(OnlyHere())
    _, findings = examined(whole, whole.first_batch(), ORDERS)
    assert [finding.status for finding in findings.values()] == ["unchecked"] * 2
    assert "elsewhere" in findings["second"].message
    lg.check_derivatives(problem(OnlyHere()))


class Ignoring(nn.Module):
    """Its outputs do not depend on its parameters."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


def test_outputs_that_do_not_depend_on_the_parameters():
    p = lg.Problem(Ignoring(), "squared_error", [(torch.ones(4, 3), torch.zeros(4, 2))])
    assert statuses(p) == ["right", "right"]


@pytest.mark.parametrize("layer", [nn.Tanh(), Hidden(), Applied(Once)])
def test_no_graph_outlives_the_comparison(layer):
    sentinels = hung_into(layer)
    p = small(layer, nn.Tanh())
    gc.collect()
    gc.disable()  # no cycle may keep them until the next collection
    try:
        examine(Point(p), ORDERS)
        assert len(sentinels) >= 3
        assert all(reference() is None for reference in sentinels)
    finally:
        gc.enable()
