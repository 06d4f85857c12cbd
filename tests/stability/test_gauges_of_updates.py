"""Realised edge, curvature of the update and critical step, beside closed forms."""

import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.problem.evaluation import Evaluation
from lossgeom.stability import edge_factors, loss_rounding, optimizer_state
from lossgeom.stability.along import losses_at
from tests.problems import CASES, mlp
from tests.stability.quadratics import hessian, quadratic, start

H = hessian()
THETA = start()


@pytest.fixture
def problem():
    return quadratic(H, THETA)


def descended(problem, lr):
    """The update of gradient descent, and its curvature over slope on a quadratic."""
    g = problem.gradient()
    return -lr * g, float(lr * (g @ H @ g) / (g @ g))


@pytest.mark.quick
@pytest.mark.parametrize("lr", [1e-3, 0.3, 2.0])
def test_gradient_descent_on_a_quadratic(problem, lr):
    D, rho = descended(problem, lr)
    assert lg.update_curvature(problem, D).value == pytest.approx(rho, rel=1e-10)
    assert lg.realised_edge(problem, D).value == pytest.approx(rho / 2, rel=1e-8)
    found = lg.critical_step(problem, D)
    assert found.value == pytest.approx(2 / rho, rel=1e-8)
    assert found.low <= 2 / rho <= found.high
    assert found.high - found.low <= found.high / 16
    assert found.converged
    sharpness = lg.critical_sharpness(problem, D, lr)
    assert sharpness.value == pytest.approx(rho / lr, rel=1e-8)


def test_a_step_raises_the_loss_exactly_if_the_realised_edge_is_above_one():
    problem = quadratic(H, THETA)
    g = problem.gradient()
    edge = 2 * float(g @ g / (g @ H @ g))
    for factor in (0.99, 1.01):
        D = -factor * edge * g
        rises = problem.at(problem.theta + D).loss() > problem.loss()
        assert (lg.realised_edge(problem, D).value > 1) == rises == (factor > 1)
        assert (lg.update_curvature(problem, D).value > 2) == rises
        assert (lg.critical_step(problem, D).value < 1) == rises


@pytest.mark.quick
def test_factors_of_the_realised_edge(problem):
    """By their definitions, with momentum whose threshold is 2 (1 + beta) / lr."""
    lr, beta = 0.4, 0.5
    g, buffer = problem.gradient(), 0.3 * problem.gradient() + 0.1
    u = beta * buffer + g
    D, gamma = -lr * u, 1 / (1 + beta)
    zeta = lg.realised_edge(problem, D).value
    found = edge_factors(problem, D, zeta, lg.Hessian(problem), 3.0, 2 / (lr * gamma))
    assert found.realised == pytest.approx(zeta)
    assert found.nominal == pytest.approx(lr * 3.0 * gamma / 2)
    assert found.alignment == pytest.approx(float(u @ H @ u / (3.0 * u @ u)))
    assert found.filtering == pytest.approx(float(gamma * (g @ u) / (u @ u)))


def test_the_sharpest_direction_is_aligned(problem):
    v = torch.linalg.eigh(H)[1][:, -1]
    problem = problem.at(v)
    D = -0.1 * problem.gradient()
    zeta = lg.realised_edge(problem, D).value
    found = edge_factors(problem, D, zeta, lg.Hessian(problem), 3.0, 20.0)
    assert (found.alignment, found.filtering) == pytest.approx((1, 1))


def test_factors_where_a_group_does_not_move():
    model, lr = nn.Linear(2, 1).double(), 0.1
    x, y = torch.randn(5, 2).double(), torch.randn(5, 1).double()
    problem = lg.Problem(model, "squared_error", [(x, y)])
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.0}]
    matrix = optimizer_state(problem, torch.optim.SGD(groups, lr=lr)).matrix(problem)
    D = -lr * problem.gradient() * torch.tensor([1.0, 1.0, 0.0])
    top, zeta = torch.linalg.eigvalsh(matrix.dense())[-1].item(), lg.realised_edge(problem, D).value
    found = edge_factors(problem, D, zeta, matrix, top, 2.0)
    assert found.realised == pytest.approx(zeta)
    assert found.filtering == pytest.approx(1)
    assert 0 < found.alignment <= 1 + 1e-9
    with pytest.raises(lg.UndefinedError, match="moves parameters that the optimiser does not"):
        edge_factors(problem, D - 1e-3 * problem.gradient(), zeta, matrix, top, 2.0)


