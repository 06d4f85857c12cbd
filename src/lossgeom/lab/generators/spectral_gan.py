"""A generator of handwritten digits that was trained against a critic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam

from lossgeom.bounds import Cube, DeltaGood
from lossgeom.lab.generators._digits import all_digits, teacher_of_even
from lossgeom.lab.generators._task import ManifoldTask, linear_layers
from lossgeom.lab.models import mlp
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_number, check_whole

BATCH, CRITICS = 128, 2  # examples, and steps of the critic for each of the generator


def spectral_gan(
    latent: DeltaGood | None = None,
    seed: int = 0,
    scale: float = 6.0,
    teacher_decay: float = 3e-2,
    steps: int = 500,
) -> ManifoldTask:
    r"""A small generative adversarial network of digits, with spectral normalisation.

    .. math:: \min_D \; E \max(0, 1 - D(x)) + E \max(0, 1 + D(g(u))), \qquad \min_g \; -E D(g(u))

    by Adam in turns, on the digits of scikit-learn with the pixels / 16 less their means. All
    matrices of the generator d-32-64 with tanh and of the critic 64-64-64-1 with leaky ReLU are
    divided by their spectral norms, as far as one power iteration per call knows them, and the
    outputs of the generator are multiplied by ``scale``: its Lipschitz constant is about that at
    most. What is certified is of the weights that come out. The teacher is that of
    :func:`digits_decoder`.

    Cost: about two seconds on one core.

    Args:
        latent: of u; the unit square by default. A normal distribution must be truncated.
        seed: of initialisations and batches; the data are all digits.
        scale: about the Lipschitz constant of the generator.
        teacher_decay: weight decay of the teacher.
        steps: of the generator, with two of the critic before each; the teacher takes 400.

    Raises:
        ValueError: for a scale that is not positive, a decay below 0, or no steps.
        ImportError: without scikit-learn, which the extra ``lab`` brings.

    Source: Miyato et al., Spectral normalization for generative adversarial networks,
    arXiv:1802.05957.

    >>> u, x, y = spectral_gan(steps=2).sample(3)
    >>> x.shape
    torch.Size([3, 64])
    """
    check_whole(1, steps=steps)
    check_number("scale", scale, 0)
    check_number("teacher_decay", teacher_decay, 0, at_low=True)
    latent, x = latent or Cube(2), all_digits(seed)
    u = latent.sample(steps * (CRITICS + 1) * BATCH, seed).float()
    generator = _normalised(mlp(u.shape[1], 64, (32,), "tanh", seed), seed)
    critic = _normalised(mlp(64, 1, (64, 64), "leaky_relu", seed + 1), seed)
    slow, fast = (
        Adam(net.parameters(), lr, betas=(0.0, 0.9))
        for net, lr in ((generator, 1e-3), (critic, 5e-3))
    )
    chosen = torch.randint(len(x), (steps, CRITICS, BATCH), generator=random_numbers(seed, 1))
    for real, latents in zip(x[chosen], u.reshape(steps, CRITICS + 1, BATCH, -1), strict=True):
        for digits, fake in zip(real, latents[1:], strict=True):
            made = scale * generator(fake)
            _step(fast, (F.relu(1 - critic(digits)) + F.relu(1 + critic(made))).mean())
        _step(slow, -critic(scale * generator(latents[0])).mean())
    _fixed(generator, scale)
    return ManifoldTask(latent, generator.double(), teacher_of_even(seed, teacher_decay, 400))


def _normalised(net: nn.Sequential, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the vectors that power iterations begin at
        for layer in linear_layers(net):
            spectral_norm(layer)
    return net


def _step(optimizer: Adam, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _fixed(net: nn.Sequential, scale: float) -> None:
    """Leave the weights as they are used, with the scale in the last ones."""
    net.eval()
    for layer in linear_layers(net):
        parametrize.remove_parametrizations(layer, "weight")
    for parameter in net[-1].parameters():
        parameter.mul_(scale)
