"""Residual networks with fourteen layers of weights, for small images."""

from collections.abc import Sequence

from torch import nn

from lossgeom.lab.models.resnet18 import residual_network


def resnet14(
    outputs: int = 10,
    width: int = 16,
    seed: int = 0,
    shape: Sequence[int] = (3, 32, 32),
    batch_norm: bool = True,
) -> nn.Sequential:
    """A 3 x 3 convolution, three stages of two residual blocks each, and one linear layer.

    The network of He et al. for CIFAR-10 with 6 m + 2 layers, for m = 2, as Ma and Ying train it:
    each stage after the first halves the image and doubles the channels, and carries every second
    pixel of its input around, with channels of zeros after theirs (option A). The average over the
    image goes into the linear layer. Smaller images than 32 x 32, also flat ones, are enlarged as
    many times as fit and surrounded by zeros. Initialised as torch does.

    Args:
        outputs: classes.
        width: channels of the first stage.
        seed: of the initialisation; the global generator is left as it is.
        shape: channels, height and width of an image.
        batch_norm: whether convolutions are followed by batch normalisation, or have biases.

    Raises:
        ValueError: for a width below 1, or images that are not square or too large.

    Source: He et al., Deep residual learning for image recognition, arXiv:1512.03385, section 4.2;
    Ma and Ying, arXiv:2105.13462.

    >>> import torch
    >>> resnet14(width=4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return residual_network(
        shape, outputs, width, seed, stages=3, batch_norm=batch_norm, convolved=False
    )
