"""What single metrics of a step measure; tests/contracts has what all of them must do."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop, Rprop

import lossgeom as lg
from lossgeom.metrics.step import Step
from lossgeom.stability import OptimizerState, Threshold, UndefinedError, optimizer_state
from tests.problems import CASES, mlp
from tests.stability.quadratics import hessian, quadratic, start

LR = 0.5


@pytest.fixture
def step():
    """Of gradient descent on a quadratic with largest eigenvalue 3."""
    problem = quadratic(hessian(), start())
    state = optimizer_state(problem, SGD(problem.model.parameters(), lr=LR))
    gradient = problem.gradient()
    return Step(problem, -LR * gradient, state, gradient)


def with_state(step, **changes):
    state = {"kinds": ("SGD",), "groups": (), "lr": LR, "threshold": Threshold(2 / LR), **changes}
    return Step(step.before, step.update, OptimizerState(**state), step.gradient)


@pytest.mark.quick
def test_values_on_a_quadratic(step):
    metrics = lg.metrics
    rho = lg.update_curvature(step.before, step.update).value
    expected = {
        metrics.EdgeRatio(): 3 * LR / 2,
        metrics.EffectiveSharpness(): 3,
        metrics.UpdateCurvature(): rho,
        metrics.RealisedEdge(): rho / 2,
        metrics.RealisedEdge("nominal"): 3 * LR / 2,
        metrics.RealisedEdge("alignment"): rho / (3 * LR),
        metrics.RealisedEdge("filtering"): 1,
        metrics.CriticalStep(): 2 / rho,
        metrics.CriticalSharpness(): rho / LR,
    }
    for metric, value in expected.items():
        assert metric.of_step(step).value == pytest.approx(value, rel=1e-5), metric
    assert len({metric.name for metric in expected}) == len(expected)


class Products:
    """Counts products with the Hessian."""

    def __init__(self, monkeypatch):
        self.columns = 0
        plain = lg.Hessian.matmat

        def matmat(hessian, V):
            self.columns += V.shape[1]
            return plain(hessian, V)

        monkeypatch.setattr(lg.Hessian, "matmat", matmat)


def test_an_eigenpair_is_computed_once_a_step(step, monkeypatch):
    counted = Products(monkeypatch)
    first = lg.metrics.EdgeRatio().of_step(step)
    assert counted.columns == first.matvecs
    lg.metrics.EffectiveSharpness().of_step(step)
    lg.metrics.RealisedEdge("nominal").of_step(step)
    assert counted.columns == first.matvecs
    lg.metrics.EffectiveSharpness(tol=1e-2).of_step(step)
    assert counted.columns > first.matvecs


def test_an_eigenvector_is_where_the_next_step_starts():
    case, memory = CASES[0], {}
    problem = case.problem()
    state = optimizer_state(problem, SGD(case.model.parameters(), lr=LR))
    update = -LR * problem.gradient()
    lg.metrics.EdgeRatio(tol=1e-6).of_step(Step(problem, update, state, memory=memory))
    (vectors,) = memory.values()
    exact = torch.linalg.eigh(lg.Hessian(problem).dense())[1][:, -1]
    assert abs(float(exact @ vectors[:, 0])) == pytest.approx(1, abs=1e-6)


@pytest.mark.quick
def test_the_critical_step_is_computed_once_and_remembered(step):
    found = lg.metrics.CriticalStep().of_step(step)
    assert step.memory["critical step"] == found.value
    sharpness = lg.metrics.CriticalSharpness().of_step(step)
    assert sharpness.value == 2 / (found.value * LR)


def test_what_is_maximised_is_not_lowered():
    problem = quadratic(hessian(), start())
    state = optimizer_state(problem, SGD(problem.model.parameters(), lr=LR, maximize=True))
    step = Step(problem, LR * problem.gradient(), state)
    for metric in (
        lg.metrics.UpdateCurvature(),
        lg.metrics.RealisedEdge(),
        lg.metrics.CriticalStep(),
        lg.metrics.CriticalSharpness(),
    ):
        with pytest.raises(UndefinedError, match="SGD maximises the loss here"):
            metric.of_step(step)
    assert lg.metrics.EdgeRatio().of_step(step).value < 0


def test_another_loss(step):
    other = quadratic(9 * hessian(), start() / 3)
    for metric in (lg.metrics.CriticalStep, lg.metrics.CriticalSharpness):
        relative = metric(other=other)
        assert relative.name.startswith("relative_")
        here = other.at(step.before.theta)
        expected = lg.critical_step(here, step.update).value
        found = lg.metrics.CriticalStep(other=other).of_step(step).value
        assert found == pytest.approx(expected)


def test_rounding_is_measured_again_where_the_loss_has_changed(step):
    memory = step.memory
    lg.metrics.RealisedEdge().of_step(step)
    first = memory["rounding of the loss"]
    near = Step(step.before.at(1.1 * step.before.theta), step.update, step.state, memory=memory)
    lg.metrics.RealisedEdge().of_step(near)
    assert memory["rounding of the loss"] == first
    far = Step(step.before.at(2 * step.before.theta), step.update, step.state, memory=memory)
    lg.metrics.RealisedEdge().of_step(far)
    assert memory["rounding of the loss"] == (far.before.loss(), pytest.approx(4 * first[1], rel=1))


def test_what_is_not_defined_says_why(step):
    unknown = with_state(step, kinds=("Lion",), threshold=Threshold(None, "it signs its steps"))
    never = with_state(step, threshold=Threshold(-0.5))
    many = with_state(step, lr=None)
    still = with_state(step, lr=0.0, threshold=Threshold(float("inf")))
    for metric in (lg.metrics.EdgeRatio(), lg.metrics.RealisedEdge("nominal")):
        with pytest.raises(
            lg.UndefinedError, match="no threshold to compare with: it signs its steps; real"
        ):
            metric.of_step(unknown)
        with pytest.raises(lg.UndefinedError, match=r"the threshold of SGD is -0\.5"):
            metric.of_step(never)
    for other, why in ((many, "differs between parameter groups"), (still, "is 0")):
        with pytest.raises(lg.UndefinedError, match=f"the learning rate of SGD {why}"):
            lg.metrics.CriticalSharpness().of_step(other)
    assert lg.metrics.EdgeRatio().of_step(still).value == 0


def test_settings(unchecked):
    with pytest.raises(ValueError, match="expected factor to be one of"):
        lg.metrics.RealisedEdge("half")
    with pytest.raises(ValueError, match="expected of to be one of gradient or update"):
        lg.metrics.Alignment("hand")
    for metric in (lg.metrics.CriticalStep, lg.metrics.CriticalSharpness):
        with pytest.raises(TypeError, match="expected other to be a Problem, got int"):
            metric(other=3)


@pytest.mark.quick
def test_directions_and_norms_on_a_quadratic(step):
    H, g, D = hessian(), step.before.gradient(), step.update
    V = torch.linalg.eigh(H)[1].flip(1)
    shares = (V.T @ g).square() / g.square().sum()
    rayleigh = float(g @ H @ g / (g @ g))
    expected = {
        lg.metrics.DirectionalSharpness(): rayleigh,
        lg.metrics.DirectionalSharpness("update"): rayleigh,
        lg.metrics.UpdateNorm(): float(D.norm()),
        lg.metrics.Alignment(): float(shares[0]),
        lg.metrics.Alignment(k=2): float(shares[:2].sum()),
        lg.metrics.Alignment("update"): float(shares[0]),
        lg.metrics.Alignment("update", 2): float(shares[:2].sum()),
    }
    for metric, value in expected.items():
        assert metric.of_step(step).value == pytest.approx(value, rel=1e-2), metric
    assert len({metric.name for metric in expected}) == len(expected)
    assert lg.metrics.GradientNorm()(step.before).value == pytest.approx(float(g.norm()))
    nowhere = Step(step.before, 0 * D, step.state)
    assert lg.metrics.UpdateNorm().of_step(nowhere).value == 0


def trained(steps, **settings):
    """A step of torch's own SGD on one of two batches, after some others."""
    torch.manual_seed(0)
    model = mlp(4, 5, 3).double()
    data = [(torch.randn(6, 4).double(), torch.randint(3, (6,))) for _ in range(2)]
    optimizer = SGD(model.parameters(), lr=LR, **settings)
    problem = lg.Problem(model, "cross_entropy", data)
    for i in range(steps):
        before = problem.refreshed()
        optimizer.zero_grad()
        x, y = data[i % 2]
        torch.nn.functional.cross_entropy(model(x), y).backward()
        gradient = torch.cat([p.grad.reshape(-1).clone() for p in model.parameters()])
        buffers = [optimizer.state[p].get("momentum_buffer") for p in model.parameters()]
        held = [torch.zeros_like(p) if b is None else b.clone() for p, b in
                zip(model.parameters(), buffers, strict=True)]  # fmt: skip
        optimizer.step()
    update = problem.refreshed().theta - before.theta
    step = Step(before, update, optimizer_state(problem, optimizer), gradient)
    return step, torch.cat([b.detach().reshape(-1) for b in held])


