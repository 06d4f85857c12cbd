"""The least multiple of a live model's last step that raises its loss, without a copy of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.batches import Batch, Target
from lossgeom.distributed import ALONE, Ranks, checked_ranks
from lossgeom.linalg import ONE_AT_A_TIME, random_numbers
from lossgeom.losses import Loss, LossLike, as_loss
from lossgeom.problem import NonFiniteError
from lossgeom.problem.batch_norm import buffers_kept
from lossgeom.problem.evaluation import Forward, call_model, checked_terms
from lossgeom.problem.isolation import seeded
from lossgeom.problem.model_copy import unwrapped
from lossgeom.problem.model_facts import Mode, checked_mode
from lossgeom.problem.passes import Data
from lossgeom.problem.reduction import reduced
from lossgeom.problem.repeatable import check_repeatable
from lossgeom.problem.sharded import (
    check_spread,
    end_forward,
    forward_types,
    is_sharded,
    own_part,
    reshard,
)
from lossgeom.stability._critical_search import RTOL, SEEN, CriticalStep, Effort
from lossgeom.stability.rounding import SAMPLES, deviation, nearby
from lossgeom.stability.undefined import UndefinedError


@torch.no_grad()
def live_critical_step(
    model: nn.Module,
    loss: LossLike,
    batches: Iterable[Any],
    before: Iterable[Tensor],
    *,
    ranks: Ranks = ALONE,
    label_smoothing: float = 0.0,
    mode: Mode = "train",
    forward: Forward | None = None,
    target: Target = None,
    autocast: torch.dtype | None = None,
    seed: int = 0,
    rtol: float = RTOL,
    start: float | None = None,
    max_passes: int = 40,
    weight_decay: float = 0.0,
) -> CriticalStep:
    r"""The least multiple of the step that a model has just made that raises its loss.

    .. math:: s_c = \inf \{ s > 0 : L(\theta_n + s\,(\theta_{n+1} - \theta_n)) > L(\theta_n) \}

    This is :func:`critical_step`, which says what it means and how it is searched, for models of
    which there is no room for a copy. The model itself is moved along its last step and called, as
    training calls it, and put back to the last bit, also after an error: parameters, buffers, mode,
    generators. Hooks of yours see these calls. A kill in between loses what no checkpoint has.

    Under ``fully_shard`` each process moves its shards, and the forward pass gathers what it needs;
    all processes call this together, with as many batches each. What is wrong with data or loss of
    one is an error on all, after the pass. An error inside the forward pass of one of them alone is
    raised there at once, and on the others when that process ends or the time-out of their group is
    over (``init_process_group(timeout=)``), for they wait in the forward pass for the rest of it.

    Arithmetic is that of training, with its mixed precision. In bfloat16, where finite differences
    of gradients along a unit vector were off by 8 to 470 %, critical steps were near those of
    float32: 19.44 and 19.44, 7.83 and 7.83, 1.16 and 1.11, 0.94 and 0.94, 1.16 and 1.27 in a run.

    Cost: forward passes, some 8 with that of the loss itself, 3 to 6 from a good start, and 4 for
    its rounding. Memory: two copies of what this process has of the parameters, with ``before``.

    Args:
        model: after the step; plain, wrapped in DistributedDataParallel, or under ``fully_shard``.
        loss: as of :class:`Problem`.
        batches: to take the loss on, those of this process. They are gone over once, and kept.
        before: copies of the parameters before the step, of shards where they are sharded:
            ``[p.detach().clone() for p in model.parameters()]``.
        ranks: the processes that share the data, such as ``lg.ranks()``.
        label_smoothing: of the cross-entropies.
        mode: of the modules, ``"train"`` or ``"eval"``.
        forward: ``(model, batch) -> outputs``, where calling the model with the inputs is not it.
        target: the targets in batches of another form.
        autocast: a type to run model and loss in, as training does.
        seed: fixes what the model draws at random.
        rtol: of the interval, relative to its upper end.
        start: a multiple to start from, such as that of the step before.
        max_passes: forward passes to spend in the search.
        weight_decay: coupled, of all parameters, where L is to have
            :math:`\tfrac12 w \|\theta\|^2`.

    Returns:
        The multiple with its interval, the same on all processes.

    Raises:
        UndefinedError: for a step of zero, or one that rounding hides.
        NonFiniteError: where the step is NaN or infinite, or the loss before it.
        TypeError: for a model that is spread over processes in another way.
        ValueError: for a setting out of its range, copies of other parameters, or processes with
            other numbers of batches.

    Source: Kalra et al., arXiv:2601.16979.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    >>> data = [(2 * torch.ones(1, 1), torch.zeros(1, 1))]
    >>> before = [p.detach().clone() for p in model.parameters()]
    >>> (0.5 * model(data[0][0]).square().mean()).backward()
    >>> optimizer.step()
    >>> found = live_critical_step(model, "squared_error", data, before)
    >>> round(found.value, 4)  # 2 over lr times 4
    2.0
    """
    effort, training = Effort(rtol, start, max_passes), checked_mode(mode) == "train"
    inner, _ = unwrapped(model)
    reshard(inner)  # what is gathered is not what an optimiser moves
    checked_ranks(ranks).together(lambda: check_spread(inner, ranks))
    step = ranks.together(lambda: _Step.of(inner, list(before), ranks.rank))
    criterion, like = as_loss(loss, label_smoothing), step.after[0]
    held = ranks.together(lambda: _held(batches, target, like))
    draws = seed, _batches_before(ranks, len(held), alike=any(step.sharded))
    calls = _Calls(step, held, criterion, forward, autocast, draws, ranks)
    slope, square = step.forms(ranks)
    types = [autocast or torch.float64, *forward_types(inner), *(p.dtype for p in step.after)]
    spacing = max(torch.finfo(each).eps for each in types)
    with ONE_AT_A_TIME, step.put_back(training):
        here = calls.loss_at(step.before)
        near = [calls.loss_at(step.nearby(spacing, seed, k)) for k in range(SAMPLES)]
        if any(map(math.isnan, [here, *near])):
            raise NonFiniteError("the loss is NaN or infinite before the step")
        noise = deviation(here, near, torch.finfo(like.dtype).eps)

        def rise(s: float) -> float:
            decay = weight_decay * (s * slope + s * s * square / 2)
            moved = calls.loss_at(step.along(s)) - here + decay
            return math.inf if math.isnan(moved) else moved

        return effort.search(lambda at: list(map(rise, at)), SEEN * noise, 1 + SAMPLES)


@dataclass(frozen=True, eq=False)
class _Step:
    """The last step of a model, as far as this process has its parameters.

    Attributes:
        model: that is moved along it.
        places: the memory of its parameters.
        before, after: what was there, and what is.
        sharded: which of them other processes have other parts of.
        rank: of this process.
    """

    model: nn.Module
    places: list[Tensor]
    before: list[Tensor]
    after: list[Tensor]
    sharded: list[bool]
    rank: int

    @classmethod
    def of(cls, model: nn.Module, before: list[Tensor], rank: int) -> _Step:
        """The step from copies of parameters to where these are."""
        live = list(model.parameters())
        places, start = list(map(own_part, live)), list(map(own_part, before))
        if [p.shape for p in places] != [p.shape for p in start]:
            raise ValueError(
                "expected before= as copies of what this process has of the model's parameters, "
                "[p.detach().clone() for p in model.parameters()]; got tensors of other shapes"
            )
        if not places:
            raise ValueError("expected a model with parameters, got one without")
        after = [place.clone() for place in places]
        return cls(model, places, start, after, list(map(is_sharded, live)), rank)

    def along(self, s: float) -> Iterator[Tensor]:
        """The parameters at a multiple of the step."""
        for a, b in zip(self.before, self.after, strict=True):
            wide = torch.promote_types(a.dtype, torch.float32)
            yield a + s * (b.to(wide) - a.to(wide))

    def nearby(self, spacing: float, *seed: int) -> Iterator[Tensor]:
        """Parameters that are those before the step, up to a relative spacing."""
        everywhere, here = random_numbers(*seed, 0), random_numbers(*seed, 1 + self.rank)
        for a, sharded in zip(self.before, self.sharded, strict=True):
            yield nearby(a, spacing, here if sharded else everywhere)

    def go_to(self, parameters: Iterable[Tensor]) -> None:
        """Move the model."""
        for place, there in zip(self.places, parameters, strict=True):
            place.copy_(there)
        reshard(self.model)  # else forward passes use what they have gathered elsewhere

    def forms(self, ranks: Ranks) -> tuple[float, float]:
        """The inner products of the step with the parameters before it, and with itself."""
        own = torch.zeros(2, dtype=torch.float64)
        for a, b, sharded in zip(self.before, self.after, self.sharded, strict=True):
            start, change = a.double().flatten(), b.double().flatten() - a.double().flatten()
            share = 1 if sharded else 1 / ranks.size
            own += share * torch.stack([change @ start, change @ change]).cpu()
        slope, square = ranks.sum(own).tolist()
        if not math.isfinite(square):
            raise NonFiniteError("the step is NaN or infinite")
        if square == 0:
            raise UndefinedError("the step is zero, so nothing can be said of it")
        return slope, square

    @contextmanager
    def put_back(self, training: bool) -> Iterator[None]:
        """Set the mode, and leave everything as it was."""
        modes = [(part, part.training) for part in self.model.modules()]
        try:
            with buffers_kept(self.model):
                self.model.train(training)
                yield
        except BaseException:
            end_forward(self.model)
            raise
        finally:
            self.go_to(self.after)
            for part, mode in modes:
                part.training = mode


@dataclass(frozen=True, eq=False)
class _Calls:
    """How the loss of a live model is evaluated on the data of all processes."""

    step: _Step
    batches: list[Batch]
    criterion: Loss
    forward: Forward | None
    autocast: torch.dtype | None
    draws: tuple[int, int]  # a seed, and the number of the first batch
    ranks: Ranks

    def loss_at(self, parameters: Iterable[Tensor]) -> float:
        """The loss at parameters, NaN where it is not finite."""
        self.step.go_to(parameters)
        sums = self._sums() if any(self.step.sharded) else None  # where all gather for each other

        def parts() -> list[tuple[float, float]]:
            total, count, error = sums or self._sums()
            if error is not None:
                raise error
            return [(total, count)]

        device = self.step.after[0].device
        total, divisor = reduced(self.ranks, self.criterion, parts, dict, device)
        loss = total / divisor
        return loss if math.isfinite(loss) else math.nan

    def _sums(self) -> tuple[float, float, Exception | None]:
        """The summed loss of this process's data, its number of terms, and an error of the loss."""
        total, count, error = 0.0, 0.0, None
        device, (seed, first), autocast = self.step.after[0].device, self.draws, self.autocast
        for batch in self.batches:
            rounding = autocast and torch.autocast(device.type, autocast, cache_enabled=False)
            with seeded(device, seed, first + batch.index), rounding or nullcontext():
                outputs = call_model(self.step.model, batch, self.forward)
                try:
                    part, terms = checked_terms(self.criterion, outputs, batch)
                    total, count = total + part.item(), count + terms
                except NonFiniteError:
                    total, count = math.nan, count + 1
                except Exception as raised:
                    error = raised
        return total, count, error


def _held(batches: Iterable[Any], target: Target, like: Tensor) -> list[Batch]:
    if type(batches) not in (list, tuple):
        check_repeatable(batches, like.device)
    data = Data(batches, target)
    with ONE_AT_A_TIME, seeded(like.device, 0), data.kept():
        return list(data.over(like))


def _batches_before(ranks: Ranks, number: int, *, alike: bool) -> int:
    """Count the batches of the processes before this one, of which all may need the same number."""
    numbers = ranks.gathered(number)
    if alike and len(set(numbers)) > 1:
        raise ValueError(
            "expected as many batches on each process, since all of them go through the forward "
            f"passes of a sharded model together; got {', '.join(map(str, numbers))}"
        )
    return sum(numbers[: ranks.rank])
