"""Labels that nothing can be learned about."""

from typing import Any

import torch

from lossgeom.lab.datasets._dataset import TEST, Dataset, Options, drawn_points
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_whole


def random_labels(
    examples: int = 500, seed: int = 0, inputs: int = 32, labels: int = 10, **options: Any
) -> Dataset:
    """Normal numbers with labels that are independent of them, to be memorised.

    What a model learns of these cannot generalise: its test error is that of chance. For images
    with random labels, load these with ``label_noise=1``.

    Scaling: standard normal numbers, less their means over the training examples. Inputs are
    (N, inputs) in float32, targets 0 to ``labels`` - 1; there are 1,000 more to test on.

    Args:
        examples: to train on.
        seed: of all that is drawn.
        inputs: numbers of an example.
        labels: classes, equally likely.
        **options: fields of :class:`Options`.

    Raises:
        ValueError: for no examples, no inputs, or fewer than two classes.

    Source: Zhang et al., Understanding deep learning requires rethinking generalization,
    arXiv:1611.03530, for random labels as a control.

    >>> random_labels(examples=100).train[0].shape
    torch.Size([100, 32])
    """
    check_whole(1, inputs=inputs)
    check_whole(2, labels=labels)
    generator, n = random_numbers(seed), max(examples, 0) + TEST
    x = torch.randn(n, inputs, generator=generator)
    y = torch.randint(labels, (n,), generator=generator)
    return drawn_points((x, y), labels).chosen(examples, seed, Options(**options))
