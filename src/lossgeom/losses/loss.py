"""Losses as a sum over terms and the number of those terms."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.batches import Batch, described
from lossgeom.losses.cross_entropy import CrossEntropy, Layout
from lossgeom.losses.likelihoods import Bernoulli, Gaussian, Likelihood, Softmax
from lossgeom.wording import one_of

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
    if isinstance(loss, type) or getattr(loss, "__module__", None) in (F.__name__, "torch._C._nn"):
        raise TypeError(
            f"expected a criterion such as nn.MSELoss() or a function (outputs, batch) -> (sum, "
            f"count), got {getattr(loss, '__name__', loss)}, which is neither; {_instead_of(loss)}"
        )
    if callable(loss):
        return _own(loss)
    raise ValueError(
        f"expected loss to be one of {one_of(map(repr, [*CROSS_ENTROPIES, 'squared_error']))}, a "
        f"torch criterion, or a function (outputs, batch) -> (sum, count); got {loss!r}"
        f"{_meant(loss)}"
    )


def _instead_of(loss: Any) -> str:
    """What to pass instead of a class, or of a function of torch's."""
    name = getattr(loss, "__name__", "")
    if isinstance(loss, type):
        return f"make one of the class, {name}()"
    classes = [name for name in dir(nn) if name.endswith("Loss")]
    alike = {c.removesuffix("Loss").lower(): c for c in classes}
    plain = name.replace("_", "").removesuffix("loss").replace("binarycrossentropy", "bce")
    found = alike.get(plain)
    return "pass a criterion" if found is None else f"pass nn.{found}()"


OTHER_NAMES = {
    "ce": "'cross_entropy'",
    "xent": "'cross_entropy'",
    "nll": "'cross_entropy' of logits, or nn.NLLLoss() of log-probabilities",
    "mse": "nn.MSELoss(), or 'squared_error', which is half the squared norm per example",
    "l2": "nn.MSELoss(), or 'squared_error', which is half the squared norm per example",
    "l1": "nn.L1Loss()",
    "mae": "nn.L1Loss()",
    "bce": "nn.BCEWithLogitsLoss()",
    "huber": "nn.HuberLoss()",
}