def test_momentum_of_the_live_optimiser():
    step, buffer = trained(5, momentum=0.9)
    expected = lg.batch_sharpness(step.before, pushed=0.9 * buffer)
    found = lg.metrics.MomentumBatchSharpness().of_step(step)
    assert found.value == pytest.approx(expected.value, rel=1e-8)
    plain, _ = trained(5)
    found = lg.metrics.MomentumBatchSharpness().of_step(plain)
    assert found.value == pytest.approx(lg.metrics.BatchSharpness()(plain.before).value, rel=1e-6)


def test_momentum_that_is_not_known():
    for settings in ({"nesterov": True}, {"weight_decay": 0.1}, {"dampening": 0.1}):
        step, _ = trained(2, momentum=0.9, **settings)
        with pytest.raises(lg.UndefinedError, match=r"is known for torch\.optim\.SGD"):
            lg.metrics.MomentumBatchSharpness().of_step(step)
    step, _ = trained(2, momentum=0.9)
    closure = Step(step.before, step.update, step.state)
    with pytest.raises(lg.UndefinedError, match="computes it itself, in a closure"):
        lg.metrics.MomentumBatchSharpness().of_step(closure)
    lost = Step(step.before, 1e-16 * step.update, step.state, step.gradient)
    with pytest.raises(lg.UndefinedError, match="may be the rounding of the"):
        lg.metrics.MomentumBatchSharpness().of_step(lost)


