"""Lower estimates are below certified bounds, however small the ball and large the numbers."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import lossgeom as lg

SIZES = (1e-12, 1e-10, 1e-8, 1e-5, 1.0)
SEARCH = {"steps": 2, "restarts": 1}
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "linear": nn.Identity}


def problem(kind: str, scale: float) -> lg.Problem:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), ACTIVATIONS[kind](), nn.Linear(4, 2))
    data = [(scale * torch.randn(3, 3), torch.tensor([0, 1, 0]))]
    return lg.Problem(model, "cross_entropy", data, check=False)


every = pytest.mark.parametrize(
    ("kind", "scale"),
    [("tanh", 1e-3), ("tanh", 1e3), ("relu", 1.0), ("relu", 1e3), ("linear", 1e3)],
)


@every
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_changes_of_outputs(kind, scale, norm, unchecked):
    found = lg.robustness(problem(kind, scale), SIZES, norm=norm, **SEARCH)
    change = found.logit_change
    assert (change.lower <= change.upper).all()
    assert (change.lower[-1] > 0).all() or kind != "linear"
    assert (found.certified_accuracy <= found.accuracy_under_attack).all()
    assert (found.accuracy_under_attack <= found.clean_accuracy).all()


def test_a_bound_that_is_too_small_is_seen(unchecked, monkeypatch):
    """What rounding may hide is made to fit, and nothing else is."""
    module = sys.modules["lossgeom.adversarial.logit_change"]
    upper = module._upper
    monkeypatch.setattr(module, "_upper", lambda *args: 0.5 * upper(*args))
    found = lg.robustness(problem("linear", 1.0), SIZES, **SEARCH)
    assert (found.logit_change.lower[-2:] > found.logit_change.upper[-2:]).any()
    flipped = found.attacked_margins[-1] <= -1e-3
    assert flipped.any()
    sure = replace(found, certified_radii=torch.full_like(found.certified_radii, 2.0))
    assert not sure.withstood[-1][flipped].any()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("order", ["l2", "linf"])
def test_changes_of_linear_models_are_never_above_the_largest(scale, order, unchecked):
    """That of a linear model is known without a bound."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    data = [(scale * torch.randn(4, 3), torch.zeros(4).long())]
    found = lg.logit_change(
        lg.Problem(model, "cross_entropy", data), SIZES, norm=order, certify=False, **SEARCH
    )
    W = model.weight.detach().double()
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    largest = (
        (corners @ W.T).norm(dim=1).max() if order == "linf" else torch.linalg.matrix_norm(W, 2)
    )
    exact = found.eps[:, None] * largest
    assert (found.lower <= exact * (1 + 1e-14)).all()
    assert (found.lower[-2:] > 0.5 * exact[-2:]).all()


@every
def test_norms_and_variation(kind, scale, unchecked):
    p = problem(kind, scale)
    for radius in (1e-12, 1e-8, 1.0):
        lower = lg.lipschitz_lower(p, radius=radius, **SEARCH)
        upper = lg.lipschitz_local(p, radius)
        assert lower.at_data <= lower.value <= upper[lower.example]
        assert upper.max() <= lg.lipschitz_global(p)
        bracket = lg.local_variation(p, radius, **SEARCH)
        assert (bracket.lower <= bracket.upper).all()
