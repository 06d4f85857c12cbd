"""MNIST, read from its own files."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossgeom.lab.datasets._dataset import Dataset, of_images

SIDE = 28
IMAGES, LABELS = 2051, 2049  # the first four bytes: unsigned bytes in three dimensions, or in one
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"


def mnist(
    examples: int = 60_000, seed: int = 0, folder: str | Path = "data/mnist", centred: bool = True
) -> Dataset:
    """Handwritten digits of 28 x 28 pixels.

    Scaling: pixels (0 to 255) are divided by 255, then all are shifted and scaled to mean 0 and
    standard deviation 1 over the training examples; where they are not centred, they stay between
    0 and 1. Inputs are (N, 1, 28, 28) in float32, targets 0 to 9. The test examples are the data
    set's own.

    Args:
        examples: to train on: a random choice out of the 60,000.
        seed: of that choice.
        folder: where the four files in IDX format are, packed (``.gz``) or not; nothing is
            downloaded.
        centred: whether pixels are shifted and scaled.

    Raises:
        FileNotFoundError: if one is not there; the error says where to get them.
        ValueError: if a file is damaged or of another kind, there are more images than labels or
            fewer, or too few examples.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits (1998).
    """
    folder = Path(folder)
    train, test = (_read(folder, part) for part in ("train", "t10k"))
    return of_images(train, test, 10, examples, seed, centred)


def _read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    pixels = _idx(folder, f"{part}-images-idx3-ubyte", IMAGES)
    labels = _idx(folder, f"{part}-labels-idx1-ubyte", LABELS)
    if pixels.shape != (len(labels), SIDE, SIDE) or (labels > 9).any():
        raise ValueError(
            f"expected images of {SIDE} x {SIDE} pixels in {folder} with a label from 0 to 9 each, "
            f"got {part} images of shape {tuple(pixels.shape)} with {len(labels)} labels, of which "
            f"there are {sorted(set(labels.tolist()))}"
        )
    return pixels[:, None].float() / 255, labels.long()


def _idx(folder: Path, name: str, magic: int) -> Tensor:
    """The array in a file: four bytes that tell its kind, four for each dimension, and the rest."""
    file = next((f for f in (folder / name, folder / f"{name}.gz") if f.exists()), None)
    if file is None:
        raise FileNotFoundError(f"expected {name} or {name}.gz in {folder}; get it from {MIRROR}")
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    dimensions = 1 + magic % 256
    words = (content[4 * i : 4 * i + 4] for i in range(dimensions))
    kind, *shape = (int.from_bytes(word, "big") for word in words)
    held = len(content) - 4 * dimensions
    if kind != magic or held != math.prod(shape):
        raise ValueError(
            f"{file} is damaged or of another kind: expected it to begin with {magic} and a shape, "
            f"and to hold as many bytes; got {kind}, {tuple(shape)} and {held} bytes"
        )
    return torch.from_numpy(np.ndarray(shape, np.uint8, content, 4 * dimensions).copy())
