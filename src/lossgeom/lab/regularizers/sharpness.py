"""A penalty on sharpness."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.regularizers._penalty import add_multiple
from lossgeom.lab.regularizers._products import hessian_product, inner
from lossgeom.lab.training import Objective, Regularizer
from lossgeom.lab.training.objective import PER_STEP

FIRST_STEPS = 50  # of the power method, on the first batch


class WarmSharpness:
    r"""The curvature :math:`v^\top H v` of the loss along a vector that follows the sharpest one.

    In every step :math:`v \leftarrow H v / \|H v\|`, with the product that the step before has
    computed in passing; the first follows 50 such steps on the first batch. The power method finds
    the eigenvalue that is largest in size, which is the sharpness unless a negative one is larger.
    As a lower estimate it lags behind a sharpness that turns quickly.

    Its state goes into checkpoints, as that of an optimiser does, by :meth:`state_dict`.
    """

    def __init__(self) -> None:
        self._product: list[Tensor] = []
        self._vector: list[Tensor] = []

    def __call__(self, objective: Objective, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Sum and count of a batch."""
        if batch.index == 0:
            self._begin(objective, batch, step)
        form, product, count = hessian_product(objective, batch, self._vector)
        self._product = [a + b for a, b in zip(self._product, product, strict=True)]
        return form, count

    def _begin(self, objective: Objective, batch: Batch, step: int) -> None:
        if not self._product:
            parts = enumerate(objective.parameters)
            self._product = [objective.probe(p, PER_STEP, step, place) for place, p in parts]
            for _ in range(FIRST_STEPS):
                _, self._product, _ = hessian_product(objective, batch, _unit(self._product))
        here = zip(self._product, objective.parameters, strict=True)  # a checkpoint's may be on CPU
        self._vector = _unit([part.to(parameter) for part, parameter in here])
        self._product = [torch.zeros_like(part) for part in self._vector]

    def state_dict(self) -> dict[str, Tensor]:
        """What the next step starts from."""
        return {str(place): part for place, part in enumerate(self._product)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self._product = [state[name] for name in sorted(state, key=int)]


def sharpness(strength: float, quantity: WarmSharpness | None = None) -> Regularizer:
    r"""Add :math:`s\, v^\top H v`, with v from one warm step of the power method in every step.

    Cost: a third derivative, about six times that of a gradient.

    Args:
        strength: s.
        quantity: what holds v from step to step; make one where it has to go into checkpoints.

    Raises:
        ValueError: if it is negative.

    >>> from lossgeom.losses import as_loss
    >>> model, data = torch.nn.Linear(1, 1), [(torch.tensor([[2.0]]), torch.zeros(1, 1))]
    >>> plain = Objective(model, as_loss("squared_error"), lambda _: data)
    >>> round((sharpness(1.0)(plain).at(0)[0] - plain.at(0)[0]).item(), 4)
    5.0
    """
    return add_multiple(strength, quantity or WarmSharpness())


def _unit(parts: list[Tensor]) -> list[Tensor]:
    length = inner(parts, parts).sqrt()
    return [part / length for part in parts]
