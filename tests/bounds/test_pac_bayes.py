"""The PAC-Bayes bound of networks."""

import copy

import pytest
import torch
from torch import nn

import lossgeom as lg


@pytest.fixture(scope="module")
def trained():
    """A small classifier, before and after its training, its batches, and others."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
    x = torch.randn(600, 4, generator=generator)
    y = (x[:, :1] + x[:, 1:2] > 0).float()
    initial = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x[:400]), y[:400]).backward()
        optimizer.step()
    batches = [(x[i : i + 100], y[i : i + 100]) for i in range(0, 400, 100)]
    return model, initial, batches, [(x[400:], y[400:])]


def test_the_bound_holds_and_says_something(trained):
    model, initial, batches, others = trained
    problem = lg.Problem(model, nn.BCEWithLogitsLoss(), batches)
    result = lg.pac_bayes(problem, prior=initial, epochs=40, lr=0.02, samples=100)
    test = lg.Problem(model, nn.BCEWithLogitsLoss(), others)
    error = result.stochastic_error(test, samples=50)
    assert error.value < result.value < 1
    assert not result.vacuous
    assert len(result.history) == 40
