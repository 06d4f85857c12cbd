import pytest
import torch
from torch.optim import SGD, Adam

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


def test_reads_the_learning_rate_of_now():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.25
    assert lg.stability_threshold(optimizer) == 8.0


def test_errors():
    w, v = (torch.zeros(1, requires_grad=True) for _ in range(2))
    with pytest.raises(TypeError, match=r"expected torch\.optim\.SGD.*got Adam"):
        lg.stability_threshold(Adam([w]))
    with pytest.raises(ValueError, match="expected all parameter groups to agree"):
        lg.stability_threshold(SGD([{"params": [w], "lr": 0.1}, {"params": [v], "lr": 0.2}]))
    with pytest.raises(ValueError, match="maximize=True"):
        lg.stability_threshold(SGD([w], lr=0.1, maximize=True))
    with pytest.raises(ValueError, match="expected a learning rate > 0"):
        lg.stability_threshold(SGD([w], lr=0.0))
