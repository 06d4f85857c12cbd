"""What tests of Lipschitz constants and variations share."""

import torch
from torch import nn

from tests.smoothness.networks import mlp


def one_tanh():
    """The network 1 - 3 tanh(2 x), in float64."""
    model = mlp(1, 1, 1, activation=nn.Tanh).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (2.0, 0.0, -3.0, 1.0), strict=True):
            parameter.fill_(value)
    return model
