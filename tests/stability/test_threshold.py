import copy
import math

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop

import lossgeom as lg
from lossgeom.curvature.optimizers import known_kind
from lossgeom.stability import Threshold, unwrapped_optimizer

SETTINGS = [
    {"lr": 0.5},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.5, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.2, "momentum": 0.3, "weight_decay": 0.5},
    {"lr": 0.2, "weight_decay": 0.5},
]


def test_a_gradient_that_does_not_reach_the_momentum():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.5, dampening=1.0)
    assert lg.stability_threshold(optimizer) == float("inf")


@pytest.mark.quick
def test_reads_the_learning_rate_of_now():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.25
    assert lg.stability_threshold(optimizer) == 8.0


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_threshold_of_the_objective(settings):
    optimizer = SGD([torch.zeros(1, requires_grad=True)], **settings)
    decay = settings.get("weight_decay", 0.0)
    expected = lg.stability_threshold(optimizer) + decay
    assert lg.stability_threshold(optimizer, of="objective") == pytest.approx(expected)


def leaf(*size: int) -> torch.Tensor:
    return torch.zeros(*size or (1,), requires_grad=True)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("make", "value", "formula", "matrix"),
    [
        (lambda w: SGD(w, lr=0.1, momentum=0.9), 38, "2 (1 + momentum)/lr", "Hessian"),
        (
            lambda w: SGD(w, lr=0.1, momentum=0.5, dampening=0.5),
            60,
            "2 (1 + momentum)/(lr (1 - dampening))",
            "Hessian",
        ),
        (
            lambda w: SGD(w, lr=0.1, momentum=0.5, nesterov=True),
            15,
            "2 (1 + momentum)/(lr (1 + 2 momentum))",
            "Hessian",
        ),
        (lambda w: SGD(w, lr=0.1, weight_decay=0.5), 19.5, "2/lr - weight decay", "Hessian"),
        (lambda w: RMSprop(w), 2, "2", "PreconditionedHessian"),
        (lambda w: RMSprop(w, momentum=0.9), 3.8, "2 (1 + momentum)", "PreconditionedHessian"),
        (lambda w: Adam(w, weight_decay=1), 38, "2 (1 + b1)/(1 - b1)", "PreconditionedHessian"),
        (lambda w: AdamW(w), 38, "2 (1 + b1)/(1 - b1)", "PreconditionedHessian"),
        (lambda w: Adagrad(w), 2, "2", "PreconditionedHessian"),
    ],
)
def test_formulas(make, value, formula, matrix):
    threshold = lg.stability_threshold(make([leaf()]))
    assert (threshold, threshold.formula, threshold.matrix) == (
        pytest.approx(value),
        formula,
        matrix,
    )
    assert threshold.value == threshold
    assert threshold.instead is None


def test_nadam_of_its_last_step():
    """The mixture of gradient and average that torch's formulas have at this step."""
    w = leaf()
    optimizer = NAdam([w], betas=(0.8, 0.9), momentum_decay=0.5)
    product, threshold = 1.0, lg.stability_threshold(optimizer)
    for step in range(1, 5):
        w.grad = torch.ones(1)
        optimizer.step()
        mu, following = (0.8 * (1 - 0.5 * 0.96 ** (0.5 * t)) for t in (step, step + 1))
        product *= mu
        gain = (1 - mu) / (1 - product) + following / (1 - product * following) * 0.2 / 1.8
        if step == 1:  # told beforehand
            assert threshold == pytest.approx(2 / gain)
        assert lg.stability_threshold(optimizer) == pytest.approx(2 / gain)


@pytest.mark.quick
def test_groups_that_differ_in_weight_decay():
    """Descent in two directions, of which only one is decayed, at the edge of the objective."""
    groups = [{"params": [leaf()], "weight_decay": decay} for decay in (0.1, 0.0)]
    optimizer = SGD(groups, lr=0.1, momentum=0.9)
    for of in ("objective", "data loss"):
        threshold = lg.stability_threshold(optimizer, of=of)
        assert (threshold, threshold.matrix) == (pytest.approx(38.0), "ObjectiveHessian")
    optimizer.param_groups[0]["weight_decay"] = 0.0
    assert lg.stability_threshold(optimizer).matrix == "Hessian"


