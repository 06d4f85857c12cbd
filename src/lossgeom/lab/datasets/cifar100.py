"""CIFAR-100, read from its own files."""

from pathlib import Path
from typing import Any

from lossgeom.lab.datasets._cifar import Format, read
from lossgeom.lab.datasets._dataset import Dataset, Options

BINARY = Format(
    train=("train.bin",),
    test="test.bin",
    published={
        "train.bin": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e",
        "test.bin": "8fb6623e830365ff53cf14adec797474f5478006",
    },
    examples=(50_000, 10_000),
    archive="cifar-100-binary.tar.gz",
    labels=2,
    classes=100,
)
PYTHON = Format(
    train=("train",),
    test="test",
    published={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
    examples=(50_000, 10_000),
    archive="cifar-100-python.tar.gz",
    labels="fine_labels",
    classes=100,
)


def cifar100(
    examples: int = 50_000,
    seed: int = 0,
    folder: str | Path = "data/cifar-100-binary",
    **options: Any,
) -> Dataset:
    """Colour photographs of a hundred kinds of things, 32 x 32 pixels.

    Scaling: as of CIFAR-10. Inputs are (N, 3, 32, 32) in float32, targets 0 to 99, the fine labels,
    or the places in ``classes``. The test examples are the data set's own.

    Args:
        examples: to train on: a random choice out of the 50,000.
        seed: of that choice, and of label noise.
        folder: where the files of the binary or the Python version are; nothing is downloaded.
        **options: fields of :class:`Options`.

    Raises:
        FileNotFoundError: if they are not there; the error says where to get them.
        ValueError: if a file is damaged, not the published one, or holds too few examples.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).
    """
    chosen = Options(**options)
    return read(Path(folder), (BINARY, PYTHON), chosen.verify).chosen(examples, seed, chosen)
