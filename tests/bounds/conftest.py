"""Small classifiers, before and after their training."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import lossgeom as lg


@dataclass
class Trained:
    model: nn.Module
    initial: nn.Module
    batches: list
    others: list
    loss: nn.Module

    @property
    def problem(self):
        return lg.Problem(self.model, self.loss, self.batches, check=False)

    @property
    def fresh(self):
        return lg.Problem(self.model, self.loss, self.others, check=False)


def fitted(model, loss, x, y, steps=60):
    """Train a model on the first 300 examples."""
    initial = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x[:300]), y[:300]).backward()
        optimizer.step()
    batches = [(x[:110], y[:110]), (x[110:200], y[110:200]), (x[200:300], y[200:300])]
    return Trained(model, initial, batches, [(x[300:], y[300:])], loss)


@pytest.fixture(scope="session")
def binary():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    x = torch.randn(900, 4).double()
    return fitted(model, nn.BCEWithLogitsLoss(), x, (x[:, :1] + x[:, 1:2] > 0).double())


@pytest.fixture(scope="session")
def several():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.LayerNorm(9), nn.Linear(9, 3)
    )
    x = torch.randn(900, 1, 4)
    return fitted(model, nn.CrossEntropyLoss(), x, x[:, 0, :3].argmax(1))
