"""VGG networks with eleven layers of weights, for small images."""

from collections import OrderedDict

import torch
from torch import nn

WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
POOL_AFTER = (0, 1, 3, 5, 7)


def vgg11(outputs: int = 10, width: float = 1.0, seed: int = 0) -> nn.Sequential:
    """Eight 3 x 3 convolutions, five of them followed by max-pooling, and one linear layer.

    Configuration A of the paper with its three linear layers replaced by one, as is usual for
    32 x 32 images; no batch normalisation. Initialised as torch does.

    Args:
        outputs: classes.
        width: factor on the channels of every layer.
        seed: of the initialisation; the global generator is left as it is.

    Source: Simonyan and Zisserman, Very deep convolutional networks (2015), table 1, column A.

    >>> vgg11(width=0.125)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    channels = [3, *(max(1, round(width * full)) for full in WIDTHS)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i in range(len(WIDTHS)):
            layers[f"conv{i + 1}"] = nn.Conv2d(channels[i], channels[i + 1], 3, padding=1)
            layers[f"relu{i + 1}"] = nn.ReLU()
            if i in POOL_AFTER:
                layers[f"pool{i + 1}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels[-1], outputs)
    return nn.Sequential(layers)
