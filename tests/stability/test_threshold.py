import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

import lossgeom as lg

SETTINGS = [
    {"lr": 0.5},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.5, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.2, "momentum": 0.3, "weight_decay": 0.5},
    {"lr": 0.2, "weight_decay": 0.5},
]


def final_size(sharpness: float, settings: dict) -> float:
    """Where the live optimiser takes w = 1 on the loss sharpness * w^2 / 2."""
    w = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = SGD([w], **settings)
    for _ in range(3000):
        optimizer.zero_grad()
        (0.5 * sharpness * w.square()).sum().backward()
        optimizer.step()
        if w.abs() > 1e6:
            break
    return w.abs().item()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_divides_what_converges_from_what_diverges(settings):
    threshold = lg.stability_threshold(SGD([torch.zeros(1, requires_grad=True)], **settings))
    assert final_size(0.98 * threshold, settings) < 1e-3
    assert final_size(1.02 * threshold, settings) > 1e3


def test_a_gradient_that_does_not_reach_the_momentum():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.5, dampening=1.0)
    assert lg.stability_threshold(optimizer) == float("inf")


@pytest.mark.quick
def test_reads_the_learning_rate_of_now():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.25
    assert lg.stability_threshold(optimizer) == 8.0


@pytest.mark.quick
def test_groups_that_differ_in_weight_decay():
    """Descent in two directions, of which only one is decayed, at the edge of the objective."""
    w, v = (torch.zeros(1, requires_grad=True) for _ in range(2))
    groups = [{"params": [w], "weight_decay": 0.1}, {"params": [v], "weight_decay": 0.0}]
    optimizer = SGD(groups, lr=0.1, momentum=0.9)
    assert lg.stability_threshold(optimizer, of="objective") == pytest.approx(38.0)
    with pytest.raises(ValueError, match=r"differ in weight_decay.*ObjectiveHessian.*is 38"):
        lg.stability_threshold(optimizer)
    groups[0]["weight_decay"] = 0.0
    assert lg.stability_threshold(SGD(groups, lr=0.1, momentum=0.9)) == pytest.approx(38.0)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_threshold_of_the_objective(settings):
    optimizer = SGD([torch.zeros(1, requires_grad=True)], **settings)
    decay = settings.get("weight_decay", 0.0)
    expected = lg.stability_threshold(optimizer) + decay
    assert lg.stability_threshold(optimizer, of="objective") == pytest.approx(expected)


class SAM(torch.optim.Optimizer):
    """Climbs by rho along the gradient, and descends with the gradient from there."""

    def __init__(self, params, lr, rho):
        super().__init__(params, {"lr": lr, "rho": rho})


def test_other_optimisers_are_told_where_to_go():
    w = torch.zeros(1, requires_grad=True)
    for kind in (Adam, AdamW):
        with pytest.raises(TypeError, match=r"SGD.*got Adam.*PreconditionedHessian.* = 38 while"):
            lg.stability_threshold(kind([w], betas=(0.9, 0.999)))
    with pytest.raises(TypeError, match=r"PreconditionedHessian.*up to 2 \(1 \+ momentum\)"):
        lg.stability_threshold(RMSprop([w]))
    with pytest.raises(TypeError, match=r"sqrt\(1 \+ 8 rho / \(lr g\)\) - 1"):
        lg.stability_threshold(SAM([w], lr=0.1, rho=0.05))
    with pytest.raises(TypeError, match=r"alone; got Adagrad$"):
        lg.stability_threshold(torch.optim.Adagrad([w]))


@pytest.mark.parametrize(("lr", "rho", "g"), [(0.1, 0.05, 2.0), (0.5, 1.0, 0.3)])
def test_the_threshold_of_sam_that_is_named(lr, rho, g):
    """A step from w with gradient sharpness * w, whose norm g is held fixed, turns w around."""
    sharpness = g / (2 * rho) * ((1 + 8 * rho / (lr * g)) ** 0.5 - 1)
    w = g / sharpness
    assert w - lr * sharpness * (w + rho) == pytest.approx(-w)
    assert sharpness < 2 / lr


def test_errors(unchecked):
    w, v = (torch.zeros(1, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="expected of to be 'data loss' or 'objective'"):
        lg.stability_threshold(SGD([w], lr=0.1), of="loss")
    with pytest.raises(ValueError, match="expected all parameter groups to agree"):
        lg.stability_threshold(SGD([{"params": [w], "lr": 0.1}, {"params": [v], "lr": 0.2}]))
    with pytest.raises(ValueError, match="maximize=True"):
        lg.stability_threshold(SGD([w], lr=0.1, maximize=True))
    with pytest.raises(ValueError, match="expected a learning rate > 0"):
        lg.stability_threshold(SGD([w], lr=0.0))
