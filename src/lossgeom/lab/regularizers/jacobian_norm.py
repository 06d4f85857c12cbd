"""A penalty on the input-output Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.regularizers._penalty import add_multiple
from lossgeom.lab.training import Objective, Regularizer
from lossgeom.lab.training.objective import OF_OUTPUTS
from lossgeom.messages.checks import check_whole


@dataclass(frozen=True)
class JacobianNorm:
    r"""The mean over examples of :math:`\|J_i\|_F^2`, of outputs in inputs.

    With probes, :math:`\|J_i^\top u\|^2` for random signs u, other ones in every step, whose mean
    is that.

    Attributes:
        probes: how many; ``None`` for one product with each output, which is exact.

    Raises:
        ValueError: for fewer than one.
    """

    probes: int | None = 4

    def __post_init__(self) -> None:
        if self.probes is not None:
            check_whole(1, probes=self.probes)

    def __call__(self, objective: Objective, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Sum and count of a batch."""
        inputs = batch.input.detach().clone().requires_grad_()
        outputs = objective.model(inputs).flatten(1)
        total = outputs.new_zeros(())
        for probe in self._directions(objective, outputs, (OF_OUTPUTS, step, batch.index)):
            (row,) = torch.autograd.grad(outputs, inputs, probe, create_graph=True)
            total = total + row.square().sum()
        return total / (self.probes or 1), float(len(inputs))

    def _directions(
        self, objective: Objective, outputs: Tensor, place: tuple[int, ...]
    ) -> list[Tensor]:
        if self.probes is None:
            return [axis.expand_as(outputs) for axis in torch.eye(outputs.shape[1]).to(outputs)]
        return [objective.probe(outputs, *place, k) for k in range(self.probes)]


def jacobian_norm(strength: float, probes: int | None = 4) -> Regularizer:
    r"""Add :math:`s\, \mathrm{mean}_i \|J_i\|_F^2`, with J the Jacobian of outputs in inputs.

    Cost: a second derivative for each probe.

    Args:
        strength: s.
        probes: of random signs; ``None`` for the exact norm, by one for each output.

    Raises:
        ValueError: if it is negative, or there are fewer than one.

    Source: Hoffman, Roberts and Yaida, Robust learning with Jacobian regularization (2019)
    (arXiv:1908.02729).

    >>> from lossgeom.losses import as_loss
    >>> data = [(torch.zeros(1, 2), torch.zeros(1, 2))]
    >>> plain = Objective(torch.nn.Identity(), as_loss("squared_error"), lambda _: data)
    >>> jacobian_norm(0.5, probes=None)(plain).at(0)[0].item()
    1.0
    """
    return add_multiple(strength, JacobianNorm(probes))
