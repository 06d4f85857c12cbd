"""Losses as a sum over terms and the number of those terms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.cross_entropy import CrossEntropy, Layout, target_count
from lossgeom.likelihoods import Bernoulli, Gaussian, Likelihood, Softmax

Terms = tuple[Tensor, Tensor | float]
TermsFunction = Callable[[Tensor, Any], Terms]

CROSS_ENTROPIES: dict[str, Layout] = {
    "cross_entropy": "classes second",
    "token_cross_entropy": "classes last",
    "next_token_cross_entropy": "next token",
}


@dataclass(frozen=True)
class Loss:
    """A loss, before it is divided by the number of its terms.

    Attributes:
        name: what the loss is called in records.
        terms: ``(outputs, batch) -> (sum, count)`` with a :class:`lossgeom.batches.Batch`; the sum
            is a scalar tensor.
        average: whether the empirical loss is sum / count over all batches, or the sum itself.
        label_entropy: ``(outputs, batch) -> sum`` of the entropies of the labels, which is the
            least that the sum of terms can be; ``None`` where that is not known.
        likelihood: the distribution whose negative logarithm the terms are, up to weights;
            ``None`` where there is none or it is not known.
        needs_targets: whether batches without targets are an error.
        known: whether it is known that the terms are such a sum and count; it is tried otherwise.
    """

    name: str
    terms: Callable[[Tensor, Batch], Terms]
    average: bool = True
    label_entropy: Callable[[Tensor, Batch], float] | None = None
    likelihood: Likelihood | None = None
    needs_targets: bool = False
    known: bool = False


class NonFiniteError(ArithmeticError):
    """The model or its loss is NaN or infinite at this point."""


LossLike = str | nn.Module | TermsFunction | Loss


def as_loss(loss: LossLike, label_smoothing: float = 0.0) -> Loss:
    """Turn what a user calls a loss into sums and counts.

    Args:
        loss: ``"cross_entropy"`` (nats per target, torch's shapes: logits (B, C, ...) and either
            class indices, of which -100 is ignored, or class probabilities);
            ``"token_cross_entropy"``, the same with the classes last, (B, ..., C);
            ``"next_token_cross_entropy"``, that of a language model, whose logits (B, T, C) at t
            are compared with the labels (B, T) at t + 1;
            ``"squared_error"`` (half the squared Euclidean norm per example);
            a torch criterion, which keeps torch's meaning exactly; or a function
            ``(outputs, batch) -> (sum, count)`` with the batch as its owner wrote it.
        label_smoothing: of the cross-entropies by name only, in [0, 1].

    Raises:
        TypeError: for a criterion whose terms cannot be counted, or anything else.
        ValueError: for an unknown name, or smoothing where it does not apply.

    >>> batch = Batch.of((torch.zeros(3, 1), torch.zeros(3, 2)))
    >>> sum_, count = as_loss("squared_error").terms(torch.ones(3, 2), batch)
    >>> sum_.item(), count
    (3.0, 3)
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"expected label_smoothing in [0, 1], got {label_smoothing}")
    if isinstance(loss, str) and loss in CROSS_ENTROPIES:
        layout = CROSS_ENTROPIES[loss]
        return _cross_entropy(loss, CrossEntropy(label_smoothing=label_smoothing, layout=layout))
    if label_smoothing:
        raise ValueError(
            "label_smoothing= goes with the loss 'cross_entropy' and its like; a torch criterion "
            "takes it as nn.CrossEntropyLoss(label_smoothing=...)"
        )
    if isinstance(loss, Loss):
        return loss
    if loss == "squared_error":
        return Loss(loss, _squared_error, likelihood=Gaussian(1.0), needs_targets=True, known=True)
    if isinstance(loss, nn.Module):
        return _criterion(loss)
    if isinstance(loss, type) or getattr(loss, "__module__", None) == F.__name__:
        raise TypeError(
            f"expected a criterion such as nn.MSELoss() or a function (outputs, batch) -> (sum, "
            f"count), got {getattr(loss, '__name__', loss)}, which is neither"
        )
    if callable(loss):
        return _own(loss)
    raise ValueError(
        f"expected loss to be one of {', '.join(map(repr, [*CROSS_ENTROPIES, 'squared_error']))}, "
        f"a torch criterion, or a function (outputs, batch) -> (sum, count); got {loss!r}"
    )


