"""A case's outputs as a function of its inputs, whose Jacobians are measured, in eval mode."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.cases import INITIAL, Case
from lossgeom.lab.models.gpt import GPT

WIDE = 1_000


@dataclass(frozen=True, eq=False)
class InputOutput:
    """Some outputs of a case; those of tokens are differentiated in their embeddings.

    Attributes:
        case: the model and its data.
        last: whether only the outputs at the last position of a sequence are taken.
    """

    case: Case
    last: bool = False

    def copy(self) -> InputOutput:
        """Copy the model."""
        return replace(self, case=self.case.copy())

    def plain(self, dtype: torch.dtype | None = None) -> InputOutput:
        """The same for plain autograd, which is not to differentiate in the parameters."""
        case = self.case.copy(dtype)
        case.model.eval().requires_grad_(False)
        return replace(self, case=case)

    def inputs(self) -> list[Tensor]:
        """The inputs of every batch, or what stands for them, to differentiate in."""
        model = self.case.model
        embed = model.tokens if isinstance(model, GPT) else nn.Identity()
        return [embed(x).detach() for x, _ in self.case.batches]

    def outputs(self, x: Tensor) -> Tensor:
        """Map inputs (B, ...) to outputs (B, C)."""
        model = self.case.model
        found: Tensor = model.embedded(x) if isinstance(model, GPT) else model(x)
        return (found[:, -1] if self.last else found).flatten(1)

    def one(self, x: Tensor) -> Tensor:
        """The outputs of one example, (C,), as ``torch.func`` wants them."""
        return self.outputs(x[None])[0]


def wide(case: Case) -> InputOutput:
    """Give a case 1,000 outputs: those of the last token, or of a fresh head."""
    case = case.copy()
    x, y = case.batches[0]
    case = replace(case, batches=[(x[: case.few], y[: case.few])])
    if isinstance(case.model, GPT):
        return InputOutput(case, last=True)
    if not isinstance(case.model, nn.Sequential) or not isinstance(case.model[-1], nn.Linear):
        raise TypeError(f"expected {case.name} to end in a linear layer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL)
        case.model[-1] = nn.Linear(case.model[-1].in_features, WIDE)
    return InputOutput(case)
