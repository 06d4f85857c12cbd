"""What single ways of training do, in closed form and beside torch."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from lossgeom import Problem
from lossgeom.lab.models import mlp
from lossgeom.lab.studies._training import train
from lossgeom.lab.training import (
    ASCENTS,
    OPTIMIZERS,
    SCHEDULES,
    STOP_RULES,
    OptimizerSettings,
    asam,
    gradient_flow,
    optimize,
    ramp,
    sam,
)
from lossgeom.lab.training.schedules import cosine, step_decay, warm_up
from lossgeom.quadratic.flow import FlowError
from lossgeom.recording.record import Record

pytestmark = pytest.mark.quick
CURVATURES = torch.tensor([4.0, 1.0]).double()


def quadratic(start):
    """A model without inputs to speak of: half the sum of curvature times square."""
    model = nn.Linear(2, 2, bias=False).double()
    model.weight.data = torch.diag(torch.tensor(start).double())
    batch = torch.diag(CURVATURES.sqrt()), torch.zeros(2, 2).double()
    criterion = nn.MSELoss(reduction="sum")
    return model, lambda outputs, raw: (criterion(outputs, raw[1]) / 2, 1.0), [batch]


def diagonal_after(start, steps=1, **options):
    model, loss, batches = quadratic(start)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in optimize(model, loss, batches, optimizers=[optimizer], steps=steps, **options):
        pass
    return model.weight.diagonal().detach()


def test_sam_takes_the_gradient_uphill():
    """On a quadratic: theta - lr H (theta + rho H theta / |H theta|)."""
    theta = torch.tensor([0.5, -2.0]).double()
    gradient = CURVATURES * theta
    expected = theta - 0.1 * CURVATURES * (theta + 0.3 * gradient / gradient.norm())
    torch.testing.assert_close(diagonal_after([0.5, -2.0], ascent=sam(0.3)), expected)


def test_asam_goes_uphill_on_an_ellipsoid():
    """Entries of the weight that are 0 have no gradient here, and so do not move."""
    theta = torch.tensor([0.5, -2.0]).double()
    scaled = (theta.abs() + 0.01) * CURVATURES * theta
    up = 0.3 * (theta.abs() + 0.01) * scaled / scaled.norm()
    expected = theta - 0.1 * CURVATURES * (theta + up)
    torch.testing.assert_close(diagonal_after([0.5, -2.0], ascent=asam(0.3)), expected)


@pytest.mark.parametrize(("name", "invariant"), [("sam", False), ("asam", True)])
def test_asam_sees_no_scales_of_layers(name, invariant):
    """w1 -> 3 w1, w2 -> w2 / 3 is the same function, and its worst neighbours are the same."""
    ascent = asam(0.5, eta=0.0) if name == "asam" else sam(0.5)
    numbers = torch.Generator().manual_seed(0)
    x, first, second = (torch.randn(3, 3, generator=numbers).double() for _ in range(3))

    def loss(parameters):
        return ((x @ parameters[0]).relu() @ parameters[1]).square().sum()

    def worst(scale):
        parameters = [(scale * first).requires_grad_(), (second / scale).requires_grad_()]
        up = ascent(parameters, torch.autograd.grad(loss(parameters), parameters))
        return loss([p + e for p, e in zip(parameters, up, strict=True)]).item()

    assert (worst(3.0) == pytest.approx(worst(1.0))) == invariant


@pytest.mark.parametrize("name", ASCENTS)
def test_ascents_at_a_minimum_and_errors(name):
    [up] = ASCENTS[name]()([torch.ones(2)], [torch.zeros(2)])
    assert up.tolist() == [0, 0]
    with pytest.raises(ValueError, match="expected a radius rho > 0, got 0"):
        ASCENTS[name](0)


def test_a_step_without_a_gradient_uphill_is_not_taken():
    """The loss is that of theta = 1 and is infinite a little further up."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    batch = torch.ones(1, 1), torch.zeros(1, 1)

    def loss(outputs, raw):
        return torch.where(outputs < 1.1, outputs, outputs * math.inf).sum(), 1.0

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    training = optimize(model, loss, [batch], optimizers=[optimizer], ascent=sam(0.5), steps=3)
    assert list(training) == [0]
    assert model.weight.item() == 1