@pytest.mark.quick
def test_on_a_network_they_are_what_losses_gradients_and_products_say():
    problem = CASES[0].problem()
    g = problem.gradient()
    D = -0.5 * g
    losses = [problem.at(problem.theta + s * D).loss() for s in (0, 1)]
    zeta = 1 + (losses[1] - losses[0]) / (0.5 * float(g @ g))
    assert lg.realised_edge(problem, D).value == pytest.approx(zeta)
    rho = float(0.5 * (g @ (lg.Hessian(problem) @ g)) / (g @ g))
    assert lg.update_curvature(problem, D).value == pytest.approx(rho)
    found = lg.critical_step(problem, D, rtol=1e-4)
    fine = [problem.at(problem.theta + s * D).loss() for s in (found.low, found.high)]
    assert fine[0] < losses[0] < fine[1]
    assert found.high - found.low < 2e-4 * found.high


class Counted:
    """Counts the forward passes of a problem of one batch."""

    def __init__(self, monkeypatch):
        self.passes = 0
        plain = Evaluation.loss

        def loss(evaluation, theta, batch):
            self.passes += 1
            return plain(evaluation, theta, batch)

        monkeypatch.setattr(Evaluation, "loss", loss)


@pytest.mark.parametrize("off", [0.7, 0.97, 1.0, 1.03, 1.4])
def test_a_warm_critical_step_takes_at_most_six_passes(problem, off, monkeypatch):
    D, rho = descended(problem, 0.3)
    rounding = loss_rounding(problem)
    counted, fresh = Counted(monkeypatch), problem.at(problem.theta)
    found = lg.critical_step(fresh, D, start=off * 2 / rho, rounding=rounding)
    assert counted.passes == found.passes <= 6
    assert found.value == pytest.approx(2 / rho)


def test_from_a_start_two_passes_over_the_data_are_enough():
    problem = CASES[0].problem()
    D = -0.5 * problem.gradient()
    start, rounding = lg.critical_step(problem, D).value, loss_rounding(problem)
    passes = []

    class Data(list):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    again = lg.Problem(problem.model, problem.criterion, Data(problem.data.batches), mode="eval")
    again.gradient()
    passes.clear()
    found = lg.critical_step(again.at(again.theta), D, start=start, rounding=rounding)
    assert (len(passes), found.passes, found.converged) == (2, 3, True)


def test_losses_at_several_parameters_are_those_at_each():
    """Over several batches, of a model that a hook writes to, and where some are infinite."""
    model = nn.Linear(2, 1).double()
    model.seen = []
    model.register_forward_hook(lambda module, _, outputs: module.seen.append(outputs.sum()))

    def terms(outputs, batch):
        told = sum(problem.network.module.seen)
        return (outputs - batch[1]).square().sum() + told.square(), len(outputs)

    data = [(torch.randn(n, 2).double(), torch.randn(n, 1).double()) for n in (3, 5)]
    problem = lg.Problem(model, terms, data, mode="eval", check=False)
    thetas = [problem.theta, 2 * problem.theta, problem.theta * math.inf, 0 * problem.theta]
    found = losses_at(problem, thetas)
    assert found == [problem.at(t).loss() if t.isfinite().all() else math.inf for t in thetas]
    assert losses_at(problem, thetas[2:3]) == [math.inf]


def test_passes_of_a_cold_critical_step(problem, monkeypatch):
    D, rho = descended(problem, 1e-3)
    counted = Counted(monkeypatch)
    found = lg.critical_step(problem, D)
    assert found.value == pytest.approx(2 / rho)  # some thousand times the update
    assert found.passes <= 16
    assert counted.passes <= found.passes + 2


def test_an_update_that_goes_up_from_the_start(problem):
    D = 0.1 * problem.gradient()
    found = lg.critical_step(problem, D)
    assert (found.value, found.low, found.converged) == (0, 0, True)
    with pytest.raises(lg.UndefinedError, match="goes up the loss from where it starts"):
        lg.critical_sharpness(problem, D, 0.1)
    for gauge in (lg.realised_edge, lg.update_curvature):
        with pytest.raises(lg.UndefinedError, match="goes up the loss to first order"):
            gauge(problem, D)


def test_a_loss_that_never_rises():
    model = nn.Linear(1, 1, bias=False)
    data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    falling = lg.Problem(model, lambda f, b: (torch.sigmoid(-f / 100).sum(), len(f)), data)
    found = lg.critical_step(falling, torch.ones(1))
    assert found.value == math.inf
    assert found.converged
    assert lg.critical_sharpness(falling, torch.ones(1), 0.1).value == 0


