"""Data sets, one in each file: settings and a seed that give a Dataset."""

from lossgeom.lab.datasets._dataset import Dataset
from lossgeom.lab.datasets.digits import digits

DATASETS = {"digits": digits}

__all__ = ["DATASETS", "Dataset", "digits"]
