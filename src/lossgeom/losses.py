"""Losses as a sum over terms and the number of those terms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Terms = tuple[Tensor, Tensor | float]
TermsFunction = Callable[[Tensor, Any], Terms]


@dataclass(frozen=True)
class Loss:
    """A loss, before it is divided by the number of its terms.

    Attributes:
        name: what the loss is called in records.
        terms: ``(outputs, batch) -> (sum, count)``; the sum is a scalar tensor.
        average: whether the empirical loss is sum / count over all batches, or the sum itself.
        label_entropy: ``(outputs, batch) -> sum`` of the entropies of the labels, which is the
            least that the sum of terms can be; ``None`` where that is not known.
    """

    name: str
    terms: TermsFunction
    average: bool = True
    label_entropy: Callable[[Tensor, Any], float] | None = None


LossLike = str | nn.Module | TermsFunction | Loss


def as_loss(loss: LossLike, label_smoothing: float = 0.0) -> Loss:
    """Turn what a user calls a loss into sums and counts.

    Args:
        loss: ``"cross_entropy"`` (nats per target, torch's shapes: logits (B, C, ...) and either
            class indices, of which -100 is ignored, or class probabilities);
            ``"squared_error"`` (half the squared Euclidean norm per example);
            a torch criterion, which keeps torch's meaning exactly; or a function
            ``(outputs, batch) -> (sum, count)``.
        label_smoothing: of ``"cross_entropy"`` only, in [0, 1].

    Raises:
        TypeError: for a criterion whose terms cannot be counted, or anything else.
        ValueError: for an unknown name, or smoothing where it does not apply.

    >>> sum_, count = as_loss("squared_error").terms(torch.ones(3, 2), (None, torch.zeros(3, 2)))
    >>> sum_.item(), count
    (3.0, 3)
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"expected label_smoothing in [0, 1], got {label_smoothing}")
    if loss == "cross_entropy":
        return _cross_entropy(
            "cross_entropy", weight=None, ignore_index=-100, label_smoothing=label_smoothing
        )
    if label_smoothing:
        raise ValueError(
            "label_smoothing= goes with the loss 'cross_entropy'; a torch criterion takes it as "
            "nn.CrossEntropyLoss(label_smoothing=...)"
        )
    if isinstance(loss, Loss):
        return loss
    if loss == "squared_error":
        return Loss("squared_error", _squared_error)
    if isinstance(loss, nn.Module):
        return _criterion(loss)
    if isinstance(loss, type) or getattr(loss, "__module__", None) == F.__name__:
        raise TypeError(
            f"expected a criterion such as nn.MSELoss() or a function (outputs, batch) -> (sum, "
            f"count), got {getattr(loss, '__name__', loss)}, which is neither"
        )
    if callable(loss):
        return Loss(getattr(loss, "__name__", type(loss).__name__), loss)
    raise ValueError(
        "expected loss to be 'cross_entropy', 'squared_error', a torch criterion, or a function "
        f"(outputs, batch) -> (sum, count); got {loss!r}"
    )


def _squared_error(outputs: Tensor, batch: Any) -> Terms:
    targets = batch[1]
    _check_same_shape(outputs, targets, "squared_error")
    return 0.5 * (outputs - targets).square().sum(), len(outputs)


def _check_same_shape(outputs: Tensor, targets: Tensor, name: str) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{name} compares outputs and targets of one shape; got outputs "
            f"{tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        )


def _cross_entropy(
    name: str, weight: Tensor | None, ignore_index: int, label_smoothing: float
) -> Loss:
    frozen = None if weight is None else weight.detach().clone()

    def of(outputs: Tensor) -> Tensor | None:
        return None if frozen is None else frozen.clone().to(outputs)

    def terms(outputs: Tensor, batch: Any) -> Terms:
        targets = batch[1]
        _check_classes(outputs, targets)
        total = F.cross_entropy(
            outputs,
            targets,
            weight=of(outputs),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        return total, _target_count(outputs, targets, of(outputs), ignore_index)

    def label_entropy(outputs: Tensor, batch: Any) -> float:
        targets = batch[1]
        classes = outputs.shape[1]
        if targets.is_floating_point():
            smoothed = (1 - label_smoothing) * targets + label_smoothing / classes
            return float(torch.special.entr(smoothed).sum())
        others = label_smoothing / classes
        entropy = _entr(1 - label_smoothing + others) + (classes - 1) * _entr(others)
        return int((targets != ignore_index).sum()) * entropy

    return Loss(name, terms, label_entropy=label_entropy if weight is None else None)


def _check_classes(outputs: Tensor, targets: Tensor) -> None:
    """Check torch's layout: classes are the second dimension of the outputs."""
    probabilities = targets.is_floating_point() and targets.shape == outputs.shape
    indices = (
        targets.dtype == torch.int64
        and outputs.ndim > 1
        and targets.shape == (outputs.shape[0], *outputs.shape[2:])
    )
    if not (probabilities or indices):
        raise ValueError(
            "expected outputs (B, C, ...) and targets that are class indices (B, ...) in int64 or "
            f"probabilities (B, C, ...); got outputs {tuple(outputs.shape)} and targets "
            f"{tuple(targets.shape)} in {targets.dtype}. Outputs with the classes last have to be "
            "transposed, in the model or in a loss (outputs, batch) -> (sum, count)"
        )


def _entr(p: float) -> float:
    return -p * math.log(p) if p > 0 else 0.0


def _target_count(
    outputs: Tensor, targets: Tensor, weight: Tensor | None, ignore_index: int
) -> Tensor | float:
    """The number torch's cross-entropy and NLL divide a mean by."""
    if targets.is_floating_point():
        return outputs.numel() // outputs.shape[1]
    valid = targets != ignore_index
    return valid.sum() if weight is None else weight[targets[valid]].sum()


ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.SoftMarginLoss,
    nn.PoissonNLLLoss,
)


def _criterion(criterion: nn.Module) -> Loss:
    kind, name = type(criterion), type(criterion).__name__
    reduction = getattr(criterion, "reduction", None)
    supported = (nn.CrossEntropyLoss, nn.NLLLoss, *ELEMENTWISE)
    if kind not in supported or reduction not in ("mean", "sum"):
        raise TypeError(
            f"expected a torch criterion with reduction 'mean' or 'sum' out of "
            f"{', '.join(c.__name__ for c in supported)}; got {name} with reduction "
            f"{reduction!r}. Pass a function (outputs, batch) -> (sum, count) instead"
        )
    if kind is nn.CrossEntropyLoss and reduction == "mean":
        entropy = cast(nn.CrossEntropyLoss, criterion)
        return _cross_entropy(name, entropy.weight, entropy.ignore_index, entropy.label_smoothing)
    summed = copy.deepcopy(criterion)
    summed.reduction = "sum"  # type: ignore[assignment]

    def terms(outputs: Tensor, batch: Any) -> Terms:
        targets = batch[1]
        if kind in ELEMENTWISE:
            _check_same_shape(outputs, targets, name)
            count: Tensor | float = outputs.numel()
        else:
            likelihood = cast(nn.NLLLoss, summed)
            weight = None if likelihood.weight is None else likelihood.weight.to(outputs)
            count = _target_count(outputs, targets, weight, likelihood.ignore_index)
        return summed.to(outputs)(outputs, targets), count

    return Loss(name, terms, average=reduction == "mean")
