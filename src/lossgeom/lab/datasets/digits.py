"""Handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

import torch

from lossgeom.extras import required
from lossgeom.lab.datasets._dataset import Dataset

SIZE = 1797


def digits(
    examples: int = 1000, seed: int = 0, centred: bool = True, lowest: float = -1.0
) -> Dataset:
    """A random split of the 1,797 digits into ``examples`` to train on and the rest to test on.

    Scaling: pixels (0 to 16) are divided by 16, and the mean of every pixel over the training
    examples is subtracted from all; inputs are (N, 64) in float32, targets 0 to 9. Where they are
    not centred, pixels go from ``lowest`` to 1: from -1 as (pixel - 8) / 8, from 0 as pixel / 16.

    Args:
        examples: to train on, between 1 and 1,796.
        seed: of the split.
        centred: whether the mean of every pixel is subtracted.
        lowest: what the lowest pixel becomes, -1 or 0, where it is not.

    Raises:
        ValueError: if there would be nothing to train or to test on.
        ImportError: without scikit-learn, which the extra ``lab`` brings.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998).

    >>> data = digits(examples=500)
    >>> data.train[0].shape, data.test[0].shape
    (torch.Size([500, 64]), torch.Size([1297, 64]))
    """
    if not 1 <= examples < SIZE:
        raise ValueError(f"expected 1 to {SIZE - 1} digits to train on, got {examples}")
    images, labels = required("sklearn.datasets").load_digits(return_X_y=True)
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(seed))
    inputs, targets = torch.tensor(images, dtype=torch.float64)[order], torch.tensor(labels)[order]
    inputs = inputs / 16 if centred else lowest + (1 - lowest) * inputs / 16
    inputs = (inputs - inputs[:examples].mean(0) if centred else inputs).float()
    return Dataset(
        train=(inputs[:examples], targets[:examples]),
        test=(inputs[examples:], targets[examples:]),
        classes=10,
        scaling="pixels / 16, less the mean of each pixel over the training examples"
        if centred
        else f"pixels from {lowest:g} to 1",
    )
