"""VGG networks with eleven layers of weights, for small images."""

from collections.abc import Sequence

import torch
from torch import nn

from lossgeom.lab.models._images import as_they_are
from lossgeom.messages.checks import check_number

WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
POOL_AFTER = (0, 1, 3, 5, 7)


def vgg11(
    outputs: int = 10,
    width: float = 1.0,
    seed: int = 0,
    shape: Sequence[int] = (3, 32, 32),
    batch_norm: bool = False,
) -> nn.Sequential:
    """Eight 3 x 3 convolutions, five of them followed by max-pooling, and one linear layer.

    Configuration A of the paper with its three linear layers replaced by one, as is usual for
    32 x 32 images; smaller ones, also flat ones, are enlarged as many times as fit and surrounded
    by zeros. Initialised as torch does.

    Args:
        outputs: classes.
        width: factor on the channels of every layer.
        seed: of the initialisation; the global generator is left as it is.
        shape: channels, height and width of an image.
        batch_norm: whether a batch normalisation goes before each ReLU.

    Raises:
        ValueError: for a width that is not positive, or images that are not square or too large.

    Source: Simonyan and Zisserman, Very deep convolutional networks (2015), table 1, column A.

    >>> vgg11(width=0.125)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    check_number("width", width, 0)
    channels = [shape[0], *(max(1, round(width * full)) for full in WIDTHS)]
    layers = as_they_are(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i in range(len(WIDTHS)):
            layers[f"conv{i + 1}"] = nn.Conv2d(channels[i], channels[i + 1], 3, padding=1)
            if batch_norm:
                layers[f"norm{i + 1}"] = nn.BatchNorm2d(channels[i + 1])
            layers[f"relu{i + 1}"] = nn.ReLU()
            if i in POOL_AFTER:
                layers[f"pool{i + 1}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels[-1], outputs)
    return nn.Sequential(layers)
