"""A curved surface of few dimensions, in closed form."""

from __future__ import annotations

from torch import nn

from lossgeom.bounds import Cube
from lossgeom.lab.generators._task import ManifoldTask, linear, orthonormal, random_teacher
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_whole


def tanh_surface(
    dimension: int = 2, seed: int = 0, width: int = 8, ambient: int = 16
) -> ManifoldTask:
    r"""A surface in closed form, bent by tanh, with a random teacher on it.

    .. math:: x = B \tanh(A (2 u - 1)), \qquad u \sim U[0, 1]^d

    with random A (width x d) and B (ambient x width), whose columns are orthonormal. Hence the
    Jacobian ``2 B diag(1 - tanh^2) A`` has norm 2 in the middle of the cube and less elsewhere: the
    Lipschitz constant of the generator is 2. The teacher has 32 tanh units, and matrices of norms
    1.5 and 1.

    Args:
        dimension: d, of the cube and of the surface.
        seed: of the matrices and of the teacher.
        width: of the layer of tanh, at least d.
        ambient: D, the numbers of an input, at least ``width``.

    Raises:
        ValueError: unless 1 <= dimension <= width <= ambient.

    >>> task = tanh_surface(dimension=2)
    >>> u, x, y = task.sample(100)
    >>> u.shape, x.shape, y.shape
    (torch.Size([100, 2]), torch.Size([100, 16]), torch.Size([100, 1]))
    >>> [round(side, 3) for side in task.lipschitz()["generator"].max]
    [2.0, 2.0]
    """
    check_whole(1, dimension=dimension)
    check_whole(dimension, width=width)
    check_whole(width, ambient=ambient)
    numbers = random_numbers(seed)
    A, B = orthonormal(width, dimension, numbers), orthonormal(ambient, width, numbers)
    generator = nn.Sequential(linear(2 * A, -A.sum(1)), nn.Tanh(), linear(B))
    latent = Cube(dimension)
    return ManifoldTask(latent, generator, random_teacher(latent, generator, seed))
