"""Losses by name, criteria and functions, as sums of terms and their number."""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.batches import Batch, described, map_tensors
from lossgeom.losses.criteria import of_criterion, squared_error
from lossgeom.losses.cross_entropy import CrossEntropy, Layout
from lossgeom.losses.loss import Loss, Terms, TermsFunction
from lossgeom.messages.wording import one_of

CROSS_ENTROPIES: dict[str, Layout] = {
    "cross_entropy": "classes second",
    "token_cross_entropy": "classes last",
    "next_token_cross_entropy": "next token",
}


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
        return CrossEntropy(label_smoothing=label_smoothing, layout=layout).loss(loss)
    if label_smoothing:
        raise ValueError(
            "label_smoothing= goes with the loss 'cross_entropy' and its like; a torch criterion "
            "takes it as nn.CrossEntropyLoss(label_smoothing=...)"
        )
    if isinstance(loss, Loss):
        return loss
    if loss == "squared_error":
        return squared_error()
    if isinstance(loss, nn.Module):
        return of_criterion(loss)
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


def _own(function: TermsFunction) -> Loss:
    name = getattr(function, "__name__", type(function).__name__)

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        try:
            # on copies, because it may work in place
            return function(outputs.clone(), map_tensors(torch.clone, batch.raw))
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
