"""Mixup."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.training import Objective, Regularizer
from lossgeom.messages.checks import check_number


def mixup(strength: float) -> Regularizer:
    r"""Train on mixtures of pairs of a batch's examples.

    .. math:: \lambda\, \ell(f(\tilde x), y_i) + (1 - \lambda)\, \ell(f(\tilde x), y_j), \qquad
              \tilde x = \lambda x_i + (1 - \lambda) x_j

    with one :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` and one random order of partners for
    every batch. For a cross-entropy this is the loss of the mixed labels; for squared errors it is
    that but for a number that does not depend on the model.

    Args:
        strength: alpha.

    Raises:
        ValueError: unless it is positive.

    Source: Zhang et al., mixup: beyond empirical risk minimization (2018) (arXiv:1710.09412).

    >>> from lossgeom.losses import as_loss
    >>> data = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
    >>> plain = Objective(torch.nn.Identity(), as_loss("squared_error"), lambda _: data)
    >>> plain.at(0)[0].item(), 2 <= mixup(0.5)(plain).at(0)[0].item() <= 2.5
    (2.5, True)
    """
    check_number("strength", strength, 0)

    def augment(batch: Batch, numbers: np.random.Generator) -> Batch:
        share = float(numbers.beta(strength, strength))
        inputs, targets = batch.input, batch.targets
        partners = torch.from_numpy(numbers.permutation(len(inputs))).to(inputs.device)
        mixed = share * inputs + (1 - share) * inputs[partners]
        return Batch.of((mixed, [targets, targets[partners], share]), batch.index)

    def regularizer(objective: Objective) -> Objective:
        plain = objective.loss.terms

        def terms(outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
            *both, share = batch.targets
            (a, n), (b, m) = (
                plain(outputs, Batch.of((batch.input, targets), batch.index)) for targets in both
            )
            return share * a + (1 - share) * b, share * float(n) + (1 - share) * float(m)

        return replace(
            objective,
            loss=replace(objective.loss, name="mixup", terms=terms),
            augmentations=(*objective.augmentations, augment),
        )

    return regularizer
