"""Data sets, one in each file: settings and a seed that give a Dataset."""

from lossgeom.lab.datasets._dataset import Dataset
from lossgeom.lab.datasets.cifar10 import cifar10
from lossgeom.lab.datasets.digits import digits
from lossgeom.lab.datasets.mnist import mnist

DATASETS = {"digits": digits, "mnist": mnist, "cifar10": cifar10}
