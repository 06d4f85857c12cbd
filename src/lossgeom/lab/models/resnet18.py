"""Residual networks with eighteen layers of weights, for small images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.lab.models._images import as_they_are
from lossgeom.messages.checks import check_at_least

BLOCKS_PER_STAGE = 2


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is carried.

    Each is followed by batch normalisation, or has biases. Where the shape changes, the input is
    carried by a 1 x 1 convolution with the same stride, the paper's option B; or every so many
    pixels are, with channels of zeros after theirs, its option A.

    >>> BasicBlock(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        batch_norm: bool = True,
        convolved: bool = True,
    ) -> None:
        super().__init__()
        bias = not batch_norm
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
        self.norm1 = _norm(outputs, batch_norm)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.norm2 = _norm(outputs, batch_norm)
        self.shortcut = nn.Sequential()
        changes = stride != 1 or inputs != outputs
        if changes and convolved:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=bias))
            self.shortcut.append(_norm(outputs, batch_norm))
        elif changes:
            self.shortcut.append(nn.AvgPool2d(1, stride))
            self.shortcut.append(nn.ConstantPad3d((0, 0, 0, 0, 0, outputs - inputs), 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18(
    outputs: int = 10,
    width: int = 64,
    seed: int = 0,
    shape: Sequence[int] = (3, 32, 32),
    batch_norm: bool = True,
) -> nn.Sequential:
    """A 3 x 3 convolution, four stages of two residual blocks each, and one linear layer.

    The paper's network of 18 layers with its stem (a 7 x 7 convolution with stride 2 and
    max-pooling) replaced by a 3 x 3 convolution with stride 1, as is usual for 32 x 32 images;
    smaller ones, also flat ones, are enlarged as many times as fit and surrounded by zeros.
    Each stage after the first halves the image and doubles the channels; its input is carried
    around by a 1 x 1 convolution. The average over the image goes into the linear layer.
    Initialised as torch does.

    Args:
        outputs: classes.
        width: channels of the first stage.
        seed: of the initialisation; the global generator is left as it is.
        shape: channels, height and width of an image.
        batch_norm: whether convolutions are followed by batch normalisation, or have biases.

    Raises:
        ValueError: for a width below 1, or images that are not square or too large.

    Source: He et al., Deep residual learning for image recognition, arXiv:1512.03385, table 1.

    >>> resnet18(width=4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return residual_network(
        shape, outputs, width, seed, stages=4, batch_norm=batch_norm, convolved=True
    )


def residual_network(
    shape: Sequence[int],
    outputs: int,
    width: int,
    seed: int,
    stages: int,
    batch_norm: bool,
    convolved: bool,
) -> nn.Sequential:
    """A convolution, stages of two blocks, and a linear layer of the average over the image.

    Each stage after the first halves the image and doubles the channels.
    """
    check_at_least(1, width=width)
    layers = as_they_are(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers["conv"] = nn.Conv2d(shape[0], width, 3, padding=1, bias=not batch_norm)
        layers["norm"] = _norm(width, batch_norm)
        layers["relu"] = nn.ReLU()
        channels = width
        for stage in range(stages):
            for block in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and block == 0 else 1
                sizes = channels, width * 2**stage, stride
                name = f"stage{stage + 1}_block{block + 1}"
                layers[name] = BasicBlock(*sizes, batch_norm, convolved)
                channels = width * 2**stage
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(channels, outputs)
    return nn.Sequential(layers)


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
