"""Small files in the formats of published data sets."""

import pickle
import struct
from typing import ClassVar

import numpy as np


def write_cifar10(folder, images):
    """Files like those of the binary version, with few images: five to train on, one to test."""
    folder.mkdir()
    names = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
    for seed, name in enumerate(names):
        records = np.random.default_rng(seed).integers(0, 256, (images, 3073), np.uint8)
        records[:, 0] = np.arange(images) % 10
        records[0, 1] = 255  # red, first row, first pixel
        records.tofile(folder / name)


def write_cifar100(folder, images):
    """Files like those of the binary version: a coarse label, a fine one, and pixels."""
    folder.mkdir()
    for seed, (name, n) in enumerate((("train.bin", images), ("test.bin", 5))):
        records = np.random.default_rng(seed).integers(0, 256, (n, 3074), np.uint8)
        records[:, 0], records[:, 1] = 19, np.arange(n) % 100
        records.tofile(folder / name)


class Python2(pickle._Pickler):
    """Writes what Python 2 and its NumPy wrote, as the Python version of CIFAR has it."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def text(self, value):
        content = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(b"T" + struct.pack("<I", len(content)) + content)

    dispatch[bytes] = dispatch[str] = text

    def save_global(self, named, name=None):
        module = named.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or named.__name__}\n".encode())


def write_batch(file, pixels, labels, name="labels"):
    """A batch of the Python version."""
    with file.open("wb") as out:
        held = {"batch_label": "training batch 1 of 5", name: labels, "data": pixels}
        Python2(out, protocol=2).dump({**held, "filenames": ["a.png"] * len(labels)})


class Image:
    """The kind of a column."""


class ClassLabel:
    """The kind of a column."""

    names = tuple(map(str, range(10)))


class Split(dict):
    """Columns, with their kinds."""

    @property
    def features(self):
        return {"id": object(), "picture": Image(), "label": ClassLabel()}


class FakeDatasets:
    """As much of the library datasets as reads the files of :func:`write_images`."""

    @staticmethod
    def load_dataset(folder):
        found = {}
        for part in ("train", "test"):
            with np.load(f"{folder}/{part}.npz") as arrays:
                found[part] = Split(picture=list(arrays["x"]), label=arrays["y"].tolist())
        return found


def write_images(folder, images, shape=(6, 5, 3)):
    """Images with labels for the fake library."""
    folder.mkdir()
    for seed, (part, n) in enumerate((("train", images), ("test", 5))):
        x = np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
        np.savez(folder / f"{part}.npz", x=x, y=np.arange(n) % 10)
