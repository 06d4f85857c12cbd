"""Data sets of images in the format of the Hugging Face Hub."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossgeom.lab.datasets._dataset import Dataset, Examples, Labelled, Options
from lossgeom.messages.extras import required


def hugging_face(
    examples: int = 1000, seed: int = 0, folder: str | Path = "ylecun/mnist", **options: Any
) -> Dataset:
    """Images with labels from the Hugging Face Hub, or from a folder in one of its formats.

    They are in the splits ``train`` and ``test``, in the one column of images and the one of class
    labels, and all of one size.

    Scaling: as of CIFAR-10. Inputs are (N, C, H, W) in float32, targets those of the data set.

    Args:
        examples: to train on: a random choice out of the split ``train``.
        seed: of that choice, and of label noise.
        folder: what ``datasets.load_dataset`` takes: a name on the Hub, from which it is
            downloaded, or a folder, such as one with ``train/cat/1.png``.
        **options: fields of :class:`Options`.

    Raises:
        ValueError: if there is not one column of each, a split is missing, or images differ in
            size; if there are too few examples.
        ImportError: without the library datasets, which the extra ``datasets`` brings.

    Source: Lhoest et al., Datasets: a community library for natural language processing,
    arXiv:2109.02846.
    """
    chosen = Options(**options)
    splits = required("datasets").load_dataset(str(folder))
    missing = {"train", "test"} - set(splits)
    if missing:
        raise ValueError(f"expected the splits train and test in {folder}, got {', '.join(splits)}")
    train, test = (_examples(splits[part], folder) for part in ("train", "test"))
    names = splits["train"].features[_column(splits["train"], "ClassLabel", folder)].names
    return Labelled(train, test, len(names)).chosen(examples, seed, chosen)


def _column(split: Any, kind: str, folder: str | Path) -> str:
    """The name of the one column of a kind."""
    found = [name for name, of in split.features.items() if type(of).__name__ == kind]
    if len(found) != 1:
        raise ValueError(
            f"expected one column of the kind {kind} in {folder}, got {found or 'none'} among "
            f"{', '.join(split.features)}"
        )
    return str(found[0])


def _examples(split: Any, folder: str | Path) -> Examples:
    images = [np.asarray(image) for image in split[_column(split, "Image", folder)]]
    kinds = {(image.shape, str(image.dtype)) for image in images}
    if len(kinds) != 1 or images[0].dtype != np.uint8:
        raise ValueError(f"expected images of one size and of bytes in {folder}, got {kinds}")
    pixels = torch.from_numpy(np.stack(images))
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.movedim(3, 1).contiguous()
    return pixels, torch.tensor(split[_column(split, "ClassLabel", folder)][:])
