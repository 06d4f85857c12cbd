"""How networks for images of 32 x 32 pixels get those of other sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

SIDE = 32  # of the images that the first convolution gets


def enlarged(shape: Sequence[int]) -> OrderedDict[str, nn.Module]:
    """Layers without weights that make images of 32 x 32 pixels of smaller ones, or of flat ones.

    An image is enlarged as many times as fit, each pixel to a square, and then surrounded by zeros.

    Raises:
        ValueError: for images that are not square or have more than 32 x 32 pixels.
    """
    _, height, width = shape
    if not 1 <= height == width <= SIDE:
        raise ValueError(
            f"expected square images of at most {SIDE} x {SIDE} pixels, got {height} x {width}"
        )
    times = SIDE // height
    before, odd = divmod(SIDE - times * height, 2)
    after = before + odd
    return OrderedDict[str, nn.Module](
        flat=nn.Flatten(), image=nn.Unflatten(1, tuple(shape)),
        larger=nn.Upsample(scale_factor=times),
        border=nn.ZeroPad2d((before, after, before, after)),
    )  # fmt: skip


def as_they_are(shape: Sequence[int]) -> OrderedDict[str, nn.Module]:
    """The same layers, or none where the images have 32 x 32 pixels."""
    return OrderedDict() if tuple(shape[1:]) == (SIDE, SIDE) else enlarged(shape)
