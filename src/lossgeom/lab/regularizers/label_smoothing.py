"""Label smoothing."""

from __future__ import annotations

from dataclasses import replace

from lossgeom.lab.training import Objective, Regularizer
from lossgeom.losses import as_loss


def label_smoothing(strength: float) -> Regularizer:
    r"""Mix the labels with uniform ones: :math:`(1 - s) y + s / C`.

    It goes before what else changes the loss, such as mixup, and with the cross-entropies that have
    a name. Measure with the loss without it, or with it, as ``as_loss(name, s)``.

    Args:
        strength: s, from 0 to 1.

    Raises:
        ValueError: for another loss, when it is given one, or another s.

    Source: Szegedy et al., Rethinking the inception architecture (2016), section 7.

    >>> import torch
    >>> model, data = torch.nn.Identity(), [(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))]
    >>> sharp = Objective(model, as_loss("cross_entropy"), lambda _: data)
    >>> round((label_smoothing(0.2)(sharp).at(0)[0] - sharp.at(0)[0]).item(), 3)  # 3 s / 2
    0.3
    """

    def regularizer(objective: Objective) -> Objective:
        return replace(objective, loss=as_loss(objective.loss.name, strength))

    return regularizer
