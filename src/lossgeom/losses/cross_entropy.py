"""Cross-entropy with torch's meaning, in the layouts that models put out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.losses.graphs import Recomputed, by_backward_passes
from lossgeom.losses.likelihoods import Softmax
from lossgeom.losses.loss import Loss

INDICES = "Class indices are targets.long(), one for each row of outputs"
LARGE = 2**22  # outputs, from which on a loss is taken a piece at a time
PIECE = 2**21  # outputs in one of them, or one row
Layout = Literal["classes second", "classes last", "next token"]


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """Cross-entropy of logits.

    Attributes:
        weight: (C,) of the classes, or ``None``.
        ignore_index: the class index that is not a target.
        label_smoothing: in [0, 1].
        layout: outputs (B, C, ...) with targets (B, ...) are torch's own layout, "classes second";
            (B, ..., C) with (B, ...) is "classes last"; and "next token" is that with outputs and
            targets (B, T), where the output at t is compared with the target at t + 1.
    """

    weight: Tensor | None = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    layout: Layout = "classes second"

    def loss(self, name: str, average: bool = True) -> Loss:
        """The loss of this name, a mean or a sum over targets."""
        return Loss(
            name,
            self.terms,
            average,
            label_entropy=self.label_entropy if self.weight is None else None,
            likelihood=Softmax(1 if self.layout == "classes second" else -1, self.term_weights),
            needs_targets=True,
            known=True,
        )

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """The sum over targets, and what torch divides a mean by."""
        outputs, targets, weight = self._in_torch_layout(outputs, batch)
        total = self._summed(outputs, targets, weight)
        if targets.is_floating_point():
            return total, outputs.numel() // outputs.shape[1]
        valid = targets != self.ignore_index
        return total, valid.sum() if weight is None else weight[targets[valid]].sum()

    def _summed(self, outputs: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
        """Sum over targets, over rows of large outputs a piece at a time.

        Gradients and their derivatives then hold the outputs alone, in place of several such.
        """
        entropy = partial(
            F.cross_entropy,
            weight=weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        rows, C = outputs.movedim(1, -1), outputs.shape[1]
        full = outputs.dtype in (torch.float32, torch.float64)  # which autocast leaves as they are
        if outputs.numel() < LARGE or not (full and rows.is_contiguous() and by_backward_passes()):
            return entropy(outputs, targets)
        if targets.is_floating_point():
            targets = targets.movedim(1, -1).reshape(-1, C)
        else:
            targets = targets.reshape(-1)
        run: Any = partial(Recomputed.apply, lambda *piece: (entropy(*piece),))
        n = max(1, PIECE // C)
        pieces = zip(torch.split(rows.reshape(-1, C), n), torch.split(targets, n), strict=True)
        return torch.stack([run(*piece)[0] for piece in pieces]).sum()

    def label_entropy(self, outputs: Tensor, batch: Batch) -> float:
        """The summed entropy of the labels."""
        outputs, targets, _ = self._in_torch_layout(outputs, batch)
        classes, smoothing = outputs.shape[1], self.label_smoothing
        if targets.is_floating_point():
            smoothed = (1 - smoothing) * targets + smoothing / classes
            return float(torch.special.entr(smoothed).sum())
        others = smoothing / classes
        entropy = _entr(1 - smoothing + others) + (classes - 1) * _entr(others)
        return int((targets != self.ignore_index).sum()) * entropy

    def term_weights(self, outputs: Tensor, batch: Batch) -> Tensor:
        r"""The w in the Hessian :math:`w (\mathrm{diag}(p) - p p^\top)` of each target's term.

        .. math:: w = \sum_c w_c q_c

        with the class weights and the (smoothed) label q; 0 for an ignored target.
        """
        outputs, targets, weight = self._in_torch_layout(outputs, batch)
        C, smoothing = outputs.shape[1], self.label_smoothing
        weight = outputs.new_ones(C) if weight is None else weight
        everywhere = smoothing / C * weight.sum()
        if targets.is_floating_point():
            return (1 - smoothing) * targets.movedim(1, -1) @ weight + everywhere
        valid = targets != self.ignore_index
        of_target = weight[torch.where(valid, targets, 0)]
        return torch.where(valid, (1 - smoothing) * of_target + everywhere, 0.0)

    def _in_torch_layout(
        self, outputs: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Outputs, targets and the weights of classes as torch has them, if they fit."""
        targets: Tensor = batch.targets
        if self.layout == "next token":
            if targets.ndim != 2 or targets.is_floating_point():
                raise ValueError(
                    "next_token_cross_entropy compares outputs (B, T, C) with targets (B, T) in "
                    f"int64; got targets {tuple(targets.shape)} in {targets.dtype}"
                )
            last = targets.new_full((len(targets), 1), self.ignore_index)
            targets = torch.cat([targets[:, 1:], last], dim=1)
        if self.layout != "classes second":
            outputs = outputs.movedim(-1, 1)
            if targets.is_floating_point():
                targets = targets.movedim(-1, 1)
        floating, C = targets.is_floating_point(), outputs.shape[1] if outputs.ndim > 1 else 0
        wanted = outputs.shape if floating else (*outputs.shape[:1], *outputs.shape[2:])
        if not C or targets.shape != wanted or not (floating or targets.dtype == torch.int64):
            raise _misfit(outputs, targets, self.layout)
        low, high = map(int, targets.aminmax()) if targets.numel() and not floating else (0, 0)
        if low < 0 or high >= C:  # on a GPU, torch cannot go on after a class index that is none
            counted = targets[targets != self.ignore_index]
            if strays := sorted(set(counted[(counted < 0) | (counted >= C)].tolist())):
                low, high = map(int, counted.aminmax())
                raise self._out_of_range(C, strays, low, high, batch.index)
        return outputs, targets, None if self.weight is None else self.weight.clone().to(outputs)

    def _out_of_range(
        self, C: int, strays: list[int], low: int, high: int, index: int
    ) -> ValueError:
        remedies = []
        if low > 0 and high - low < C:
            remedies.append(f"Subtract {low} from labels that start at {low}")
        if len(strays) == 1:  # which may stand for what has no class
            ignored = (
                f"nn.CrossEntropyLoss(ignore_index={strays[0]})"
                if self.layout == "classes second"
                else f"putting {self.ignore_index} in its place"
            )
            remedies.append(f"What has no class is left out by {ignored}")
        remedies = remedies or [f"{high + 1} classes need as many outputs"]
        return ValueError(
            f"expected class indices from 0 to {C - 1} for {C} outputs, or {self.ignore_index} for "
            f"what does not count; the targets of batch {index} go from {low} to {high}. "
            f"{'. '.join(remedies)}"
        )


def _misfit(outputs: Tensor, targets: Tensor, layout: Layout) -> ValueError:
    """Say what outputs and targets were expected, in the layout that was asked for."""
    second = layout == "classes second"
    expected = "(B, C, ...)" if second else "(B, ..., C)"
    hint = (
        "Outputs with the classes last go with 'token_cross_entropy', or with "
        "'next_token_cross_entropy' for language models"
        if second
        else "Outputs with the classes second go with 'cross_entropy'"
    )
    shape = tuple((outputs if second else outputs.movedim(1, -1)).shape)
    indices = INDICES
    if outputs.ndim == targets.ndim == 2 and targets.shape == outputs.shape:
        indices = "Of one-hot rows, class indices are targets.argmax(1)"
    elif targets.ndim == 2 and targets.shape == (len(outputs), 1):
        indices = "Class indices are targets.squeeze(1).long(), one for each row of outputs"
    return ValueError(
        f"expected outputs {expected} and targets that are class indices (B, ...) in int64 or "
        f"probabilities {expected}; got outputs {shape} and targets {tuple(targets.shape)} in "
        f"{targets.dtype}. {hint if outputs.ndim > 2 else indices}"
    )


def _entr(p: float) -> float:
    return -p * math.log(p) if p > 0 else 0.0
