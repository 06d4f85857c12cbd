"""Random crops and reflections of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from lossgeom.batches import Batch
from lossgeom.lab.training import Objective, Regularizer
from lossgeom.messages.checks import check_whole


def crop_and_flip(strength: int = 4, share: float = 1.0, *, flip: bool = True) -> Regularizer:
    """Shift each image, with zeros from outside, and reflect half of them left to right.

    Args:
        strength: the largest shift, in pixels, along either axis.
        share: of the images, drawn for every batch; the others stay as they are.
        flip: whether they are reflected, which turns digits and letters into what they are not.

    Raises:
        TypeError: if the strength is no whole number.
        ValueError: if it is negative, the share is not from 0 to 1, or, in training, if the inputs
            are no images (N, C, H, W).

    Source: He et al., Deep residual learning (2016), section 4.2.

    >>> from lossgeom.losses import as_loss
    >>> image = torch.tensor([[[[0.0, 1.0]]]])
    >>> batch = Batch.of((image, torch.tensor([0])))
    >>> objective = Objective(torch.nn.Flatten(), as_loss("cross_entropy"), lambda _: [])
    >>> [augment] = crop_and_flip(0)(objective).augmentations
    >>> [augment(batch, objective.numbers(i)).input.flatten().tolist() for i in range(4)]
    [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    check_whole(0, strength=strength)
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, got {share}")

    def augment(batch: Batch, numbers: np.random.Generator) -> Batch:
        images = batch.input
        if images.ndim != 4:
            raise ValueError(f"expected images (N, C, H, W) to crop, got {tuple(images.shape)}")
        n, channels, height, width = images.shape
        shifts = numbers.integers(2 * strength + 1, size=(2, n, 1))
        rows, columns = shifts[0] + np.arange(height), shifts[1] + np.arange(width)
        flipped = flip & (numbers.random(n) < 0.5)
        columns[flipped] = columns[flipped, ::-1]
        still = share <= numbers.random(n)
        rows[still], columns[still] = strength + np.arange(height), strength + np.arange(width)
        padded = F.pad(images, (strength,) * 4)
        moved = padded[
            torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None],
            torch.from_numpy(rows)[:, None, :, None], torch.from_numpy(columns)[:, None, None, :],
        ]  # fmt: skip
        return Batch.of((moved, batch.targets), batch.index)

    def regularizer(objective: Objective) -> Objective:
        return replace(objective, augmentations=(*objective.augmentations, augment))

    return regularizer
