"""A loss at one point: model, loss and data, with the parameters frozen."""

from __future__ import annotations

import glob
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lossgeom.batches import Batch, Target
from lossgeom.distributed import ALONE, Ranks, checked_ranks
from lossgeom.losses import Loss, LossLike, as_loss
from lossgeom.problem.evaluation import Evaluation, Forward
from lossgeom.problem.examples import in_examples
from lossgeom.problem.first_look import look_at
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import Key, Mode, PointCache
from lossgeom.problem.network import Network, gathered
from lossgeom.problem.notes import notes_on
from lossgeom.problem.passes import Data, NoBatchesError
from lossgeom.problem.reduction import Parts, Summand, alike, in_order, reduced, rows, summed, taken
from lossgeom.problem.repeatable import check_repeatable

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Problem:
    r"""The empirical loss of a model on data, at a frozen copy of its parameters.

    .. math:: L(\theta) = \sum_b s_b(\theta) / \sum_b n_b

    with the sum of terms s and their number n of each batch b. In train mode BatchNorm uses the
    statistics of each batch, and its running averages stay as they are. Parameters and buffers are
    copied: training can go on meanwhile, and ``refreshed()`` is the same problem where the model is
    then. Measuring leaves model, gradients, mode and random state be; ``notes`` say what differs.

    Args:
        model: any module with trainable parameters; its copy has narrow ones in float32.
        loss: a name, a torch criterion, or a function ``(outputs, batch) -> (sum, count)``; see
            :func:`lossgeom.losses.as_loss`.
        batches: what can be iterated again and again, the same in every pass, such as a list or a
            DataLoader; see :meth:`lossgeom.batches.Batch.of` for the forms of a batch.
        label_smoothing: of the cross-entropies.
        mode: ``"eval"`` or ``"train"``, for BatchNorm, Dropout and their like. Left out, it is
            ``"eval"``, and ``notes`` say so where the model is another one in train mode.
        parameters: patterns of the names of the parameters to measure in, such as ``"head.*"``;
            all that are trainable by default. The others are held fixed.
        forward: ``(model, batch) -> outputs``, where calling the model with the inputs is not it.
        target: the targets in batches of another form: a place such as -1, a key, or a function.
        seed: fixes what the model draws at random, one draw a batch; without it, that is an error.
        dtype: torch.float32 or torch.float64, to measure in, whatever the model says on its way.
        autocast: a type such as torch.bfloat16 to run model and loss in, as training does.
        check: whether derivatives are compared with differences, see ``check_derivatives``, and
            evaluations and products of a model with more than 10^6 parameters with other ones.
        ranks: the processes that share the data, as of ``lg.ranks()``; batches are this one's part.

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
    ranks: Ranks
    cache: PointCache
    _copied: partial[Network]

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
        ranks: Ranks = ALONE,
    ) -> None:
        copied = partial(Network.of, parameters=parameters, dtype=dtype)
        plain = gathered(model, checked_ranks(ranks))

        def made() -> Problem:
            network, criterion = copied(plain), as_loss(loss, label_smoothing)
            at = Evaluation.of(network, criterion, mode, forward, seed, autocast)
            if type(batches) not in (list, tuple):  # which come out the same in every pass
                check_repeatable(batches, network.theta.device)
            fields = {"model": model, "evaluation": at, "theta": network.theta, "check": check}
            fields |= {"data": Data(batches, target, ranks.size), "ranks": ranks}
            vars(self).update(fields, cache=PointCache(), _copied=copied)  # which stay as they are
            return self

        ranks.together(made, Problem._alike)
        vars(self).update(evaluation=in_order(self.evaluation, self.data, ranks))

    def _with(self, **changes: Any) -> Problem:
        """The same problem but for some fields; nothing has been measured at its point yet."""
        other = object.__new__(Problem)
        vars(other).update({**vars(self), "cache": PointCache(), **changes})
        return other

    def __repr__(self) -> str:
        of = f"{type(self.model).__name__}, {self.criterion.name!r}, P={self.theta.numel()}"
        return f"Problem({of}, mode={self.mode!r})"

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
        """The seed of the model's random numbers."""
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
    def notes(self) -> tuple[str, ...]:
        """What is measured differently from how the model runs, after the first pass."""
        return tuple(notes_on(self.model, self.evaluation, self.data, self.cache.notes))

    @property
    def unset_mode(self) -> str | None:
        """A note for a model that is another one in train mode, if no ``mode=`` was given."""
        return self.evaluation.facts.first_look.training or None

    def take(self, n: int) -> Problem:
        """The same problem on the first n examples of all; fewer in the data is an error."""
        data = taken(self.data, n, partial(self.in_examples, mixed=True), self.ranks, self.theta)
        return self._with(data=data, evaluation=in_order(self.evaluation, data, self.ranks))

    def refreshed(self) -> Problem:
        """The same problem at the parameters and buffers that the model has now."""
        plain = gathered(self.model, self.ranks)
        network = self.ranks.together(lambda: self._copied(plain))
        return self._with(evaluation=replace(self.evaluation, network=network), theta=network.theta)

    def with_loss(self, loss: Loss) -> Problem:
        """The same problem with another loss."""
        return self._with(evaluation=replace(self.evaluation, criterion=loss))

    def with_parameters(self, parameters: str | Sequence[str]) -> Problem:
        """The same problem in some parameters, by patterns such as "1.*"; the others are held."""
        network = self.network.restricted(self.theta, parameters)
        copied = partial(self._copied, parameters=list(map(glob.escape, network.names)))
        at = replace(self.evaluation, network=network)
        return self._with(evaluation=at, theta=network.theta, _copied=copied)

    def at(self, theta: Float[Tensor, " P"]) -> Problem:
        """The same problem at other parameters; the model keeps its own."""
        if theta.shape != self.theta.shape:
            here = tuple(self.theta.shape)
            raise ValueError(f"expected theta of shape {here}, got {tuple(theta.shape)}")
        return self._with(theta=theta.detach().to(self.theta).clone())

    def in_mode(self, mode: Mode) -> Problem:
        """The same problem with the modules in another mode, ``"eval"`` or ``"train"``."""
        return self if mode == self.mode else self._with(evaluation=self.evaluation.in_mode(mode))

    def on(self, batch: Batch, network: Network) -> Problem:
        """The same problem on one batch alone, with another copy of the model."""
        at, data = self.evaluation.on_copy(network), Data([batch.raw], self.data.target)
        return self._with(evaluation=at, theta=network.theta, data=data, ranks=ALONE)

    def inside_transforms(self, *, seeded: bool = True) -> Problem:
        """The same problem for the transforms of ``torch.func``, of which vmap allows no seed."""
        return self._with(evaluation=self.evaluation.inside_transforms(seeded))

    def outputs(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """What the model puts out for a batch at theta, differentiable in theta."""
        return self.evaluation.outputs(theta, batch)

    def terms(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """The summed loss of outputs and the number of terms, both checked."""
        return self.evaluation.terms(outputs, batch)

    @property
    def local(self) -> Problem:
        """The problem of this process's share of the data, which needs no other process."""
        if self.ranks.size == 1:
            return self
        its = {"data": self.data.share, "ranks": ALONE, "cache": PointCache(self.cache.notes)}
        return self.cache.value(Key(Data), lambda: self._with(**its))

    def over_batches(self, *functions: Callable[[Batch], T]) -> list[T]:
        """Call functions on every batch, each as if alone; the same batches in every pass."""
        results = []
        with measuring(self.theta.device), self.data.kept():
            for batch in self.data.over(self.theta):
                look_at(self.evaluation, self.theta, batch, self.model, self.check)
                for each in functions:
                    with self.evaluation.network.undone():
                        results.append(each(batch))
        return results

    def first_batch(self) -> Batch:
        """The first batch, for a look at the model that needs no more."""
        with measuring(self.theta.device), self.data.kept():
            for batch in self.data.over(self.theta):
                look_at(self.evaluation, self.theta, batch, self.model, self.check)
                return batch
        raise NoBatchesError  # here, where other processes have some

    def in_examples(self, batch: Batch, mixed: bool = False) -> Batch:
        """A batch that knows its examples; see :func:`lossgeom.problem.examples.in_examples`."""
        return in_examples(self.evaluation, self.theta, batch, mixed)

    def reduced(self, find: Callable[[Problem], Parts[Summand]]) -> tuple[Summand, float]:
        """The sum over processes of what a function finds of each one's share, and its divisor."""
        find_here = partial(find, self.local)
        return reduced(self.ranks, self.criterion, find_here, self._alike, self.theta.device)

    def rows(self, find: Callable[[Problem], Sequence[T]]) -> list[T]:
        """What a function finds of each process's share, such as of its batches, in their order."""
        return rows(self.ranks, partial(find, self.local), self._alike)

    def _alike(self) -> dict[str, object]:
        """What the processes that share the data must have alike at this point."""
        return self.cache.value(Key(alike), lambda: alike(self.evaluation, self.theta))

    def mean(self, terms: Callable[[Batch], tuple[Summand, float]]) -> Summand:
        """What batches have in sum, divided by the number of terms, from what one batch has."""
        total, divisor = self.reduced(partial(summed, over=Problem.over_batches, function=terms))
        return total / divisor

    def cached(self, function: Callable[..., T], *args: Hashable, **kwargs: Hashable) -> T:
        """A function of this problem and of settings, computed once at this point."""
        key = Key(function, (args, frozenset(kwargs.items())))
        return self.cache.value(key, lambda: function(self, *args, **kwargs))

    def loss(self) -> float:
        """The empirical loss; costs one forward pass."""
        find = partial(self.mean, partial(self.evaluation.loss, self.theta))
        return self.cache.value(Key(Problem.loss), find)

    def label_entropy(self) -> float:
        """The least value that the labels allow the loss, if it is known; one forward pass."""
        of_batch = self.evaluation.label_entropy(self.theta)
        return self.cache.value(Key(Problem.label_entropy), lambda: self.mean(of_batch))

    def gradient(self) -> Float[Tensor, " P"]:
        """The gradient of the empirical loss at theta."""
        return self.mean(partial(self.evaluation.gradient, self.leaf()))

    def leaf(self) -> Float[Tensor, " P"]:
        """The parameters as a fresh leaf to differentiate in; it has theta's memory."""
        with torch.inference_mode(False):
            own = self.theta.clone() if self.theta.is_inference() else self.theta
            return own.detach().requires_grad_()

    def unflatten(self, vector: Shaped[Tensor, " P"]) -> dict[str, Tensor]:
        """A flat vector as tensors by parameter name."""
        return dict(zip(self.network.names, self.network.split(vector), strict=True))


def checked_problem(problem: Problem) -> Problem:
    """A problem, or an error that says what to make."""
    if isinstance(problem, Problem):
        return problem
    raise TypeError(f"expected a Problem(model, loss, batches), got {type(problem).__name__}")
