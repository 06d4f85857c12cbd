"""What holds of every training loop of the lab."""

import inspect
import math

import pytest
import torch
from torch import nn

from lossgeom.lab.models import mlp
from lossgeom.lab.training import TRAINING

CAN_DIVERGE = [name for name in TRAINING if name != "gradient_flow"]


@pytest.fixture(params=TRAINING)
def train(request):
    """Trains on inputs and targets, which loops take in several forms."""
    loop = TRAINING[request.param]
    parameters = inspect.signature(loop).parameters
    optimizers = {}  # whose state goes on with that of the model

    def run(model, loss, examples, *, lr, **options):
        forms = {"examples": examples, "batches": [examples], "batch_size": 2, "seed": 2, "lr": lr}
        asked = {name: forms[name] for name in forms if name in parameters}
        if "optimizers" in parameters:
            made = optimizers.setdefault(model, torch.optim.SGD(model.parameters(), 1, 0.5))
            made.param_groups[0]["lr"] = lr
            asked["optimizers"] = [made]
        return loop(model, loss, **asked, **options)

    return run


@pytest.mark.parametrize("stopped", [3, 4, 5])
def test_going_on_is_going_straight_through(train, stopped):
    data = torch.randn(5, 4), torch.randint(3, (5,))
    straight, halved = mlp(4, 3, [5], seed=0), mlp(4, 3, [5], seed=0)
    state = torch.get_rng_state()
    steps = list(train(straight, "cross_entropy", data, lr=0.3, steps=10))
    first = list(train(halved, "cross_entropy", data, lr=0.3, steps=stopped))
    rest = list(train(halved, "cross_entropy", data, lr=0.3, steps=10, first=stopped))
    assert torch.equal(torch.get_rng_state(), state)
    assert steps == first + rest[1:] == list(range(11))
    for a, b in zip(straight.parameters(), halved.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(straight[0].weight, mlp(4, 3, [5], seed=0)[0].weight)


@pytest.mark.parametrize("train", CAN_DIVERGE, indirect=True)
def test_it_ends_where_it_diverges(train):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1e30)
    data = torch.ones(2, 1), torch.zeros(2, 1)
    steps = list(train(model, "squared_error", data, lr=1e6, steps=100))
    assert 0 < len(steps) < 20
    assert not math.isfinite(model.weight.item())


def test_errors(train):
    model, data = nn.Linear(1, 1), (torch.ones(3, 1), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="expected a learning rate lr > 0, got -1"):
        next(train(model, "squared_error", data, lr=-1, steps=1))
    with pytest.raises(ValueError, match="expected steps >= 3, the steps already taken; got 1"):
        next(train(model, "squared_error", data, lr=1, steps=1, first=3))