def test_a_long_gradient_is_clipped():
    """To length 1, of (4, 4): a step of 0.1 / sqrt(2) each."""
    expected = torch.tensor([1.0, 4.0]).double() - 0.1 / math.sqrt(2)
    found = diagonal_after([1.0, 4.0], clip=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(diagonal_after([1.0, 4.0], clip=9.0), diagonal_after([1.0, 4.0]))


def test_schedules_are_those_of_torch():
    def of_torch(make):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
        scheduler = make(optimizer)
        rates = []
        for _ in range(21):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return rates

    for ours, theirs in (
        (step_decay(5, 0.3), lambda o: lr_scheduler.StepLR(o, 5, 0.3)),
        (cosine(20, 0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1)),
        (warm_up(8), lambda o: lr_scheduler.LinearLR(o, 1 / 8, total_iters=7)),
    ):
        assert [ours(step) for step in range(21)] == pytest.approx(of_torch(theirs))
    assert set(SCHEDULES) == {"constant", "step_decay", "cosine", "warm_up", "ramp"}
    for name in SCHEDULES:
        assert SCHEDULES[name].__doc__.startswith("A factor")


def test_optimize_follows_a_schedule():
    scheduled = diagonal_after([1.0, 1.0], steps=6, schedule=step_decay(3, 0.5))
    expected = (1 - 0.1 * CURVATURES) ** 3 * (1 - 0.05 * CURVATURES) ** 3
    torch.testing.assert_close(scheduled, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_named_optimizers_have_their_settings(name):
    model = mlp(4, 3, [5], seed=0)
    model[0].bias.requires_grad_(False)
    settings = OptimizerSettings(name, 0.02, momentum=0.8, second_momentum=0.95, weight_decay=0.1)
    made = settings.made_for(model)
    held = [p for optimizer in made for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    for optimizer in made:
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)
        if "betas" in group:
            assert group["betas"] == (0.8, 0.95)
        else:
            assert group["momentum"] == (0.0 if name == "gradient_descent" else 0.8)
        assert group.get("nesterov", False) == (
            name == "nesterov" or type(optimizer) is torch.optim.Muon
        )
    assert len(made) == (2 if name == "muon" else 1)


def test_muon_alone_where_all_are_matrices():
    assert len(OptimizerSettings("muon", 0.1).made_for(nn.Linear(2, 2, bias=False))) == 1
    (adamw,) = OptimizerSettings("muon", 0.1).made_for(nn.Conv1d(2, 2, 3))
    assert type(adamw) is torch.optim.AdamW


def test_optimizer_errors():
    with pytest.raises(ValueError, match=r"expected an optimizer, adam, adamw, .*; got 'sgd'"):
        OptimizerSettings("sgd", 0.1)
    for bad in ({"lr": 0.0}, {"momentum": 1.0}, {"second_momentum": -1.0}, {"weight_decay": -1.0}):
        with pytest.raises(ValueError, match=f"expected {next(iter(bad))}"):
            OptimizerSettings(**{"name": "adam", "lr": 0.1, **bad})


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_gradient_flow_of_a_quadratic_is_an_exponential(method):
    model, loss, batches = quadratic([2.0, -3.0])
    precise = {"rtol": 1e-9, "atol": 1e-11, "method": method}
    found = []
    for step in gradient_flow(model, loss, batches, lr=0.25, steps=3, **precise):
        expected = torch.tensor([2.0, -3.0]).double() * (-0.25 * step * CURVATURES).exp()
        torch.testing.assert_close(model.weight.diagonal().detach(), expected, rtol=1e-7, atol=0)
        found.append(step)
    assert found == [0, 1, 2, 3]


def test_gradient_flow_is_small_steps_of_gradient_descent():
    model, loss, batches = quadratic([2.0, -3.0])
    for _ in gradient_flow(model, loss, batches, lr=0.1, steps=2):
        pass
    small = diagonal_after([2.0, -3.0], steps=200, schedule=lambda step: 1e-2)
    torch.testing.assert_close(model.weight.diagonal().detach(), small, rtol=4e-3, atol=0)


def test_gradient_flow_that_fails():
    """The slope of -x^4 has no bound: x is infinite at a finite time."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(2.0)
    data = [(torch.ones(1, 1).double(), torch.zeros(1, 1))]
    loss = lambda outputs, raw: (-(outputs**4).sum(), 1.0)  # noqa: E731
    with pytest.raises(FlowError, match="the integrator stopped"):
        list(gradient_flow(model, loss, data, lr=1.0, steps=1, rtol=0.01, atol=0.01))


# When training ends


def test_stop_rules_say_when():
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    problem = Problem(model, "cross_entropy", [(torch.eye(2), torch.tensor([0, 1]))])
    loss, accuracy = STOP_RULES["loss"](problem, 0.5), STOP_RULES["accuracy"](problem, 0.9, every=5)
    worse = STOP_RULES["divergence"](problem, 1.0)
    assert [rule(10) for rule in (loss, accuracy, worse)] == [False, False, False]
    model.weight.data = 2 * torch.eye(2)
    assert [rule(10) for rule in (loss, accuracy, worse)] == [True, True, False]
    assert not accuracy(11)
    model.weight.data = -2 * torch.eye(2)
    assert worse(10)
    model.weight.data.fill_(math.nan)
    assert worse(10)


def test_a_run_ends_where_a_rule_says_so(tmp_path):
    def ended(folder, **rules):
        model, loss, batches = quadratic([1.0, 1.0])
        optimizer = torch.optim.SGD(model.parameters(), 0.51)  # above 2 / 4
        record = Record.create(tmp_path / folder)
        problem = Problem(model, loss, batches)
        made = {name: STOP_RULES[rule](problem, value) for name, (rule, value) in rules.items()}
        training = lambda first: optimize(  # noqa: E731
            model, loss, batches, optimizers=[optimizer], steps=60, first=first
        )
        how = train(model, record, training, steps=60, every=10, optimizers=[optimizer], **made)
        return how, record.manifest.get("diverged_at")

    assert ended("free") == ("finished", None)
    assert ended("low", reached=("loss", 2.45)) == ("finished", None)
    how, at = ended("high", diverged=("divergence", 3.0))
    assert how == "diverged"
    assert 2 * 1.04 ** (2 * (at - 1)) <= 3 < 2 * 1.04 ** (2 * at)


def test_where_nothing_is_a_number_only_divergence_stops():
    model = nn.Linear(2, 2, bias=False)
    nn.init.constant_(model.weight, math.nan)
    problem = Problem(model, "cross_entropy", [(torch.eye(2), torch.tensor([0, 1]))])
    rules = {name: make(problem, 0.5) for name, make in STOP_RULES.items()}
    found = {name: rule(0) for name, rule in rules.items()}
    assert found == {"loss": False, "accuracy": False, "divergence": True}


@pytest.mark.parametrize("make", [step_decay, cosine, lambda steps: ramp(0.5, steps)])
def test_schedules_need_a_step(make):
    with pytest.raises(ValueError, match="of at least 1, got 0"):
        make(0)
