"""How a model and its loss are evaluated on a batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.batches import Batch, tensors_of
from lossgeom.losses import Loss, checked_terms
from lossgeom.problem.double import InDouble
from lossgeom.problem.forward import Forward, batch_statistics_explained, call_model
from lossgeom.problem.network import Mode, Network


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model and a loss, and all that decides what they are on a batch, besides theta.

    Attributes:
        network: the copy of the model.
        criterion: the loss.
        mode: of the modules.
        forward: calls the model, if that is not done with the inputs of a batch.
        seed: fixes what the model draws at random.
        autocast: a type to run both in.
        watched: whether draws of random numbers are looked for.
        in_double: how the model is run in float64, shared by all that are at the same parameters.
        unsqueezed: whether a dimension is put back, by shapes of batches.
    """

    network: Network
    criterion: Loss
    mode: Mode
    forward: Forward | None = None
    seed: int | None = None
    autocast: torch.dtype | None = None
    watched: bool = True
    in_double: InDouble = field(default_factory=InDouble)
    unsqueezed: dict[Hashable, bool] = field(default_factory=dict)

    @property
    def batch_statistics(self) -> bool:
        """Whether BatchNorm uses those of each batch."""
        return self.mode == "train" and self.network.has_batch_statistics

    def outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out at theta, also where it needs gradients for that."""
        try:
            return self.plain_outputs(theta, batch)
        except RuntimeError as error:
            if torch.is_grad_enabled() or "does not require grad" not in str(error):
                raise
        with torch.enable_grad():  # for a model that differentiates in its forward pass
            return self.plain_outputs(theta, batch).detach()

    def plain_outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out, with a dimension of examples also where there is only one."""
        outputs = self._called(theta, batch)
        if (outputs.ndim == 0 or len(outputs) != 1) and len(batch) == 1 and _rows_in(batch.targets):
            kind = tuple(tensor.shape for tensor in tensors_of(batch.raw))
            if kind not in self.unsqueezed:
                self.unsqueezed[kind] = self._squeezes(theta.detach(), outputs.shape, batch)
            outputs = outputs[None] if self.unsqueezed[kind] else outputs
        return outputs.to(theta.dtype)

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss of outputs and the number of terms, both checked."""
        with self._rounding():
            return checked_terms(self.criterion, outputs, batch)

    def _called(self, theta: Tensor, batch: Batch) -> Tensor:
        seed = None if self.seed is None else (self.seed, batch.index)
        call = self._call(theta, batch)
        with self._rounding(), batch_statistics_explained(batch):
            outputs: Tensor = self.network(theta, call, self.mode, seed, watched=self.watched)
        return outputs

    def _call(self, theta: Tensor, batch: Batch) -> Callable[[nn.Module], Any]:
        if theta.dtype != torch.float64:
            return partial(call_model, batch=batch.copied(), forward=self.forward)
        copies = iter([batch.copied() for _ in range(self.in_double.calls)])

        def call(module: nn.Module) -> Tensor:
            return self.in_double(lambda: call_model(module, next(copies), self.forward))

        return call

    @torch.no_grad()
    def _squeezes(self, theta: Tensor, alone: torch.Size, batch: Batch) -> bool:
        """Whether the dimension of examples is lost where there is only one, as by squeeze()."""
        try:
            twice = self._called(theta, batch.each_row(lambda row: torch.cat([row, row])))
        except Exception:  # of what does not run on other batches, and has no such dimension
            return False
        return twice.shape == (2, *alone)

    @contextmanager
    def _rounding(self) -> Iterator[None]:
        if self.autocast is None:
            yield
        else:
            device = self.network.theta.device.type
            with torch.autocast(device, self.autocast, cache_enabled=False):
                yield


def _rows_in(targets: Any) -> bool:
    """Whether targets, if there are any, have a dimension of examples for one of them."""
    return not isinstance(targets, Tensor) or targets.shape[:1] == (1,)
