"""A loss at one point: model, loss and data, with the parameters frozen."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.batches import (
    Batch,
    FirstExamples,
    Passes,
    as_pair,
    check_iterable,
    generators_kept,
    to_parameters,
)
from lossgeom.losses import LossLike, as_loss
from lossgeom.network import Mode, Network, checked_mode, measuring, probe

T = TypeVar("T")
Summand = TypeVar("Summand", float, Tensor)


class NonFiniteError(ArithmeticError):
    """The model or its loss is NaN or infinite at this point."""


class Problem:
    r"""The empirical loss of a model on data, at a frozen copy of its parameters.

    .. math:: L(\theta) = \sum_b s_b(\theta) / \sum_b n_b

    with the sum of terms s and their number n of each batch b, so that ragged batches and ignored
    targets weigh what they should, however the data is split.

    Parameters, buffers and frozen parameters are copied: training can go on while they are
    measured. Nothing that is measured changes the model, its gradients, its mode, or the state of
    a random generator. In train mode BatchNorm uses the statistics of each batch, so the value
    depends on how the data is split, and its running averages stay as they are.

    Args:
        model: any module with trainable parameters in float32 or float64.
        loss: ``"cross_entropy"``, ``"squared_error"``, a torch criterion, or a function
            ``(outputs, batch) -> (sum, count)``; see :func:`lossgeom.losses.as_loss`.
        batches: something that can be iterated again and again over ``(inputs, targets)``: a list,
            a DataLoader. It is not copied. A loader that shuffles or augments does so in the same
            way in every pass.
        label_smoothing: of ``"cross_entropy"``.
        mode: ``"eval"`` or ``"train"``, for BatchNorm and its like.

    Raises:
        TypeError, ValueError: for input that cannot be measured; each says what was expected.
        NonFiniteError: from a measurement, where outputs or loss are NaN or infinite.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    >>> Problem(model, "squared_error", [(x, torch.zeros(2, 1))]).loss()
    2.5
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossLike,
        batches: Iterable[Any],
        *,
        label_smoothing: float = 0.0,
        mode: Mode = "eval",
    ) -> None:
        check_iterable(batches)
        self.model = model
        self.network = Network(model)
        self.criterion = as_loss(loss, label_smoothing)
        self.batches = batches
        self.mode = checked_mode(mode)
        self.theta = self.network.theta
        self._seen = Passes()
        self._probed: list[bool] = []
        self._cache: dict[Hashable, Any] = {}

    def __repr__(self) -> str:
        return (
            f"Problem({type(self.model).__name__}, {self.criterion.name!r}, "
            f"P={self.theta.numel()}, mode={self.mode!r})"
        )

    # Other problems like this one

    def _with(self, **changes: Any) -> Problem:
        other = copy.copy(self)
        other.__dict__.update(changes, _cache={})
        return other

    def take(self, n: int) -> Problem:
        """The same problem on the first n examples; fewer than n in the data is an error."""
        if n < 1:
            raise ValueError(f"expected to take at least one example, got n={n}")
        return self._with(batches=FirstExamples(self.batches, n), _seen=Passes())

    def refreshed(self) -> Problem:
        """The same problem at the parameters and buffers that the model has now."""
        network = Network(self.model)
        return self._with(network=network, theta=network.theta)

    def at(self, theta: Float[Tensor, " P"]) -> Problem:
        """The same problem at other parameters; the model keeps its own."""
        if theta.shape != self.theta.shape:
            raise ValueError(
                f"expected theta of shape {tuple(self.theta.shape)}, got {tuple(theta.shape)}"
            )
        return self._with(theta=theta.detach().to(self.theta).clone())

    def in_mode(self, mode: Mode) -> Problem:
        """The same problem with the modules in another mode, ``"eval"`` or ``"train"``."""
        return self._with(mode=checked_mode(mode), _probed=[])

    # The two functions that every matrix is made from

    def outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out for a batch at theta, differentiable in theta."""
        outputs = self.network(theta, batch[0], self.mode)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"expected the model to return a tensor, got {type(outputs).__name__}")
        return outputs

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss of outputs and the number of terms, both checked."""
        result = self.criterion.terms(outputs, batch)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(
                f"expected the loss {self.criterion.name!r} to return (sum, count), got "
                f"{type(result).__name__}"
            )
        total, count = result
        if not isinstance(total, Tensor) or total.ndim != 0:
            got = tuple(total.shape) if isinstance(total, Tensor) else type(total).__name__
            raise TypeError(
                f"expected the loss {self.criterion.name!r} to return its sum as a scalar tensor, "
                f"got {got}; add up the terms and return (terms.sum(), number of terms)"
            )
        if not torch.isfinite(total):
            what = "loss" if torch.isfinite(outputs).all() else "output of the model"
            raise NonFiniteError(f"the {what} is NaN or infinite at these parameters")
        return total, float(count)

    # Passes over the data

    def over_batches(self, function: Callable[[Batch], T], skip: int = 0) -> list[T]:
        """Call a function on every batch but the first few, the same batches in every pass."""
        results, index = [], -1
        with measuring(self.theta.device), generators_kept(self.batches):
            for index, raw in enumerate(self.batches):
                pair = as_pair(raw, index)
                self._seen.check(pair, index)
                batch = to_parameters(pair, self.theta)
                self._probe(batch)
                if index >= skip:
                    results.append(function(batch))
        self._seen.end(index + 1)
        if index < 0:
            raise ValueError(
                "expected at least one batch, got none; if batches is a generator that is used up, "
                "pass a list"
            )
        return results

    def _probe(self, batch: Batch) -> None:
        """Once for each model: what would make every measurement wrong."""
        if not self._probed:
            self._probed.append(True)
            probe(self.network, self.leaf(), batch[0], self.mode)

    def divisor(self, counts: Iterable[float]) -> float:
        """What a sum over all batches is divided by: the number of terms, or 1 for a sum."""
        if not self.criterion.average:
            return 1.0
        count = math.fsum(counts)
        if not count > 0:
            raise ValueError(
                f"expected the loss {self.criterion.name!r} to have terms, got a count of {count}; "
                "are all targets ignored?"
            )
        return count

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Compute something once at this point."""
        if key not in self._cache:
            self._cache[key] = compute()
        return cast(T, self._cache[key])

    # Values

    def loss(self) -> float:
        """The empirical loss; costs one forward pass."""

        @torch.no_grad()
        def terms(batch: Batch) -> tuple[float, float]:
            total, count = self.terms(self.outputs(self.theta, batch), batch)
            return total.item(), count

        return self.cached("loss", lambda: self.mean(terms))

    def label_entropy(self) -> float:
        """The least value that the labels allow the loss; costs one forward pass.

        Raises:
            ValueError: for a loss whose least value is not known.
        """
        entropy = self.criterion.label_entropy
        if entropy is None:
            raise ValueError(
                "the label entropy is known for unweighted cross-entropy, not for "
                f"{self.criterion.name!r}"
            )

        @torch.no_grad()
        def terms(batch: Batch) -> tuple[float, float]:
            outputs = self.outputs(self.theta, batch)
            return entropy(outputs, batch), self.terms(outputs, batch)[1]

        return self.cached("label_entropy", lambda: self.mean(terms))

    def gradient(self) -> Float[Tensor, " P"]:
        """The gradient of the empirical loss at theta."""
        theta = self.leaf()

        def terms(batch: Batch) -> tuple[Tensor, float]:
            total, count = self.terms(self.outputs(theta, batch), batch)
            return torch.autograd.grad(total, theta)[0], count

        return self.mean(terms)

    def mean(self, terms: Callable[[Batch], tuple[Summand, float]]) -> Summand:
        """Sums over batches, divided by the number of terms, from one batch's sum and number."""
        totals, counts = zip(*self.over_batches(terms), strict=True)
        total: Summand = sum(totals[1:], start=totals[0])
        return total / self.divisor(counts)

    def leaf(self) -> Float[Tensor, " P"]:
        """The parameters as a fresh leaf to differentiate in."""
        with torch.inference_mode(False):
            return self.theta.detach().clone().requires_grad_()

    def unflatten(self, vector: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """A flat vector as tensors by parameter name."""
        return dict(zip(self.network.names, self.network.split(vector), strict=True))
