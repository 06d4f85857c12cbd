"""Fashion-MNIST, read from its own files."""

from pathlib import Path
from typing import Any

from lossgeom.lab.datasets._dataset import Dataset, Options
from lossgeom.lab.datasets._idx import read

SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
PUBLISHED = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def fashion_mnist(
    examples: int = 60_000,
    seed: int = 0,
    folder: str | Path = "data/fashion-mnist",
    **options: Any,
) -> Dataset:
    """Pictures of ten kinds of clothes, 28 x 28 pixels.

    Scaling: as of MNIST. Inputs are (N, 1, 28, 28) in float32, targets 0 (T-shirt) to 9 (boot).
    The test examples are the data set's own.

    Args:
        examples: to train on: a random choice out of the 60,000.
        seed: of that choice, and of label noise.
        folder: where the four files are, which have the names and the format of MNIST's.
        **options: fields of :class:`Options`.

    Raises:
        FileNotFoundError: if one is not there; the error says where to get them.
        ValueError: as for MNIST.

    Source: Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747.
    """
    chosen = Options(**options)
    return read(Path(folder), PUBLISHED, SOURCE, chosen.verify).chosen(examples, seed, chosen)