def test_coefficients_of_self_stabilisation():
    step, _ = trained(3)
    at = lg.self_stabilisation(step.before)
    found = lg.metrics.ProgressiveSharpening().of_step(step).value
    assert found == pytest.approx(at.sharpening, rel=1e-6)
    found = lg.metrics.SelfStabilisation().of_step(step).value
    assert found == pytest.approx(at.stabilisation, rel=1e-6)
    noise = lg.noise_along(step.before, at.vector, batch_size=2)
    found = lg.metrics.PlateauGap("noise", batch_size=2).of_step(step)
    assert (found.value, found.stderr) == pytest.approx((noise.value, noise.stderr))
    gap = lg.metrics.PlateauGap(batch_size=2)
    if at.sharpening > 0:
        expected = lg.plateau_gap(LR, at.sharpening, at.stabilisation, noise.value)
        assert gap.of_step(step).value == pytest.approx(expected, rel=1e-6)
    else:
        with pytest.raises(lg.UndefinedError, match="nothing drives the sharpness"):
            gap.of_step(step)


def test_the_gap_of_the_plateau_is_that_of_plain_sgd():
    """2 / lr is the edge of no other, so the distance from it is not what noise makes."""
    for settings in ({"momentum": 0.9}, {"weight_decay": 0.1}):
        step, _ = trained(3, **settings)
        with pytest.raises(lg.UndefinedError, match="known for SGD with one learning rate and"):
            lg.metrics.PlateauGap(batch_size=2).of_step(step)
        assert lg.metrics.PlateauGap("noise", batch_size=2).of_step(step).value > 0


def test_noise_needs_no_third_derivative():
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    data = [(torch.randn(12, 3), torch.randint(2, (12,)))]
    problem = lg.Problem(model, "cross_entropy", data)
    state = optimizer_state(problem, SGD(model.parameters(), lr=LR))
    step = Step(problem, -LR * problem.gradient(), state)
    with pytest.raises(lg.DerivativeError, match="the third derivative in LayerNorm"):
        lg.metrics.PlateauGap(batch_size=2).of_step(step)
    top = lg.top_eigenpairs(lg.Hessian(problem)).vectors[:, 0]
    expected = lg.noise_along(problem, top, batch_size=2)
    found = lg.metrics.PlateauGap("noise", batch_size=2).of_step(step)
    assert found.value == pytest.approx(expected.value, rel=1e-4)


