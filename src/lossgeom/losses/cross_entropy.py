"""Cross-entropy with torch's meaning, in the layouts that models put out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lossgeom.batches import Batch

INDICES = "Class indices are targets.long(), one for each row of outputs"
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

    @property
    def class_dim(self) -> int:
        """Where the classes are in the outputs."""
        return 1 if self.layout == "classes second" else -1

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """The sum over targets, and what torch divides a mean by."""
        outputs, targets = self._in_torch_layout(outputs, batch)
        total = F.cross_entropy(
            outputs,
            targets,
            weight=self._weight_for(outputs),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total, target_count(outputs, targets, self._weight_for(outputs), self.ignore_index)

    def label_entropy(self, outputs: Tensor, batch: Batch) -> float:
        """The summed entropy of the labels."""
        outputs, targets = self._in_torch_layout(outputs, batch)
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
        outputs, targets = self._in_torch_layout(outputs, batch)
        C, smoothing = outputs.shape[1], self.label_smoothing
        weight = self._weight_for(outputs)
        weight = outputs.new_ones(C) if weight is None else weight
        everywhere = smoothing / C * weight.sum()
        if targets.is_floating_point():
            return (1 - smoothing) * targets.movedim(1, -1) @ weight + everywhere
        valid = targets != self.ignore_index
        of_target = weight[torch.where(valid, targets, 0)]
        return torch.where(valid, (1 - smoothing) * of_target + everywhere, 0.0)

    def _weight_for(self, outputs: Tensor) -> Tensor | None:
        return None if self.weight is None else self.weight.clone().to(outputs)

    def _in_torch_layout(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
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
        _check_classes(outputs, targets, self.layout)
        if not targets.is_floating_point():
            named = self.layout == "classes second"
            _check_range(outputs.shape[1], targets, self.ignore_index, batch.index, named)
        return outputs, targets


def target_count(
    outputs: Tensor, targets: Tensor, weight: Tensor | None, ignore_index: int
) -> Tensor | float:
    """The number torch's cross-entropy and NLL divide a mean by."""
    if targets.is_floating_point():
        return outputs.numel() // outputs.shape[1]
    valid = targets != ignore_index
    return valid.sum() if weight is None else weight[targets[valid]].sum()


def _check_classes(outputs: Tensor, targets: Tensor, layout: Layout) -> None:
    """Check torch's layout: classes are the second dimension of the outputs."""
    probabilities = targets.is_floating_point() and targets.shape == outputs.shape
    indices = targets.dtype == torch.int64 and targets.shape == (
        outputs.shape[0],
        *outputs.shape[2:],
    )
    if outputs.ndim < 2 or not (probabilities or indices):
        expected = "(B, C, ...)" if layout == "classes second" else "(B, ..., C)"
        hint = (
            "Outputs with the classes last go with 'token_cross_entropy', or with "
            "'next_token_cross_entropy' for language models"
            if layout == "classes second"
            else "Outputs with the classes second go with 'cross_entropy'"
        )
        back = (0, *range(2, outputs.ndim), 1) if layout != "classes second" else None
        shape = tuple(outputs.permute(back).shape if back else outputs.shape)
        raise ValueError(
            f"expected outputs {expected} and targets that are class indices (B, ...) in int64 or "
            f"probabilities {expected}; got outputs {shape} and targets {tuple(targets.shape)} in "
            f"{targets.dtype}. {hint if outputs.ndim > 2 else INDICES}"
        )


def _check_range(C: int, targets: Tensor, ignored: int, index: int, named: bool) -> None:
    """Check that class indices are some; on a GPU, torch cannot go on after one that is none."""
    counted = targets[targets != ignored]
    if not counted.numel():
        return
    low, high = (int(end) for end in counted.aminmax())
    if low < 0 or high >= C:
        say = f"nn.CrossEntropyLoss(ignore_index={high if high >= C else low})"
        raise ValueError(
            f"expected class indices from 0 to {C - 1} for {C} outputs, or {ignored} for what does "
            f"not count; the targets of batch {index} go from {low} to {high}. Shift labels that "
            "start at 1; what has no class is left out by "
            + (say if named else f"putting {ignored} in its place")
        )


def _entr(p: float) -> float:
    return -p * math.log(p) if p > 0 else 0.0
