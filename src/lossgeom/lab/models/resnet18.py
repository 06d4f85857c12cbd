"""Residual networks with eighteen layers of weights, for small images."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.checks import check_at_least

BLOCKS_PER_STAGE = 2
STAGES = 4


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is carried.

    Each is followed by batch normalisation. Where the shape changes, the input is carried by a
    1 x 1 convolution with the same stride, the paper's option B.

    >>> BasicBlock(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18(outputs: int = 10, width: int = 64, seed: int = 0) -> nn.Sequential:
    """A 3 x 3 convolution, four stages of two residual blocks each, and one linear layer.

    The paper's network of 18 layers with its stem (a 7 x 7 convolution with stride 2 and
    max-pooling) replaced by a 3 x 3 convolution with stride 1, as is usual for 32 x 32 images.
    Each stage after the first halves the image and doubles the channels. The average over the image
    goes into the linear layer. Initialised as torch does.

    Args:
        outputs: classes.
        width: channels of the first stage.
        seed: of the initialisation; the global generator is left as it is.

    Raises:
        ValueError: for a width below 1.

    Source: He et al., Deep residual learning for image recognition, arXiv:1512.03385, table 1.

    >>> resnet18(width=4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    check_at_least(1, width=width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers["conv"] = nn.Conv2d(3, width, 3, padding=1, bias=False)
        layers["norm"] = nn.BatchNorm2d(width)
        layers["relu"] = nn.ReLU()
        channels = width
        for stage in range(STAGES):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                layers[name] = BasicBlock(channels, width * 2**stage, stride)
                channels = width * 2**stage
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels, outputs)
    return nn.Sequential(layers)
