"""A loss at one point: model, loss and data, with the parameters frozen."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.batches import Batch, Target, tensors_of
from lossgeom.losses import Loss, LossLike, as_loss
from lossgeom.problem.double import InDouble
from lossgeom.problem.evaluation import Evaluation, Forward
from lossgeom.problem.examples import nearby, rows_of_examples
from lossgeom.problem.first_look import look_at, notes_on
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import FirstLook, Key, Mode, ModelFacts, PointCache, checked_mode
from lossgeom.problem.network import Network
from lossgeom.problem.passes import Data, generators_kept
from lossgeom.problem.repeatable import check_repeatable

Parameters = str | Sequence[str] | None  # patterns of the names of those to measure in
T = TypeVar("T")
Arguments = ParamSpec("Arguments")
Summand = TypeVar("Summand", float, Tensor)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Problem:
    r"""The empirical loss of a model on data, at a frozen copy of its parameters.

    .. math:: L(\theta) = \sum_b s_b(\theta) / \sum_b n_b

    with the sum of terms s and their number n of each batch b, so that ragged batches and ignored
    targets weigh what they should, however the data is split.

    Parameters, buffers and frozen parameters are copied: training can go on while they are
    measured, and ``refreshed()`` is the same problem where the model is then. Nothing that is
    measured changes the model, its gradients, its mode, or the state of a random generator. In
    train mode BatchNorm uses the statistics of each batch, so the value depends on how the data is
    split, and its running averages stay as they are. What is measured differently from how the
    model runs in training is said in ``notes``.

    Args:
        model: any module with trainable parameters. A compiled or data-parallel one is measured
            without its wrapper. Narrow floating types are measured in a float32 copy, a mixture
            with float64 in float64.
        loss: ``"cross_entropy"``, ``"token_cross_entropy"``, ``"next_token_cross_entropy"``,
            ``"squared_error"``, a torch criterion, or a function ``(outputs, batch) -> (sum,
            count)``; see :func:`lossgeom.losses.as_loss`.
        batches: something that can be iterated again and again: a list, a DataLoader. It is not
            copied. A loader that shuffles or augments does so in the same way in every pass, or is
            refused. A
            batch is ``(inputs, targets)`` or a mapping with the targets at ``"labels"``; see
            :meth:`lossgeom.batches.Batch.of`.
        label_smoothing: of the cross-entropies.
        mode: ``"eval"`` or ``"train"``, for BatchNorm, Dropout and their like. Left out, it is
            ``"eval"``, and ``notes`` say so where the model is another one in train mode, with the
            losses of the first batch in both.
        parameters: patterns of the names of the parameters to measure in, such as ``"head.*"``;
            all that are trainable by default. The others are held fixed.
        forward: ``(model, batch) -> outputs``, where calling the model with the inputs is not it.
        target: where the targets are in batches of another form: a place such as -1 among three
            parts, a key of a mapping, or a function that makes them of the batch.
        seed: fixes what the model draws at random, as Dropout in train mode does: one draw for
            each batch, the same in every pass. Without it, random models are refused.
        dtype: torch.float32 or torch.float64, to measure in. In float64, a model that says float32
            on its way goes on in float64; the default type of torch is float64 meanwhile.
        autocast: a type such as torch.bfloat16 to run model and loss in under torch.autocast, as
            training does. Off by default: rounding has no derivative.
        check: whether derivatives are compared with finite differences, once for each model, on a
            few examples; see :func:`lossgeom.check_derivatives`.

    Raises:
        TypeError, ValueError: for input that cannot be measured; each says what was expected.
        NonFiniteError: from a measurement, where outputs or loss are NaN or infinite.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    >>> Problem(model, "squared_error", [(x, torch.zeros(2, 1))]).loss()
    2.5
    """

    model: nn.Module
    evaluation: Evaluation
    theta: Float[Tensor, " P"]
    data: Data
    check: bool
    cache: PointCache
    _parameters: Parameters
    _dtype: torch.dtype | None

    def __init__(
        self,
        model: nn.Module,
        loss: LossLike,
        batches: Iterable[Any],
        *,
        label_smoothing: float = 0.0,
        mode: Mode | None = None,
        parameters: str | Sequence[str] | None = None,
        forward: Forward | None = None,
        target: Target = None,
        seed: int | None = None,
        dtype: torch.dtype | None = None,
        autocast: torch.dtype | None = None,
        check: bool = True,
    ) -> None:
        if target is not None and not (isinstance(target, (int, str)) or callable(target)):
            raise TypeError(
                "expected target to be a place in the batch such as -1, a key, or a function of "
                f"the batch, got {type(target).__name__}"
            )
        if seed is not None and seed < 0:
            raise ValueError(f"expected a seed >= 0, got {seed}")
        network = Network.of(model, parameters, dtype)
        theta = network.theta
        if autocast is not None and theta.dtype != torch.float32:
            raise ValueError(
                f"autocast={autocast} rounds float32 only, and this is measured in {theta.dtype}; "
                "leave one of the two out"
            )
        if type(batches) not in (list, tuple):
            check_repeatable(batches, theta.device)
        self._fill(
            model=model,
            evaluation=Evaluation(
                network,
                as_loss(loss, label_smoothing),
                "eval" if mode is None else checked_mode(mode),
                forward=forward,
                seed=seed,
                autocast=autocast,
                facts=ModelFacts(FirstLook(training=None if mode is None else "")),
            ),
            theta=theta,
            data=Data(batches, target),
            check=check,
            cache=PointCache(),
            _parameters=parameters,
            _dtype=dtype,
        )

    def _fill(self, **values: Any) -> None:
        """Give a new problem its fields, which stay as they are from then on."""
        for field in fields(self):
            object.__setattr__(self, field.name, values[field.name])

    def _with(self, **changes: Any) -> Problem:
        """The same problem but for some fields; nothing has been measured at its point yet."""
        other = object.__new__(Problem)
        other._fill(**{**vars(self), "cache": PointCache(), **changes})
        return other

    def _evaluated(self, **changes: Any) -> Problem:
        """The same problem, evaluated in another way."""
        evaluation = replace(self.evaluation, **changes)
        network = changes.get("network")
        theta = self.theta if network is None else network.theta
        return self._with(evaluation=evaluation, theta=theta)

    def __repr__(self) -> str:
        return (
            f"Problem({type(self.model).__name__}, {self.criterion.name!r}, "
            f"P={self.theta.numel()}, mode={self.mode!r})"
        )

    @property
    def network(self) -> Network:
        """The copy of the model."""
        return self.evaluation.network

    @property
    def criterion(self) -> Loss:
        """The loss, as sums and counts."""
        return self.evaluation.criterion

    @property
    def mode(self) -> Mode:
        """The mode of the modules, ``"eval"`` or ``"train"``."""
        return self.evaluation.mode

    @property
    def seed(self) -> int | None:
        """What fixes draws of random numbers."""
        return self.evaluation.seed

    @property
    def autocast(self) -> torch.dtype | None:
        """The type that model and loss are run in, if that is not theirs."""
        return self.evaluation.autocast

    @property
    def batches(self) -> Iterable[Any]:
        """The data."""
        return self.data.batches

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model in this mode, whatever its parameters."""
        return self.evaluation.facts

    @property
    def notes(self) -> tuple[str, ...]:
        """What is measured differently from how the model runs, known after the first pass."""
        return tuple(notes_on(self.evaluation, self.data.sizes, self.cache.notes))

    @property
    def unset_mode(self) -> str | None:
        """A note for a model that is another one in train mode, if no ``mode=`` was given.

        Known after the first pass. What is compared with the edge of stability of training should
        be measured in the mode of training.
        """
        return self.facts.first_look.training or None

    # Other problems like this one

    def take(self, n: int) -> Problem:
        """The same problem on the first n examples; fewer than n in the data is an error.

        Examples are the rows of what the model puts out, and of the tensors in a batch; those that
        all examples share stay whole, see :meth:`in_examples`.

        Raises:
            ValueError: from a measurement, where examples cannot be taken out of a batch.
        """
        return self._with(data=self.data.first(n, partial(self.in_examples, mixed=True)))

    def refreshed(self) -> Problem:
        """The same problem at the parameters and buffers that the model has now."""
        return self._evaluated(network=Network.of(self.model, self._parameters, self._dtype))

    def with_loss(self, loss: Loss) -> Problem:
        """The same problem with another loss."""
        return self._evaluated(criterion=loss)

    def with_parameters(self, parameters: str | Sequence[str]) -> Problem:
        """The same problem in some of its parameters, by patterns of names; the others are held.

        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> problem = Problem(model, "squared_error", [(torch.ones(1, 2), torch.ones(1, 1))])
        >>> problem.with_parameters("1.*").network.names
        ('1.weight', '1.bias')
        """
        network = self.network.restricted(self.theta, parameters)
        names = [glob.escape(name) for name in network.names]
        return self._evaluated(network=network)._with(_parameters=names)

    def at(self, theta: Float[Tensor, " P"]) -> Problem:
        """The same problem at other parameters; the model keeps its own."""
        if theta.shape != self.theta.shape:
            raise ValueError(
                f"expected theta of shape {tuple(self.theta.shape)}, got {tuple(theta.shape)}"
            )
        return self._with(theta=theta.detach().to(self.theta).clone())

    def nearby(self) -> Problem:
        """The same problem at a random point near theta.

        No accident, such as weights of zero, hides there what depends on what.
        """
        return self.at(nearby(self.theta))

    def in_mode(self, mode: Mode) -> Problem:
        """The same problem with the modules in another mode, ``"eval"`` or ``"train"``."""
        if checked_mode(mode) == self.mode:
            return self
        return self._with(evaluation=self.evaluation.in_mode(mode))

    def on(self, batch: Batch, network: Network) -> Problem:
        """The same problem on one batch alone, with another copy of the model."""
        seen = replace(self.facts.first_look, model=self.facts.first_look.model or [])
        same = network.theta.dtype == self.theta.dtype
        facts = ModelFacts(seen, self.facts.in_double if same else InDouble())
        return self._with(
            evaluation=replace(self.evaluation, network=network, facts=facts),
            theta=network.theta,
            data=Data([batch.raw], self.data.target),
        )

    def inside_transforms(self, batch: Batch, *, seeded: bool = True) -> Problem:
        """The same problem on one batch alone, for the transforms of ``torch.func``.

        The state of a generator cannot be read inside these, so draws of random numbers are not
        looked for. Nor can it be set under vmap: there the problem must not be ``seeded``.
        """
        alone = self.on(batch, self.network)._evaluated(
            watched=False, seed=self.seed if seeded else None
        )
        return alone.at(self.theta)

    # The two functions that every matrix is made from

    def outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out for a batch at theta, differentiable in theta."""
        return self.evaluation.outputs(theta, batch)

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss of outputs and the number of terms, both checked."""
        return self.evaluation.terms(outputs, batch)

    # Passes over the data

    def over_batches(self, function: Callable[[Batch], T], skip: int = 0) -> list[T]:
        """Call a function on every batch but the first few, the same batches in every pass."""
        results = []
        with measuring(self.theta.device), generators_kept(self.data.batches):
            for batch in self.data.over(self.theta):
                self._look(batch)
                if batch.index >= skip:
                    with self.network.undone():
                        results.append(function(batch))
        return results

    def first_batch(self) -> Batch:
        """The first batch, for a look at the model that needs no more."""
        with measuring(self.theta.device), generators_kept(self.data.batches):
            for raw in self.data.batches:
                batch = Batch.of(raw, target=self.data.target).moved(self.theta)
                self._look(batch)
                return batch
        raise ValueError("expected at least one batch, got none")

    def _look(self, batch: Batch) -> None:
        thetas, cut = (self.leaf(), self.leaf()), partial(self.in_examples, mixed=True)
        look_at(self.evaluation, thetas, batch, self.model, cut)

    def in_examples(self, batch: Batch, mixed: bool = False) -> Batch:
        """A batch that knows which of its tensors have a row for each example.

        That is tried on single examples, in eval mode, once for a model and shape of batches. A
        tensor that all examples share, such as a grid or a mask, is none of them, also where it
        has as many rows by accident.

        Args:
            batch: all of it.
            mixed: whether outputs of an example may depend on other examples.

        Raises:
            ValueError: if examples cannot be taken out of the batch, with the tensors it is about
                and what to do: their outputs depend on others, or are no rows.
            NonFiniteError: if outputs are NaN or infinite.
        """
        key = Key(rows_of_examples, (tuple(t.shape for t in tensors_of(batch.raw)), mixed))
        rows = self.facts.known(
            key, lambda: rows_of_examples(self.evaluation, self.theta, batch, mixed)
        )
        return replace(batch, rows=rows)

    def reduced(self, parts: Iterable[tuple[Summand, float]]) -> tuple[Summand, float]:
        """The sum of what all batches have, and what it is divided by.

        All that is made of several batches is summed here, and nowhere else.

        Args:
            parts: of each batch, or each part of one, a number or tensor and the number of terms.

        Returns:
            The sum, and the number of all terms, or 1 for a loss that is a sum itself.
        """
        total: Any = 0  # the first part is added to it as a copy, the others in place
        counts = []
        for part, count in parts:
            total += part
            counts.append(count)
        terms = math.fsum(counts)
        if self.criterion.average and not terms > 0:
            raise ValueError(
                f"expected the loss {self.criterion.name!r} to have terms, got a count of {terms}; "
                "are all targets ignored?"
            )
        return total, terms if self.criterion.average else 1.0

    def mean(self, terms: Callable[[Batch], tuple[Summand, float]]) -> Summand:
        """What batches have in sum, divided by the number of terms, from what one batch has."""
        total, divisor = self.reduced(self.over_batches(terms))
        return total / divisor

    # Values

    def cached(
        self,
        function: Callable[Concatenate[Problem, Arguments], T],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> T:
        """A function of this problem and of settings, computed once at this point."""
        key = Key(function, (args, frozenset(kwargs.items())))
        return self.cache.value(key, lambda: function(self, *args, **kwargs))

    def loss(self) -> float:
        """The empirical loss; costs one forward pass."""

        @torch.no_grad()
        def terms(batch: Batch) -> tuple[float, float]:
            total, count = self.terms(self.outputs(self.theta, batch), batch)
            return total.item(), count

        return self.cache.value(Key(Problem.loss), partial(self.mean, terms))

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

        return self.cache.value(Key(Problem.label_entropy), partial(self.mean, terms))

    def gradient(self) -> Float[Tensor, " P"]:
        """The gradient of the empirical loss at theta."""
        theta = self.leaf()

        def terms(batch: Batch) -> tuple[Tensor, float]:
            total, count = self.terms(self.outputs(theta, batch), batch)
            if not total.requires_grad:  # a loss that does not depend on theta
                return torch.zeros_like(theta), count
            return torch.autograd.grad(total, theta, materialize_grads=True)[0], count

        return self.mean(terms)

    def leaf(self) -> Float[Tensor, " P"]:
        """The parameters as a fresh leaf to differentiate in."""
        with torch.inference_mode(False):
            return self.theta.detach().clone().requires_grad_()

    def unflatten(self, vector: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """A flat vector as tensors by parameter name."""
        return dict(zip(self.network.names, self.network.split(vector), strict=True))


def checked_problem(problem: Problem) -> Problem:
    """A problem, or an error that says what to make."""
    if not isinstance(problem, Problem):
        raise TypeError(f"expected a Problem(model, loss, batches), got {type(problem).__name__}")
    return problem
