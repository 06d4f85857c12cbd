"""Convolutional networks with five layers of weights, for small images."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from lossgeom.lab.models._images import enlarged


def lenet5(shape: Sequence[int] = (1, 28, 28), outputs: int = 10, seed: int = 0) -> nn.Sequential:
    """Two 5 x 5 convolutions, each followed by max-pooling, and three linear layers.

    The layers and widths are the paper's, with its trainable subsampling and sigmoids replaced by
    max-pooling and ReLU, and its sparse connections by full ones, as is usual. The convolutions get
    images of 32 x 32 pixels. A smaller one is enlarged as many times as fit, each pixel to a
    square, and then surrounded by zeros: 8 x 8 pixels become four times as large, and 28 x 28 get a
    border of two. A flat input (B, C H W) is an image, too. Initialised as torch does.

    Args:
        shape: channels, height and width of an image.
        outputs: classes.
        seed: of the initialisation; the global generator is left as it is.

    Raises:
        ValueError: for images that are not square or have more than 32 x 32 pixels.

    Source: LeCun et al., Gradient-based learning applied to document recognition (1998), figure 2.

    >>> lenet5((1, 8, 8))(torch.zeros(2, 64)).shape
    torch.Size([2, 10])
    """
    first = enlarged(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict[str, nn.Module](
            **first,
            conv1=nn.Conv2d(shape[0], 6, 5), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(), fc1=nn.Linear(16 * 5 * 5, 120), relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84), relu4=nn.ReLU(), fc3=nn.Linear(84, outputs),
        )  # fmt: skip
    return nn.Sequential(layers)
