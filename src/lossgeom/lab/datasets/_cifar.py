"""The reader of the two CIFARs, in the binary and in the Python version."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossgeom.lab.datasets._dataset import Examples, Labelled
from lossgeom.lab.datasets._files import check_published

PIXELS = 3 * 32 * 32
SOURCE = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Format:
    """What the files of a version are like.

    Attributes:
        train: their names.
        test: its name.
        published: their checksums.
        examples: in each of the published ones.
        archive: what they come in.
        labels: the number of labels before the pixels of an image in the binary version, of which
            the last one counts; in the Python version the name of the labels.
        classes: how many.
    """

    train: tuple[str, ...]
    test: str
    published: Mapping[str, str]
    examples: tuple[int, int]
    archive: str
    labels: int | str
    classes: int

    @property
    def names(self) -> tuple[str, ...]:
        """All files."""
        return *self.train, self.test

    def read(self, folder: Path, verify: bool) -> Labelled:
        """All images (N, 3, 32, 32) and labels."""
        train = [self._file(folder / name, verify, self.examples[0]) for name in self.train]
        images, labels = (torch.cat(part) for part in zip(*train, strict=True))
        test = self._file(folder / self.test, verify, self.examples[1])
        return Labelled((images, labels), test, self.classes)

    def _file(self, file: Path, verify: bool, published: int) -> Examples:
        content = file.read_bytes()
        read: Callable[..., Examples] = _binary if isinstance(self.labels, int) else _pickled
        images, labels = read(file, content, self.labels)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ValueError(
                f"{file} is damaged: expected labels from 0 to {self.classes - 1}, got "
                f"{int(labels.min())} to {int(labels.max())}"
            )
        if verify and len(labels) == published:
            check_published(file, content, self.published, SOURCE + self.archive)
        return images.view(-1, 3, 32, 32), labels


def read(folder: Path, formats: tuple[Format, ...], verify: bool) -> Labelled:
    """All images and labels in a folder that has the files of one of these versions."""
    for each in formats:
        if all((folder / name).exists() for name in each.names):
            return each.read(folder, verify)
    names = "; or ".join(f"{', '.join(each.names)} of {each.archive}" for each in formats)
    archive = SOURCE + formats[0].archive
    raise FileNotFoundError(f"expected {names} in {folder}; get and unpack {archive}, or the other")


def _binary(file: Path, content: bytes, labels: int) -> Examples:
    size = labels + PIXELS
    if not content or len(content) % size:
        raise ValueError(
            f"{file} is damaged: expected records of {size} bytes, got {len(content)} bytes"
        )
    records = torch.from_numpy(np.frombuffer(content, np.uint8).copy()).view(-1, size)
    return records[:, labels:].contiguous(), records[:, labels - 1].long()


def _pickled(file: Path, content: bytes, labels: str) -> Examples:
    try:
        held = _Arrays(io.BytesIO(content), encoding="latin1").load()
        pixels, given = getattr(held["data"], "values", None), held[labels]
    except Exception as error:  # a pickle that is damaged may raise anything
        raise ValueError(f"{file} is damaged, or no batch of CIFAR: {error}") from None
    whole = isinstance(given, list) and all(type(each) is int for each in given)
    shape = getattr(pixels, "shape", None)
    if not whole or pixels is None or shape != (len(given), PIXELS):
        raise ValueError(
            f"{file} is damaged: expected bytes (N, {PIXELS}) and N {labels}, got "
            f"{shape} and {len(given) if whole else given!r}"
        )
    return torch.from_numpy(pixels), torch.tensor(given, dtype=torch.int64)


class _Kind:
    """What a pickle says about the type of an array, of which the name is all that is kept."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"one of the type {self.name}"

    def __setstate__(self, state: object) -> None:
        """Leave it: a state can make NumPy take any bytes for addresses of objects."""


class _Array:
    """An array in a pickle, of bytes or nothing."""

    values: np.ndarray[Any, Any] | None = None

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Make it of a version, its shape, its type, whether columns come first, and its bytes."""
        _, shape, kind, columns, held = state
        if not isinstance(kind, _Kind) or kind.name not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"expected an array of bytes, got {kind!r}")
        content = held.encode("latin1") if isinstance(held, str) else held  # as of Python 2
        flat = np.frombuffer(content, np.uint8)
        self.values = flat.reshape(shape, order="F" if columns else "C").copy()


ARRAYS = {  # all that a pickled array of NumPy calls, without NumPy's own
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
}


class _Arrays(pickle.Unpickler):
    """Reads plain types and arrays, and calls nothing else: a pickle can name any function."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up what a pickle names."""
        found = ARRAYS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays are read")
        return found
