"""The graph of an image that a network with sines represents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lossgeom.bounds import Cube
from lossgeom.lab.generators._digits import learn, mean_image
from lossgeom.lab.generators._task import ManifoldTask, linear_layers, random_teacher
from lossgeom.lab.models import mlp
from lossgeom.messages.checks import check_number, check_whole


class _Graph(nn.Module):
    """``u`` and the scaled value of a function there."""

    def __init__(self, function: nn.Module, height: float) -> None:
        super().__init__()
        self.function = function
        self.height = height

    def forward(self, u: Tensor) -> Tensor:
        return torch.cat([u, self.height * self.function(u)], dim=1)


def sine_implicit(
    seed: int = 0,
    digit: int = 0,
    frequency: float = 8.0,
    weight_decay: float = 1e-3,
    height: float = 0.25,
    steps: int = 500,
) -> ManifoldTask:
    r"""The graph of an image over the unit square, learned by a network with sines.

    .. math:: x = (u, h \, s(u)), \qquad s(u) = w^T \sin(W_2 \sin(W_1 u + b_1) + b_2) + c,

    with 32 sines in each layer and u uniform on the unit square. The implicit function s learns the
    mean image of a digit of scikit-learn, 8 x 8 pixels from 0 to 1, by Adam with steps of 0.01. The
    teacher is a random network as that of :func:`tanh_surface`. With the defaults, the certified
    Lipschitz constant of s is about 21, that of the target 5.

    Args:
        seed: of the initialisation and of the teacher.
        digit: 0 to 9.
        frequency: what the first weights are multiplied with at the initialisation.
        weight_decay: of s; smoother functions have more.
        height: h.
        steps: of Adam.

    Raises:
        ValueError: for numbers out of their range, or a digit that there is none of.
        ImportError: without scikit-learn, which the extra ``lab`` brings.

    Source: Sitzmann et al., Implicit neural representations with periodic activation functions,
    arXiv:2006.09661, for networks of sines and their frequency.

    >>> u, x, y = sine_implicit(steps=10).sample(3)
    >>> x.shape
    torch.Size([3, 3])
    """
    check_whole(1, steps=steps)
    for name, number in (("frequency", frequency), ("height", height)):
        check_number(name, number, 0)
    check_number("weight_decay", weight_decay, 0, at_low=True)
    if digit not in range(10):
        raise ValueError(f"expected a digit from 0 to 9, got {digit}")
    function = mlp(2, 1, (32, 32), "sine", seed)
    linear_layers(function)[0].weight.data.mul_(frequency)
    learn(function, *mean_image(digit), steps, {function: weight_decay})
    latent, graph = Cube(2), _Graph(function.double(), height)
    return ManifoldTask(latent, graph, random_teacher(latent, graph, seed))