def test_a_loss_that_is_not_finite_has_risen():
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    wall = lg.Problem(model, lambda f, b: ((1 - f).sqrt().sum(), len(f)), data)  # NaN beyond 1
    found = lg.critical_step(wall, torch.tensor([0.15]).double())
    assert found.low <= 1 / 0.15 <= found.high
    assert found.converged


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-6, 1e-9])
def test_rounding_in_float32_is_no_rise(scale):
    """Updates so small that the change of the loss is lost in its rounding."""
    theta = THETA.float() + 100  # so that the loss is large beside its changes
    problem = quadratic(H, theta)
    g = problem.gradient()
    expected = 2 * float(g @ g) / float(g @ H.float() @ g) / scale
    found = lg.critical_step(problem, -scale * g)
    if expected < 2**20:
        assert found.low <= expected <= found.high
        assert found.value == pytest.approx(expected, rel=0.01)
    else:
        assert found.value == math.inf
    if torch.equal(theta - scale * g, theta):
        with pytest.raises(lg.UndefinedError, match="the update is zero"):
            lg.realised_edge(problem, -scale * g)
        return
    zeta = lg.realised_edge(problem, -scale * g)
    assert abs(zeta.value - scale * float(g @ H.float() @ g) / float(2 * g @ g)) <= 4 * zeta.stderr


def test_where_rounding_hides_everything():
    problem = quadratic(H, THETA.float() + 100)
    with pytest.raises(lg.UndefinedError, match="more than its rounding"):
        lg.critical_step(problem, -1e-15 * problem.gradient())


@pytest.mark.parametrize("lr", [1e-5, 1e-3, 0.1])
def test_under_autocast_the_critical_step_is_that_of_the_loss_itself(lr):
    torch.manual_seed(0)
    model, x = mlp(8, 32, 32, 4), torch.randn(64, 8)
    data = [(x, torch.randn(64, 4))]
    exact = lg.Problem(model, "squared_error", data)
    rounded = lg.Problem(model, "squared_error", data, autocast=torch.bfloat16)
    D = -lr * exact.gradient()
    expected = lg.critical_step(exact, D, rtol=1e-3).value
    found = lg.critical_step(rounded, D)
    assert found.low * 0.98 <= expected <= found.high * 1.02
    assert found.value == pytest.approx(expected, rel=0.1)
    zeta, known = (lg.realised_edge(problem, D) for problem in (rounded, exact))
    assert abs(zeta.value - known.value) < 4 * zeta.stderr
    assert loss_rounding(rounded) > 100 * loss_rounding(exact)


def test_slopes_take_the_place_of_losses_that_rounding_hides():
    torch.manual_seed(0)
    model = mlp(8, 32, 4)
    data = [(torch.randn(64, 8), torch.randn(64, 4))]
    problem = lg.Problem(model, "squared_error", data)
    double = lg.Problem(model, "squared_error", data, dtype=torch.float64)
    for lr in (1e-5, 1e-7):
        D = -lr * problem.gradient()
        found = lg.realised_edge(problem, D)
        expected = lg.update_curvature(double, D.double()).value / 2
        assert found.value == pytest.approx(expected, abs=4 * found.stderr)
        assert found.stderr < 1e-5


def test_rounding_is_seen_in_a_problem_of_known_noise():
    """A loss whose last digits are cut off."""
    model = nn.Linear(4, 1, bias=False).double()
    data = [(torch.randn(64, 4).double(), torch.randn(64, 1).double())]

    def cut(outputs, batch):
        exact = (outputs - batch[1]).square()
        return exact.float().sum().double(), len(outputs)

    problem = lg.Problem(model, cut, data, dtype=torch.float32)
    assert 1e-8 < loss_rounding(problem) / problem.loss() < 1e-5
    assert loss_rounding(problem) == loss_rounding(problem)


def test_another_loss_along_the_same_updates(problem):
    """The relative critical step: a basin of another curvature is left sooner."""
    sharper = quadratic(9 * H, THETA)
    D, rho = descended(problem, 0.3)
    assert lg.critical_step(sharper, D).value == pytest.approx(2 / rho)  # the same shape
    moved = sharper.at(THETA / 3)
    expected = 2 * -float(moved.gradient() @ D) / float(D @ (9 * H) @ D)
    assert lg.critical_step(moved, D).value == pytest.approx(expected)
    relative = lg.critical_sharpness(moved, D, 0.3).value
    assert relative == pytest.approx(2 / (expected * 0.3))


