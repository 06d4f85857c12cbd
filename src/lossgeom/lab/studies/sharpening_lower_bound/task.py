"""What is learnt: a class whose probability is known on an interval, or images."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.lab.models import mlp
from lossgeom.lab.studies._network import build
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.sharpening_lower_bound.config import Config

INTERVAL, IMAGES = "interval", "images"
TASKS = (INTERVAL, IMAGES)

Examples = tuple[Float[Tensor, "N D"], Float[Tensor, "N C"]]


def task_of(run: SeedRun[Config]) -> tuple[nn.Module, Examples]:
    """A network with class probabilities as outputs, and inputs with smoothed ones as targets."""
    model, (inputs, targets) = (interval if run.place["task"] == INTERVAL else images)(run)
    a, classes = run.place["label_smoothing"], targets.shape[1]
    return model, (inputs, (1 - a) * targets + a / classes)


def interval(run: SeedRun[Config]) -> tuple[nn.Module, Examples]:
    """Uniform points of [0, 1], in float64, and a class that gets less likely along it.

    The network is a sigmoid p and then (p, 1 - p), which is the softmax of two logits.
    """
    study, generator = run.study, torch.Generator().manual_seed(run.seed)
    inputs = torch.rand(study.points, 1, generator=generator, dtype=torch.float64)
    p = (study.steepness * (math.pi * inputs).cos()).sigmoid()
    both = nn.Linear(1, 2).requires_grad_(False)
    both.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    both.bias.copy_(torch.tensor([0.0, 1.0]))
    net = mlp(1, 1, [study.width], "tanh", run.seed)
    return nn.Sequential(*net, nn.Sigmoid(), both).double(), (inputs, torch.cat([p, 1 - p], 1))


def images(run: SeedRun[Config]) -> tuple[nn.Module, Examples]:
    """Images and their classes."""
    model, data = build(run.study.network, run.seed)
    inputs, labels = data.train
    targets = nn.functional.one_hot(labels, data.classes).to(inputs)
    return nn.Sequential(model, nn.Softmax(1)), (inputs, targets)


def divergences(p: Float[Tensor, "N C"], targets: Float[Tensor, "N C"]) -> Float[Tensor, " N"]:
    """The relative entropy of every example's targets from probabilities p, which is the cost."""
    positive = p.clamp(min=torch.finfo(p.dtype).tiny)
    return (targets.xlogy(targets) - targets.xlogy(positive)).sum(1)


def kl(outputs: Float[Tensor, "N C"], batch: Examples) -> tuple[Tensor, int]:
    """The same as a loss."""
    return divergences(outputs, batch[1]).sum(), len(outputs)
