"""Data sets, one in each file: settings and a seed that give a Dataset."""

from collections.abc import Callable

from lossgeom.lab.datasets._dataset import Dataset, Options
from lossgeom.lab.datasets.chebyshev import chebyshev
from lossgeom.lab.datasets.cifar10 import cifar10
from lossgeom.lab.datasets.cifar100 import cifar100
from lossgeom.lab.datasets.digits import digits
from lossgeom.lab.datasets.fashion_mnist import fashion_mnist
from lossgeom.lab.datasets.hugging_face import hugging_face
from lossgeom.lab.datasets.manifold import manifold
from lossgeom.lab.datasets.mnist import mnist
from lossgeom.lab.datasets.random_labels import random_labels
from lossgeom.lab.datasets.two_moons import two_moons

DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "hugging_face": hugging_face,
    "two_moons": two_moons,
    "random_labels": random_labels,
    "chebyshev": chebyshev,
    "manifold": manifold,
}