def _meant(loss: Any) -> str:
    """What an unknown name may stand for."""
    if not isinstance(loss, str):
        return ""
    plain = loss.lower().replace("-", "_").replace(" ", "_")
    found = OTHER_NAMES.get(plain.removesuffix("_loss").removesuffix("loss"))
    if found is None:
        names = [*CROSS_ENTROPIES, "squared_error"]
        close = difflib.get_close_matches(plain.removesuffix("_loss"), names, n=1)
        found = repr(close[0]) if close else None
    return "" if found is None else f"; did you mean {found}?"


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
        bare = isinstance(result, Tensor) and result.ndim == 0
        raise TypeError(
            f"expected the loss {name!r} to return (sum, count), got {type(result).__name__}"
            + (": a number without its count; return (terms.sum(), number of terms)" * bare)
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

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        try:
            # on copies, because it may work in place
            return function(outputs.clone(), batch.copied().raw)
        except Exception as error:
            kind = TypeError if type(error) is AttributeError else type(error)
            if kind not in (TypeError, ValueError, RuntimeError, IndexError):
                raise
            raise kind(
                f"the loss {name!r} raised {type(error).__name__}: {error}. It was called with the "
                f"outputs, {tuple(outputs.shape)}, and the whole batch {batch.index}, "
                f"{described(batch.raw)}, and is to return (sum, count); of a function of outputs "
                "and targets, make lambda outputs, batch: (f(outputs, batch[1]), len(outputs)) "
                "with a sum f. What belongs to single examples, such as weights, goes into the "
                "batch"
            ) from error

    return Loss(name, terms)


def _squared_error(outputs: Tensor, batch: Batch) -> Terms:
    targets = _as_numbers(outputs, batch.targets)
    _check_same_shape(outputs, targets, "squared_error")
    return 0.5 * (outputs - targets).square().sum(), len(outputs)


def _as_numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Integers and booleans as the numbers that outputs are compared with."""
    return targets if targets.is_floating_point() else targets.to(outputs.dtype)


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
    if kind is nn.NLLLoss:
        return _nll(cast(nn.NLLLoss, criterion))
    summed = copy.deepcopy(criterion)
    summed.reduction = "sum"  # type: ignore[assignment]

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        targets = _as_numbers(outputs, batch.targets)
        _check_same_shape(outputs, targets, name)
        if kind in (nn.BCELoss, nn.BCEWithLogitsLoss):
            _check_truth_values(batch, name)
        try:
            return summed.to(outputs)(outputs, targets), outputs.numel()
        except RuntimeError as error:
            weight = getattr(summed, "weight", None)
            if weight is None or type(error) is not RuntimeError:
                raise
            raise ValueError(
                f"the weight {tuple(weight.shape)} of {name} does not fit batch {batch.index} with "
                f"outputs {tuple(outputs.shape)} ({error}). Weights of single examples go into the "
                "batch, for a function (outputs, batch) -> (sum, count) that reads them there"
            ) from error

    return Loss(
        name,
        terms,
        average=reduction == "mean",
        likelihood=_criterion_likelihood(summed),
        needs_targets=True,
        known=True,
    )


def _check_truth_values(batch: Batch, name: str) -> None:
    """Check integers that stand for probabilities."""
    targets: Tensor = batch.targets
    if targets.is_floating_point() or targets.dtype == torch.bool or not targets.numel():
        return
    low, high = (int(end) for end in targets.aminmax())
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} expects targets from 0 to 1; those of batch {batch.index} go from {low} to "
            f"{high}. Class indices go with 'cross_entropy', or as targets.eq(c) for one class c"
        )


def _nll(criterion: nn.NLLLoss) -> Loss:
    """The negative log-likelihood: of outputs that are log-probabilities, their cross-entropy.

    Its second derivative in them is zero, but as a function of a model that ends in log_softmax it
    is the cross-entropy of its logits, which the outputs are, too, up to a constant.
    """
    weight = None if criterion.weight is None else criterion.weight.detach().clone()
    entropy = CrossEntropy(weight, criterion.ignore_index)
    summed = copy.deepcopy(criterion)
    summed.reduction = "sum"

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        if batch.targets.is_floating_point():
            raise ValueError(
                f"NLLLoss expects class indices, and the targets of batch {batch.index} are "
                f"{tuple(batch.targets.shape)} in {batch.targets.dtype}; probabilities go with "
                "'cross_entropy'"
            )
        total, count = entropy.terms(outputs, batch)
        # of a graph it is the sum that it says: outputs may be normalised at these parameters alone
        as_entropy = outputs.is_leaf and _normalised(outputs)
        return total if as_entropy else summed.to(outputs)(outputs, batch.targets), count

    def weights(outputs: Tensor, batch: Batch) -> Tensor:
        if not _normalised(outputs):
            raise ValueError(
                f"NLLLoss expects log-probabilities, and the outputs for batch {batch.index} are "
                "none: end the model in log_softmax, or measure 'cross_entropy' of its logits"
            )
        return entropy.term_weights(outputs, batch)

    return Loss(
        "NLLLoss",
        terms,
        average=criterion.reduction == "mean",
        likelihood=Softmax(1, weights),
        needs_targets=True,
        known=True,
    )


@torch.no_grad()
def _normalised(outputs: Tensor) -> bool:
    """Whether outputs are logarithms of probabilities of classes."""
    tolerance = 1e3 * torch.finfo(outputs.dtype).eps
    return bool((outputs.detach().logsumexp(1).abs() <= tolerance).all())


def _criterion_likelihood(criterion: nn.Module) -> Likelihood | None:
    if isinstance(criterion, nn.MSELoss):
        return Gaussian(2.0)
    if not isinstance(criterion, nn.BCEWithLogitsLoss):
        return None

    def weights(outputs: Tensor, batch: Batch) -> Tensor:
        y = _as_numbers(outputs, batch.targets)
        weight = 1 - y + (y if criterion.pos_weight is None else criterion.pos_weight.to(y) * y)
        return weight if criterion.weight is None else criterion.weight.to(y) * weight

    return Bernoulli(weights)
