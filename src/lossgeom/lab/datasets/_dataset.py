"""What every data set is."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and examples to test on, as pairs (inputs, targets)."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    scaling: str


def of_images(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    examples: int,
    seed: int,
    centred: bool,
) -> Dataset:
    """A random choice of images (N, C, H, W) to train on, with each channel centred, or none."""
    images, labels = train
    if not 1 <= examples <= len(images):
        raise ValueError(f"expected 1 to {len(images)} images to train on, got {examples}")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:examples]
    images, others, scaling = images[chosen], test[0], "pixels / 255"
    if centred:
        mean, deviation = (getattr(images, of)((0, 2, 3), keepdim=True) for of in ("mean", "std"))
        images, others = (images - mean) / deviation, (others - mean) / deviation
        scaling += ", then mean 0 and deviation 1 per channel over the training examples"
    return Dataset((images, labels[chosen]), (others, test[1]), classes, scaling)
