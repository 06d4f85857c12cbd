"""Torch's criteria as sums of terms and their number."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.losses.cross_entropy import CrossEntropy
from lossgeom.losses.likelihoods import Bernoulli, Gaussian, Likelihood, NoLikelihoodError, Softmax
from lossgeom.losses.loss import Loss, Terms

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


def of_criterion(criterion: nn.Module) -> Loss:
    """A torch criterion as a loss, with exactly torch's meaning."""
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
        return own.loss(name, average=reduction == "mean")
    if kind is nn.NLLLoss:
        return _nll(cast(nn.NLLLoss, criterion))
    summed = copy.deepcopy(criterion)
    summed.reduction = "sum"  # type: ignore[assignment]

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        targets = _numbers(outputs, batch.targets, name)
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
        known=not any(tensor.requires_grad for tensor in (*summed.parameters(), *summed.buffers())),
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
            raise NoLikelihoodError(
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
    if isinstance(criterion, nn.SoftMarginLoss):
        return Bernoulli(_signs)
    if not isinstance(criterion, nn.BCEWithLogitsLoss):
        return None

    def weights(outputs: Tensor, batch: Batch) -> Tensor:
        y = _numbers(outputs, batch.targets, type(criterion).__name__)
        weight = 1 - y + (y if criterion.pos_weight is None else criterion.pos_weight.to(y) * y)
        return weight if criterion.weight is None else criterion.weight.to(y) * weight

    return Bernoulli(weights)


def _signs(outputs: Tensor, batch: Batch) -> Tensor:
    """The weights of targets of -1 and 1, for which alone this loss is a likelihood."""
    y = _numbers(outputs, batch.targets, "SoftMarginLoss")
    if (y.abs() != 1).any():
        raise NoLikelihoodError(
            "SoftMarginLoss expects targets of -1 and 1 where it stands for a likelihood; batch "
            f"{batch.index} has others"
        )
    return torch.ones_like(y)


def squared_error() -> Loss:
    """Half the squared Euclidean norm of the difference, per example."""

    def terms(outputs: Tensor, batch: Batch) -> Terms:
        targets = _numbers(outputs, batch.targets, "squared_error")
        return 0.5 * (outputs - targets).square().sum(), len(outputs)

    return Loss("squared_error", terms, likelihood=Gaussian(1.0), needs_targets=True, known=True)


def _numbers(outputs: Tensor, targets: Tensor, name: str) -> Tensor:
    """Targets of the outputs' shape, integers and booleans as numbers."""
    if outputs.shape != targets.shape:
        raise ValueError(
            f"{name} compares outputs and targets of one shape; got outputs "
            f"{tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        )
    return targets if targets.is_floating_point() else targets.to(outputs.dtype)
