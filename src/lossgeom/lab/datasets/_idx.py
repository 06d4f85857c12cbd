"""The reader of MNIST and of data sets in its format."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossgeom.lab.datasets._dataset import Examples, Labelled
from lossgeom.lab.datasets._files import check_published

SIDE = 28
CLASSES = 10
IMAGES, LABELS = 2051, 2049  # the first four bytes: unsigned bytes in three dimensions, or in one
PUBLISHED = {"train": 60_000, "t10k": 10_000}


def read(folder: Path, published: Mapping[str, str], source: str, verify: bool) -> Labelled:
    """All images (N, 1, 28, 28) and labels in the four files of a folder.

    Args:
        folder: where they are.
        published: the md5 of each, unpacked, by name.
        source: where they are published.
        verify: whether files with as many examples as these must be these.
    """
    parts: list[Examples] = []
    for part, size in PUBLISHED.items():
        names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        read = [_idx(folder, name, source) for name in names]
        parts.append(_checked(folder, part, *(array for array, _, _ in read)))
        for array, file, content in read:
            if verify and len(array) == size:
                check_published(file, content, published, source)
    return Labelled(parts[0], parts[1], CLASSES)


def _checked(folder: Path, part: str, pixels: Tensor, labels: Tensor) -> Examples:
    if pixels.shape != (len(labels), SIDE, SIDE) or (labels >= CLASSES).any():
        raise ValueError(
            f"expected images of {SIDE} x {SIDE} pixels in {folder} with a label from 0 to 9 each, "
            f"got {part} images of shape {tuple(pixels.shape)} with {len(labels)} labels, of which "
            f"there are {sorted(set(labels.tolist()))}"
        )
    return pixels[:, None], labels.long()


def _idx(folder: Path, name: str, source: str) -> tuple[Tensor, Path, bytes]:
    """The array in a file: four bytes that tell its kind, four for each dimension, and the rest."""
    magic = IMAGES if "images" in name else LABELS
    file = next((f for f in (folder / name, folder / f"{name}.gz") if f.exists()), None)
    if file is None:
        raise FileNotFoundError(f"expected {name} or {name}.gz in {folder}; get it from {source}")
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
    array = np.ndarray(shape, np.uint8, content, 4 * dimensions).copy()
    return torch.from_numpy(array), file, content
