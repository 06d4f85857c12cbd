"""CIFAR-10, read from the files of its binary version."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossgeom.lab.datasets._dataset import Dataset, of_images

SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


def cifar10(
    examples: int = 50_000,
    seed: int = 0,
    folder: str | Path = "data/cifar-10-batches-bin",
    classes: Sequence[int] = range(10),
    centred: bool = True,
) -> Dataset:
    """Colour photographs of ten kinds of things, 32 x 32 pixels.

    Scaling: pixels (0 to 255) are divided by 255, then every colour channel is shifted and scaled
    to mean 0 and standard deviation 1 over the training examples; where they are not centred, they
    stay between 0 and 1. Inputs are (N, 3, 32, 32) in float32, targets 0 to 9, or the places in
    ``classes``. The test examples are the data set's own.

    Args:
        examples: to train on: a random choice out of ``data_batch_*.bin``.
        seed: of that choice.
        folder: where the files of the binary version are; nothing is downloaded.
        classes: which of the ten; images of others are left out, of the test examples, too.
        centred: whether channels are shifted and scaled.

    Raises:
        FileNotFoundError: if they are not there; the error says where to get them.
        ValueError: if a file is damaged or holds too few examples.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009).
    """
    folder = Path(folder)
    files = sorted(folder.glob("data_batch_*.bin"))
    if not files or not (folder / "test_batch.bin").exists():
        raise FileNotFoundError(
            f"expected data_batch_*.bin and test_batch.bin in {folder}; get and unpack {ADDRESS}"
        )
    parts = [_read(file, classes) for file in files]
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    test = _read(folder / "test_batch.bin", classes)
    return of_images((images, labels), test, len(classes), examples, seed, centred)


def _read(file: Path, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    content = np.fromfile(file, dtype=np.uint8)
    if len(content) == 0 or len(content) % RECORD_BYTES:
        raise ValueError(
            f"{file} is damaged: expected records of {RECORD_BYTES} bytes, got {len(content)} bytes"
        )
    records = torch.from_numpy(content).view(-1, RECORD_BYTES)
    kept, target = torch.nonzero(records[:, :1] == torch.tensor(classes), as_tuple=True)
    return records[kept, 1:].reshape(-1, *SHAPE).float() / 255, target
