"""CIFAR-10, read from its own files."""

from pathlib import Path
from typing import Any

from lossgeom.lab.datasets._cifar import Format, read
from lossgeom.lab.datasets._dataset import Dataset, Options

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
BINARY = Format(
    train=tuple(f"{name}.bin" for name in BATCHES),
    test="test_batch.bin",
    published={
        "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
    },
    examples=(10_000, 10_000),
    archive="cifar-10-binary.tar.gz",
    labels=1,
    classes=10,
)
PYTHON = Format(
    train=BATCHES,
    test="test_batch",
    published={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    examples=(10_000, 10_000),
    archive="cifar-10-python.tar.gz",
    labels="labels",
    classes=10,
)


def cifar10(
    examples: int = 50_000,
    seed: int = 0,
    folder: str | Path = "data/cifar-10-batches-bin",
    **options: Any,
) -> Dataset:
    """Colour photographs of ten kinds of things, 32 x 32 pixels.

    Scaling: pixels (0 to 255) are divided by 255, then every colour channel is shifted and scaled
    to mean 0 and standard deviation 1 over the training examples; where they are not centred, they
    stay between 0 and 1. Inputs are (N, 3, 32, 32) in float32, targets 0 to 9, or the places in
    ``classes``. The test examples are the data set's own.

    Args:
        examples: to train on: a random choice out of the five batches.
        seed: of that choice, and of label noise.
        folder: where the files of the binary or the Python version are; nothing is downloaded. Of
            the latter, no function of any module is called.
        **options: fields of :class:`Options`.

    Raises:
        FileNotFoundError: if they are not there; the error says where to get them.
        ValueError: if a file is damaged, not the published one, or holds too few examples.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).
    """
    chosen = Options(**options)
    return read(Path(folder), (BINARY, PYTHON), chosen.verify).chosen(examples, seed, chosen)
