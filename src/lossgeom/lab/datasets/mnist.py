"""MNIST, read from its own files."""

from pathlib import Path
from typing import Any

from lossgeom.lab.datasets._dataset import Dataset, Options
from lossgeom.lab.datasets._idx import read

SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
PUBLISHED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist(
    examples: int = 60_000, seed: int = 0, folder: str | Path = "data/mnist", **options: Any
) -> Dataset:
    """Handwritten digits of 28 x 28 pixels.

    Scaling: pixels (0 to 255) are divided by 255, then all are shifted and scaled to mean 0 and
    standard deviation 1 over the training examples; where they are not centred, they stay between
    0 and 1. Inputs are (N, 1, 28, 28) in float32, targets 0 to 9. The test examples are the data
    set's own.

    Args:
        examples: to train on: a random choice out of the 60,000.
        seed: of that choice, and of label noise.
        folder: where the four files in IDX format are, packed (``.gz``) or not; nothing is
            downloaded.
        **options: fields of :class:`Options`.

    Raises:
        FileNotFoundError: if one is not there; the error says where to get them.
        ValueError: if a file is damaged, of another kind, or not the published one, there are more
            images than labels or fewer, or too few examples.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits (1998).
    """
    chosen = Options(**options)
    return read(Path(folder), PUBLISHED, SOURCE, chosen.verify).chosen(examples, seed, chosen)
