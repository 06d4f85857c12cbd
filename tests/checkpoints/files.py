"""Models with checkpoints of them."""

import safetensors.torch
import torch
from torch import nn


def net(seed=0, width=5, bias=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2, bias=bias)
        )


def trained():
    """With weights and running statistics of its own."""
    model = net(seed=1)
    model(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
    return model


def saved(path, state):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path