@pytest.mark.quick
def test_groups_that_differ_in_learning_rate_have_it_in_the_matrix():
    groups = [{"params": [leaf()], "lr": lr} for lr in (0.1, 0.2)]
    threshold = lg.stability_threshold(SGD(groups, momentum=0.5))
    assert (threshold, threshold.matrix) == (3.0, "PreconditionedHessian")
    assert threshold.formula == "2 (1 + momentum)"


@pytest.mark.quick
def test_two_optimisers_are_like_two_groups():
    two = lg.stability_threshold(SGD([leaf()], lr=0.1), SGD([leaf()], lr=0.2))
    assert (two, two.matrix) == (2.0, "PreconditionedHessian")
    alike = lg.stability_threshold(SGD([leaf()], lr=0.1), SGD([leaf()], lr=0.1))
    assert (alike, alike.matrix) == (20.0, "Hessian")
    mixed = lg.stability_threshold(torch.optim.Muon([leaf(2, 2)]), AdamW([leaf()]))
    assert mixed.status == "unknown"


@pytest.mark.quick
def test_a_learning_rate_of_zero():
    for make in (SGD, Adam):
        assert lg.stability_threshold(make([leaf()], lr=0.0)) == math.inf
    one_of_two = SGD([{"params": [leaf()], "lr": lr} for lr in (0.0, 0.2)])
    assert lg.stability_threshold(one_of_two) == 2.0
    assert lg.stability_threshold(SGD([leaf()], lr=torch.tensor(0.25))) == 8.0


@pytest.mark.quick
def test_maximising_and_unstable_decay():
    threshold = lg.stability_threshold(SGD([leaf()], lr=0.1, maximize=True))
    assert (threshold, threshold.matrix) == (2.0, "PreconditionedHessian")
    threshold = lg.stability_threshold(AdamW([leaf()], lr=0.1, weight_decay=20.0))
    assert (threshold, threshold.formula) == (0.0, "0, since lr * weight decay >= 2")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("make", "first"),
    [
        (lambda w: Adam(w, betas=(0.5, 0.9)), 20),
        (lambda w: AdamW(w, betas=(0.5, 0.9), amsgrad=True), 20),
        (lambda w: NAdam(w, betas=(0.5, 0.9)), 20),
        (lambda w: RMSprop(w, momentum=0.5), 20),
        (lambda w: RMSprop(w), 10),
    ],
)
def test_the_first_steps_are_nominal(make, first):
    w = leaf()
    optimizer = make([w])
    for step in range(first + 2):
        assert lg.stability_threshold(optimizer).status == ("nominal" if step < first else "ok")
        w.grad = torch.ones(1)
        optimizer.step()
    assert lg.stability_threshold(Adagrad([w])).status == "nominal"
    assert lg.stability_threshold(SGD([w], momentum=0.9)).status == "ok"


class Halved(Adam):
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(0.5)
        return super().step(closure)


class Named(SGD):
    """A step of torch's own, whichever of the classes is made first."""

    beside = 1


class SAM(torch.optim.Optimizer):
    """Climbs by rho along the gradient, and descends with the gradient from there."""

    def __init__(self, params, lr, rho):
        super().__init__(params, {"lr": lr, "rho": rho})


@pytest.mark.quick
@pytest.mark.parametrize(
    "make",
    [
        torch.optim.LBFGS,
        torch.optim.Rprop,
        torch.optim.SparseAdam,
        torch.optim.Adafactor,
        torch.optim.ASGD,
        torch.optim.RAdam,
        torch.optim.Adamax,
        torch.optim.Adadelta,
        Halved,
    ],
)
def test_others_are_unknown(make):
    optimizer = make([leaf()])
    threshold = lg.stability_threshold(optimizer)
    assert (threshold.status, threshold.value) == ("unknown", None)
    assert math.isnan(threshold)
    assert threshold.instead == "realised_edge, update_curvature"
    name = type(optimizer).__name__
    assert str(threshold) == f"unknown (none is known of {name}); see {threshold.instead}"