def test_an_update_that_is_not_finite(step):
    broken = Step(step.before, step.update / 0, step.state)
    with pytest.raises(lg.NonFiniteError, match="the update, or the parameters before it"):
        lg.metrics.UpdateNorm().of_step(broken)


def stepped(optimizer_of, steps):
    """The last of some steps of a live optimiser on a quadratic."""
    problem = quadratic(hessian(), start())
    model = problem.model
    optimizer = optimizer_of(model.parameters())
    for _ in range(steps):
        before = problem.refreshed()
        gradient = before.gradient()
        model.theta.grad = gradient.clone()
        optimizer.step()
    update = problem.refreshed().theta - before.theta
    return Step(before, update, optimizer_state(before, optimizer), gradient), optimizer


LIVE = {
    "heavy ball": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "decay": lambda p: SGD(p, lr=0.1, momentum=0.5, weight_decay=0.3),
    "Nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda p: RMSprop(p, lr=0.01, weight_decay=0.1),
    "Adam": lambda p: Adam(p, lr=0.01, betas=(0.5, 0.9)),
    "AdamW": lambda p: AdamW(p, lr=0.01, betas=(0.5, 0.9), weight_decay=0.3),
}


@pytest.mark.parametrize("name", LIVE)
def test_factors_multiply_to_the_realised_edge_of_live_optimisers(name):
    step, _ = stepped(LIVE[name], steps=7)
    factors = ("nominal", "alignment", "filtering")
    chi, varsigma, tau = (lg.metrics.RealisedEdge(f).of_step(step).value for f in factors)
    zeta = lg.metrics.RealisedEdge().of_step(step).value
    assert chi * varsigma / tau == pytest.approx(zeta)
    assert chi == pytest.approx(lg.metrics.EdgeRatio().of_step(step).value)
    assert varsigma <= 1.001
    rho = lg.metrics.UpdateCurvature().of_step(step).value
    assert zeta == pytest.approx(rho / 2)
    assert lg.metrics.CriticalStep().of_step(step).value == pytest.approx(2 / rho)


def test_factors_with_a_preconditioner_by_their_definitions():
    step, optimizer = stepped(LIVE["Adam"], steps=7)
    D, g = step.update, step.gradient
    P = lg.preconditioner(step.after, optimizer)
    length, threshold = float(P @ D.square()), 2 * 1.5 / 0.5
    largest = torch.linalg.eigvalsh(hessian() / (P[:, None] * P).sqrt())[-1]
    expected = {
        "nominal": float(largest) / threshold,
        "alignment": float(D @ hessian() @ D) / (float(largest) * length),
        "filtering": 2 / threshold * -float(g @ D) / length,
    }
    for factor, value in expected.items():
        found = lg.metrics.RealisedEdge(factor).of_step(step).value
        assert found == pytest.approx(value, rel=1e-5), factor


def test_weight_decay_of_the_optimiser_is_in_the_loss():
    """Where training has come to rest, data loss and penalty pull in opposite directions."""
    step, _ = stepped(lambda p: SGD(p, lr=0.2, weight_decay=0.5), steps=20)
    penalised = quadratic(hessian() + 0.5 * torch.eye(4), start()).at(step.before.theta)
    expected = lg.realised_edge(penalised, step.update).value
    assert lg.metrics.RealisedEdge().of_step(step).value == pytest.approx(expected)


def test_an_optimiser_without_a_threshold_has_gauges_all_the_same():
    step, _ = stepped(lambda p: Rprop(p, lr=1e-3), steps=3)
    for metric in (lg.metrics.EdgeRatio(), lg.metrics.EffectiveSharpness()):
        with pytest.raises(
            lg.UndefinedError, match="no threshold to compare with: none is known of Rprop"
        ):
            metric.of_step(step)
    rho = lg.metrics.UpdateCurvature().of_step(step).value
    assert lg.metrics.RealisedEdge().of_step(step).value == pytest.approx(rho / 2)
    assert lg.metrics.CriticalStep().of_step(step).value == pytest.approx(2 / rho)


def test_a_step_that_left_no_preconditioner():
    """As one that a gradient scaler skips."""
    problem = quadratic(hessian(), start())
    state = optimizer_state(problem, Adam(problem.model.parameters()))
    step = Step(problem, -problem.gradient(), state)
    with pytest.raises(lg.UndefinedError, match="no squared gradients"):
        lg.metrics.EdgeRatio().of_step(step)