def test_errors(problem, unchecked):
    D = -problem.gradient()
    for gauge in (lg.realised_edge, lg.update_curvature, lg.critical_step):
        with pytest.raises(ValueError, match=r"expected an update of shape \(4,\)"):
            gauge(problem, D[:2])
        with pytest.raises(lg.NonFiniteError, match="the update is NaN or infinite"):
            gauge(problem, D * math.nan)
        with pytest.raises(lg.UndefinedError, match="the update is zero"):
            gauge(problem, 0 * D)
        with pytest.raises(TypeError, match="expected a Problem"):
            gauge(nn.Linear(1, 1), D)
    for settings in ({"rtol": 0.0}, {"rtol": 1.0}, {"start": 0.0}, {"max_passes": 0}):
        with pytest.raises(ValueError, match="expected"):
            lg.critical_step(problem, D, **settings)
    with pytest.raises(ValueError, match="expected lr > 0"):
        lg.critical_sharpness(problem, D, 0.0)
    with pytest.raises(lg.UndefinedError, match="no direction is a sharp one"):
        edge_factors(problem, D, 1.0, lg.Hessian(problem), -3.0, 2.0)
    with pytest.raises(ValueError, match="expected threshold > 0"):
        edge_factors(problem, D, 1.0, lg.Hessian(problem), 3.0, -1.0)


def test_a_search_that_is_stopped_early_has_not_converged(problem):
    D, _ = descended(problem, 1e-3)
    assert not lg.critical_step(problem, D, max_passes=2).converged


@pytest.mark.parametrize("decay", [0.2, torch.tensor([0.0, 0.1, 0.2, 0.3]).double()])
def test_weight_decay_is_that_of_the_penalised_quadratic(problem, decay):
    w = torch.as_tensor(decay).double().expand(4)
    penalised = quadratic(H + torch.diag(w), THETA)
    D = -0.3 * penalised.gradient()
    given = {"weight_decay": decay}
    for gauge in (lg.update_curvature, lg.realised_edge, lg.critical_step):
        expected = gauge(penalised, D).value
        assert gauge(problem, D, **given).value == pytest.approx(expected), gauge
        assert gauge(problem, D).value != pytest.approx(expected, rel=1e-3)
    expected = lg.critical_sharpness(penalised, D, 0.3).value
    assert lg.critical_sharpness(problem, D, 0.3, **given).value == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected one weight decay, or one of each of 4"):
        lg.realised_edge(problem, D, weight_decay=torch.ones(3))


def test_what_the_caller_has_switched_changes_nothing():
    torch.manual_seed(0)
    data = [(torch.randn(12, 4), torch.randint(3, (12,)))]
    model = mlp(4, 6, 3)

    def measured():
        problem = lg.Problem(model, "cross_entropy", data)
        D = -0.1 * problem.gradient()
        at = lg.self_stabilisation(problem)
        return [
            lg.realised_edge(problem, D),
            lg.update_curvature(problem, D),
            lg.critical_step(problem, D),
            lg.batch_sharpness(problem, batch_size=3, batches=4),
            lg.worst_case_sharpness_lower(problem, steps=2),
            lg.adaptive_sharpness(problem),
            at.sharpening,
            at.stabilisation,
        ]

    plain = measured()
    for switched in (
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        with switched:
            assert measured() == plain


def test_an_update_below_the_rounding_of_parameters_is_none():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    problem = lg.Problem(model, "squared_error", data)
    with pytest.raises(lg.UndefinedError, match="the update is zero"):
        lg.realised_edge(problem, torch.tensor([-1e-9]))
    rounded = lg.realised_edge(problem, torch.tensor([-1e-7]))  # to 1.2e-7 off
    assert abs(rounded.value - 6e-8) <= 4 * rounded.stderr < 1e-5


def test_a_gradient_that_is_rounding_has_no_slope():
    """At a loss of 0 but for rounding, in float32."""
    torch.manual_seed(8)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    X = torch.randn(40, 4)
    Y = model.double()(X.double()).detach().float()
    model, data = model.float(), [(X[:25], Y[:25]), (X[25:], Y[25:])]
    problem = lg.Problem(model, "squared_error", data)
    for D in (-1.5 * problem.gradient(), 1.5 * problem.gradient()):
        for gauge in (lg.update_curvature, lg.realised_edge):
            with pytest.raises(lg.UndefinedError, match="may be rounding of the gradient"):
                gauge(problem, D)


@pytest.mark.parametrize("size", [1e-6, 1e-5, 1e-3])
def test_the_error_that_rounding_of_a_small_gradient_makes(size):
    torch.manual_seed(8)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    X = torch.randn(40, 4)
    data = [(X, model(X).detach() + size * torch.randn(40, 3))]
    problem = lg.Problem(model, "squared_error", data)
    double = lg.Problem(model, "squared_error", data, dtype=torch.float64)
    D = -0.1 * problem.gradient()
    for gauge in (lg.update_curvature, lg.realised_edge):
        found, known = gauge(problem, D), gauge(double, D.double())
        assert abs(found.value - known.value) < 4 * found.stderr < 1