@pytest.mark.quick
def test_sam_is_told_what_is_known():
    threshold = lg.stability_threshold(SAM([leaf()], lr=0.1, rho=0.05))
    assert threshold.value is None
    assert "g / (2 rho) (sqrt(1 + 8 rho / (lr g)) - 1)" in threshold.formula


@pytest.mark.quick
def test_groups_that_no_matrix_has_in_common():
    groups = [{"params": [leaf()], "momentum": momentum} for momentum in (0.5, 0.9)]
    threshold = lg.stability_threshold(SGD(groups, lr=0.1))
    assert threshold.formula == "none, since parameter groups differ in momentum or betas"
    groups = [{"params": [leaf()], "maximize": maximize} for maximize in (False, True)]
    threshold = lg.stability_threshold(SGD(groups, lr=0.1))
    assert threshold.formula == "none, since parameter groups differ in maximize"
    assert threshold.status == "unknown"


@pytest.mark.quick
def test_subclasses_that_step_as_torch_does_are_known():
    assert known_kind(Named([leaf()])) is SGD
    fresh = type("Fresh", (SGD,), {})  # the first to be made, which torch then puts hooks around
    fresh.step = torch.optim.Optimizer.profile_hook_step(SGD.step)
    assert known_kind(fresh([leaf()])) is SGD
    assert known_kind(AdamW([leaf()])) is AdamW
    assert known_kind(Halved([leaf()])) is None


class AcceleratedOptimizer(torch.optim.Optimizer):
    """As Accelerate has it: a step of its own, and the optimiser inside."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self, closure=None):
        self.optimizer.step(closure)


class LightningOptimizer:
    """As Lightning has it: of a class made when it is made, with two parents."""

    def __init__(self, optimizer):
        self.__class__ = type(
            "Lightning" + type(optimizer).__name__, (type(self), type(optimizer)), {}
        )
        self._optimizer = optimizer

    @property
    def optimizer(self):
        return self._optimizer

    def step(self, closure=None):
        self._optimizer.step(closure)


@pytest.mark.quick
def test_wrapped_optimisers(unchecked):
    inside = SGD([leaf()], lr=0.5)
    for wrapped in (AcceleratedOptimizer(inside), LightningOptimizer(inside)):
        assert unwrapped_optimizer(wrapped) is inside
        assert lg.stability_threshold(wrapped) == 4.0
        assert lg.stability_threshold(AcceleratedOptimizer(wrapped)) == 4.0


@pytest.mark.quick
def test_a_threshold_can_be_copied_and_compared():
    threshold = Threshold(4.0, "2/lr", "Hessian", nominal=True)
    again = copy.deepcopy(threshold)
    assert (again, vars(again)) == (threshold, vars(threshold))
    assert str(threshold) == "4.0"
    assert f"{threshold:.2f}" == "4.00"
    unknown = Threshold(None)
    assert not unknown < 1
    assert not unknown >= 1


@pytest.mark.parametrize(("lr", "rho", "g"), [(0.1, 0.05, 2.0), (0.5, 1.0, 0.3)])
def test_the_threshold_of_sam_that_is_named(lr, rho, g):
    """A step from w with gradient sharpness * w, whose norm g is held fixed, turns w around."""
    sharpness = g / (2 * rho) * ((1 + 8 * rho / (lr * g)) ** 0.5 - 1)
    w = g / sharpness
    assert w - lr * sharpness * (w + rho) == pytest.approx(-w)
    assert sharpness < 2 / lr


def test_errors(unchecked):
    with pytest.raises(ValueError, match="expected of to be 'data loss' or 'objective'"):
        lg.stability_threshold(SGD([leaf()], lr=0.1), of="loss")
    optimizer = SGD([leaf()], lr=0.1)
    optimizer.param_groups[0]["lr"] = -0.1
    with pytest.raises(ValueError, match=r"expected lr >= 0, got -0\.1"):
        lg.stability_threshold(optimizer)
    with pytest.raises(TypeError, match="expected a torch optimiser, got str"):
        lg.stability_threshold("sgd")
    with pytest.raises(TypeError, match="expected at least one optimiser, got none"):
        lg.stability_threshold()