def checked_terms(loss: Loss, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
    """The summed loss and the number of its terms, if they are that.

    Raises:
        TypeError: if the loss returns something else.
        ValueError: if it needs targets and the batch has none.
        NonFiniteError: if the sum is NaN or infinite.
    """
    name = loss.name
    if loss.needs_targets and not isinstance(batch.targets, Tensor):
        raise ValueError(
            f"the loss {name!r} compares outputs with a tensor of targets, and batch "
            f"{batch.index} has {_said_of(batch)}; {batch.remedy}"
        )
    result = loss.terms(outputs, batch)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(
            f"expected the loss {name!r} to return (sum, count), got {type(result).__name__}"
        )
    total, count = result
    if not isinstance(total, Tensor) or total.ndim != 0:
        got = tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__
        raise TypeError(
            f"expected the loss {name!r} to return its sum as a scalar tensor, "
            f"got {got}; add up the terms and return (terms.sum(), number of terms)"
        )
    if not torch.isfinite(total):
        what = "loss" if torch.isfinite(outputs).all() else "output of the model"
        raise NonFiniteError(f"the {what} is NaN or infinite at these parameters")
    return total, float(count)


def _said_of(batch: Batch) -> str:
    """What stands where targets are expected."""
    if batch.targets is None and isinstance(batch.raw, (tuple, list)):
        return f"{len(batch.raw)} parts, and which of them is the target is not said"
    return type(batch.targets).__name__


def _own(function: TermsFunction) -> Loss:
    name = getattr(function, "__name__", type(function).__name__)
    # on copies, because it may work in place
    return Loss(name, lambda outputs, batch: function(outputs.clone(), batch.copied().raw))


def _squared_error(outputs: Tensor, batch: Batch) -> Terms:
    _check_same_shape(outputs, batch.targets, "squared_error")
    return 0.5 * (outputs - batch.targets).square().sum(), len(outputs)


def _check_same_shape(outputs: Tensor, targets: Tensor, name: str) -> None:
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{name} compares outputs and targets of one shape; got outputs "
            f"{tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        )


def _cross_entropy(name: str, loss: CrossEntropy, average: bool = True) -> Loss:
    return Loss(
        name,
        loss.terms,
        average,
        label_entropy=loss.label_entropy if loss.weight is None else None,
        likelihood=Softmax(loss.class_dim, loss.term_weights),
        needs_targets=True,
        known=True,
    )


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
    if kind is nn.CrossEntropyLoss:
        theirs = cast(nn.CrossEntropyLoss, criterion)
        weight = None if theirs.weight is None else theirs.weight.detach().clone()
        own = CrossEntropy(weight, theirs.ignore_index, theirs.label_smoothing)
        return _cross_entropy(name, own, average=reduction == "mean")
    summed = copy.deepcopy(criterion)
    summed.reduction = "sum"  # type: ignore[assignment]

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        targets = batch.targets
        if kind in ELEMENTWISE:
            _check_same_shape(outputs, targets, name)
            count: Tensor | float = outputs.numel()
        else:
            likelihood = cast(nn.NLLLoss, summed)
            weight = None if likelihood.weight is None else likelihood.weight.to(outputs)
            count = target_count(outputs, targets, weight, likelihood.ignore_index)
        return summed.to(outputs)(outputs, targets), count

    return Loss(
        name,
        terms,
        average=reduction == "mean",
        likelihood=_criterion_likelihood(summed),
        needs_targets=True,
        known=True,
    )


def _criterion_likelihood(criterion: nn.Module) -> Likelihood | None:
    if isinstance(criterion, nn.MSELoss):
        return Gaussian(2.0)
    if not isinstance(criterion, nn.BCEWithLogitsLoss):
        return None

    def weights(outputs: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001
        y: Tensor = batch.targets
        weight = 1 - y + (y if criterion.pos_weight is None else criterion.pos_weight.to(y) * y)
        return weight if criterion.weight is None else criterion.weight.to(y) * weight

    return Bernoulli(weights)
