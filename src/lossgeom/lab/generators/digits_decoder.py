"""The decoder of an autoencoder of handwritten digits."""

from __future__ import annotations

from torch import nn

from lossgeom.bounds import Cube
from lossgeom.lab.generators._digits import all_digits, learn, teacher_of_even
from lossgeom.lab.generators._task import ManifoldTask
from lossgeom.lab.models import mlp
from lossgeom.messages.checks import check_number, check_whole


def digits_decoder(
    dimension: int = 2,
    seed: int = 0,
    weight_decay: float = 1e-2,
    teacher_decay: float = 3e-2,
    steps: int = 800,
) -> ManifoldTask:
    r"""A learned surface of digits, with a teacher that tells even ones from odd ones.

    An autoencoder 64-32-d with sigmoids at its end and tanh between, and d-16-64 with tanh, learns
    the digits of scikit-learn, with the pixels / 16 less their means: x = g(u) for u uniform on the
    cube that the sigmoids map to. The teacher, 64-32-1 with tanh, learns 1 for even digits and -1
    for odd ones. Both minimise one half of the squared error, summed over the numbers of an
    example, by Adam with steps of 0.01 on all digits at once, and with the squared weights of
    decoder and teacher added, times half of their decays.

    The decays decide how fast g and f* vary. With the defaults the certified Lipschitz constants of
    generator, teacher and target are about 6, 1.7 and 4.5. With next to none (1e-4 and 3e-3), they
    are about 20, 4.4 and 50, and bounds that rest on them say nothing about a few thousand samples.

    Cost: about a second on one core.

    Args:
        dimension: d, of the cube.
        seed: of the initialisation; the data are all digits.
        weight_decay: of the decoder; the encoder has none.
        teacher_decay: of the teacher.
        steps: of the autoencoder; the teacher takes half as many.

    Raises:
        ValueError: for a decay below 0, a dimension below 1, or no steps.
        ImportError: without scikit-learn, which the extra ``lab`` brings.

    >>> u, x, y = digits_decoder(steps=10).sample(3)
    >>> x.shape
    torch.Size([3, 64])
    """
    check_whole(1, dimension=dimension, steps=steps)
    check_number("weight_decay", weight_decay, 0, at_low=True)
    check_number("teacher_decay", teacher_decay, 0, at_low=True)
    x = all_digits(seed)
    encoder = nn.Sequential(mlp(64, dimension, (32,), "tanh", seed), nn.Sigmoid())
    decoder = mlp(dimension, 64, (16,), "tanh", seed + 1)
    learn(nn.Sequential(encoder, decoder), x, x, steps, {encoder: 0.0, decoder: weight_decay})
    teacher = teacher_of_even(seed, teacher_decay, steps // 2)
    return ManifoldTask(Cube(dimension), decoder.double(), teacher)
