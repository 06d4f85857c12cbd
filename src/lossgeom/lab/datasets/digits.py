"""Handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

from typing import Any

import torch

from lossgeom.lab.datasets._dataset import Dataset, Labelled, Options
from lossgeom.messages.extras import required


def digits(examples: int = 1000, seed: int = 0, lowest: float = -1.0, **options: Any) -> Dataset:
    """A random split of the 1,797 digits into ``examples`` to train on and the rest to test on.

    Scaling: pixels (0 to 16) are divided by 16, and the mean of every pixel over the training
    examples is subtracted from all; inputs are (N, 64) in float32, targets 0 to 9. Where they are
    not centred, pixels go from ``lowest`` to 1: from -1 as (pixel - 8) / 8, from 0 as pixel / 16.

    Args:
        examples: to train on, between 1 and 1,796.
        seed: of the split, and of label noise.
        lowest: what the lowest pixel becomes, -1 or 0, where it is not centred.
        **options: fields of :class:`Options`.

    Raises:
        ValueError: if there would be nothing to train or to test on.
        ImportError: without scikit-learn, which the extra ``lab`` brings.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI (1998).

    >>> data = digits(examples=500)
    >>> data.train[0].shape, data.test[0].shape
    (torch.Size([500, 64]), torch.Size([1297, 64]))
    """
    chosen = Options(**options)
    images, labels = required("sklearn.datasets").load_digits(return_X_y=True)
    least = 0.0 if chosen.centred else lowest
    return Labelled(
        (torch.tensor(images, dtype=torch.float64), torch.tensor(labels)),
        test=None,
        classes=10,
        what="digits",
        plain=lambda pixels: least + (1 - least) * pixels / 16,
        scaling="pixels / 16" if chosen.centred else f"pixels from {lowest:g} to 1",
        centring=", less the mean of each pixel over the training examples",
        deviation=False,
    ).chosen(examples, seed, chosen)
