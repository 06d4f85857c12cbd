"""A penalty on the trace of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.regularizers._penalty import add_multiple
from lossgeom.lab.regularizers._products import hessian_product
from lossgeom.lab.training import Objective, Regularizer
from lossgeom.lab.training.objective import PER_STEP
from lossgeom.messages.checks import check_whole


@dataclass(frozen=True)
class HessianTrace:
    r"""The trace of the Hessian of the loss, estimated by :math:`v^\top H v`.

    Attributes:
        probes: vectors v of random signs, other ones in every step; the estimate is their mean.

    Raises:
        ValueError: for fewer than one.
    """

    probes: int = 1

    def __post_init__(self) -> None:
        check_whole(1, probes=self.probes)

    def __call__(self, objective: Objective, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Sum and count of a batch."""
        total, count = Tensor(), 0.0
        for k in range(self.probes):
            parts = enumerate(objective.parameters)
            vector = [objective.probe(p, PER_STEP, step, k, place) for place, p in parts]
            form, _, count = hessian_product(objective, batch, vector)
            total = total + form if k else form
        return total / self.probes, count


def hessian_trace(strength: float, probes: int = 1) -> Regularizer:
    r"""Add :math:`s\, \mathrm{tr} \nabla^2 L(\theta)`, of the loss with what changes it.

    Cost: a third derivative for each probe, about six times that of a gradient. The trace of a
    network may be negative, and without bound.

    Args:
        strength: s.
        probes: vectors of random signs in each step.

    Raises:
        ValueError: if it is negative, or there are fewer than one.

    Source: Hutchinson (1990) for the estimate; as a penalty, Dherin et al., Why neural networks
    find simple solutions (2022), compare it with others (arXiv:2209.13083).

    >>> import torch
    >>> from lossgeom.losses import as_loss
    >>> model, data = torch.nn.Linear(1, 1), [(torch.tensor([[2.0]]), torch.zeros(1, 1))]
    >>> plain = Objective(model, as_loss("squared_error"), lambda _: data)
    >>> trace, _ = plain.mean(HessianTrace(probes=100), step=0)
    >>> bool(4 < trace < 6)  # 2^2 + 1
    True
    """
    return add_multiple(strength, HessianTrace(probes))
