"""The one-line monitor of a training run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Iterable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lossgeom.distributed import ALONE, Ranks, checked_ranks
from lossgeom.losses import LossLike
from lossgeom.messages.wording import unknown
from lossgeom.metrics import (
    CriticalStep,
    EdgeRatio,
    GradientNorm,
    InMode,
    Loss,
    Metric,
    RealisedEdge,
    SamplingError,
    Sharpness,
    StepMetric,
    UpdateCurvature,
    UpdateNorm,
)
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.live import buffers_of_first
from lossgeom.problem.minibatches import on_raw
from lossgeom.problem.network import RandomModelError
from lossgeom.recording.budget import Budget, device_clock
from lossgeom.recording.going_on import give_back
from lossgeom.recording.measuring import OnError
from lossgeom.recording.mirror import Mirror, checked_mirrors
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.schedule import Schedule, as_schedule
from lossgeom.recording.tracker import Tracker
from lossgeom.recording.watch import Watch
from lossgeom.recording.watch_lines import LiveLine
from lossgeom.recording.watched import check_settings

OF_PROBLEM = {p.name for p in signature(Problem).parameters.values() if p.kind == p.KEYWORD_ONLY}
OWN = {"metrics", "on_error", "budget", "full_batch", "first_step", "mirrors"}
OF_WATCH = OWN | OF_PROBLEM
LARGE = 10_000_000  # parameters, beyond which no eigenvalues are measured unless asked for


def watch(
    model: nn.Module,
    optimizers: Optimizer | Sequence[Optimizer],
    loss: LossLike,
    batches: Iterable[Any],
    record: Record | str | Path,
    every: int | Collection[int] | Schedule = 100,
    *,
    metrics: Sequence[Metric | StepMetric] | None = None,
    on_error: OnError = "record",
    budget: float | None = 0.05,
    full_batch: bool | None = None,
    first_step: int = 0,
    mirrors: Sequence[Mirror] = (),
    **problem: Any,
) -> Watch:
    """Watch a training run: measure its steps as they are made, in any loop, with one line.

    The loop stays as it is: hooks on the optimisers see every step. A step that is due is measured
    at the parameters before it, with the learning rate that it was made with, and each row has that
    rate and the optimisers' threshold of stability then. Training is the same to the last bit with
    and without this: parameters, buffers, gradients, states and random numbers.

    It is the loss that is trained which is measured: with the modules in train mode, as BatchNorm
    and Dropout are then, unless ``mode=`` says otherwise; Dropout with random numbers of its own,
    fixed by a seed. Where the model is another one in eval mode, loss and sharpness in that stand
    beside them, as ``loss (eval)`` and ``sharpness (eval)``.

    Cost: of a step that is not due, some microseconds; of one that is, what the metrics say. The
    first one costs most: later ones start from what is known. Memory: twice the parameters all
    along, for the model as it was at the start; and six times the parameters while a step is due,
    for the model before it, its update and its gradient, besides what the metrics take.

    Args:
        model: the module that trains.
        optimizers: one, or several in the order in which they step; what Accelerate or Lightning
            have wrapped, too.
        loss: that it trains by, with its label smoothing and weights; see :class:`Problem`.
        batches: to measure on: some thousand examples of the training data, the same each time.
        record: a folder, or a record. What it holds of a run that was killed, and that is gone
            through again from step 0, is not measured again, as long as it is the same.
        every: which steps are due: each n-th, those of a list, or those of a schedule.
        metrics: what to measure. By default: the loss, the sharpness, its ratio to the edge of
            stability, the curvature along the update, the realised edge, the critical step, the
            norms of gradient and update, and the errors of sampling that the data puts on loss and
            sharpness; beyond ten million parameters, those of these that need no eigenvalue.
        on_error: what an error of a metric is: ``"record"``, a row and one warning; or ``"raise"``.
        budget: the share of wall-clock time that measuring may take, beside three seconds in all,
            without which the first measurement would use up a short run's share: steps that are due
            are left out where they would take more, and the record says how many. ``None`` for no
            limit, with which two runs have the same rows but for the seconds.
        full_batch: whether the optimisers get the gradient of the loss on all of ``batches``, which
            is told from the gradients where it is not said.
        first_step: the number of the next step, where training goes on from a checkpoint. What the
            record holds of that step and later ones is superseded.
        mirrors: where else each row goes, such as ``lossgeom.mirrors.TensorBoard(folder)``. One
            that fails ends no training: it is left out from then on, with a warning.
        problem: settings of :class:`Problem`, such as ``target``, ``forward`` or ``dtype``.

    Returns:
        What watches: a context manager, which prints where the run is.

    Raises:
        TypeError, ValueError: for what cannot be measured or watched, before anything is trained.
        RecordError: if the folder holds another run, or one that is over, and ``first_step`` is 0.

    >>> import tempfile, torch, lossgeom as lg
    >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]))]
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> folder = tempfile.mkdtemp()
    >>> with lg.watch(model, optimizer, "squared_error", data, folder, every=1, budget=None) as run:
    ...     for x, y in data * 3:
    ...         optimizer.zero_grad()
    ...         (0.5 * (model(x) - y).square().mean()).backward()
    ...         optimizer.step()
    >>> [(row["step"], round(row["value"] / row["threshold"], 3)) for row in run.record.rows()
    ...  if row["metric"] == "sharpness"]
    [(0, 0.625), (1, 0.625), (2, 0.625)]
    """
    check_settings(full_batch, first_step)
    due, copies = as_schedule(every), checked_mirrors(mirrors)
    if wrong := set(problem) - OF_PROBLEM:
        raise TypeError(f"lossgeom.watch: {unknown('argument', min(wrong), OF_WATCH)}")
    with buffers_of_first(model, checked_ranks(problem.get("ranks", ALONE))):
        measured, evaluated = _trained(model, loss, batches, problem)
    chosen = default_metrics(measured, evaluated) if metrics is None else metrics
    held = _opened(record, measured.ranks)
    try:
        _check_start(held, first_step)
        tracker = Tracker(measured, chosen, held, due)
        run = Watch(
            measured, tracker.metrics, held, tracker.due,
            tuple(optimizers) if isinstance(optimizers, Iterable) else [optimizers],
            on_error=on_error,
            budget=Budget(budget, device_clock(measured.theta.device)),
            full_batch=full_batch,
            first_step=first_step,
            live=LiveLine(sys.stderr) if measured.ranks.rank == 0 and sys.stderr.isatty() else None,
        )  # fmt: skip
        held.mirrors.add(copies if held.ranks.rank == 0 else ())
        return run
    except BaseException:
        if held is not record:
            give_back(held)
        raise


def _opened(record: Record | str | Path, ranks: Ranks) -> Record:
    return record if isinstance(record, Record) else Record.create(record, resume=True, ranks=ranks)


def default_metrics(problem: Problem, evaluated: bool) -> list[Metric | StepMetric]:
    """What is measured of a step where nobody says.

    Args:
        problem: in the mode of training.
        evaluated: whether the model is another one in eval mode.
    """
    spectral = problem.theta.numel() <= LARGE
    metrics: list[Metric | StepMetric] = [Loss()]
    metrics += [Sharpness(), EdgeRatio()] if spectral else []
    metrics += [UpdateCurvature(), RealisedEdge(), CriticalStep(), GradientNorm(), UpdateNorm()]
    if evaluated:
        metrics += [InMode(Loss(), "eval"), *[InMode(Sharpness(), "eval")] * spectral]
    if problem.criterion.average:
        metrics += [SamplingError(), *[SamplingError("sharpness")] * spectral]
    return metrics


def _trained(
    model: nn.Module, loss: LossLike, batches: Iterable[Any], settings: dict[str, Any]
) -> tuple[Problem, bool]:
    """The loss that is trained, and whether the model is another one in eval mode.

    What cannot be measured shows itself here, before anything is trained.
    """
    asked = {"mode": "train", **settings}
    problem = Problem(model, loss, batches, **asked)
    if any(problem.rows(_draws)):  # also where only others have data
        problem = Problem(model, loss, batches, **{**asked, "seed": 0})
        problem.rows(_draws)
    if "mode" in settings:
        return problem, False
    seed = {"seed": problem.seed, **settings}
    plain = Problem(model, loss, batches, **seed)
    try:
        plain.rows(lambda here: [here.first_batch().index])
    except Exception:  # of a model that does not run in eval mode
        return problem, False
    return problem, any(problem.ranks.gathered(plain.unset_mode is not None))


def _draws(here: Problem) -> list[bool]:
    """Whether the model needs a seed for its first batch, which is looked at."""
    try:
        first = on_raw(here, here.first_batch().raw)
        first.over_batches(lambda batch: first.terms(first.outputs(first.theta, batch), batch))
    except RandomModelError:
        return [True]
    except NonFiniteError:  # which is a measurement
        pass
    return [False]


def _check_start(record: Record, first_step: int) -> None:
    """Refuse to begin anew in the record of a run that is over, and warn in that of a killed one.

    Raises:
        RecordError: for one that is over.
    """
    if first_step or not record.measured:
        return
    latest = max(step for step, _ in record.measured)
    if record.reopened is not None:
        raise RecordError(
            f"{record.path} holds a run that is over, as {record.reopened!r}, up to step {latest}; "
            "choose another folder, or say first_step= where training goes on from a checkpoint"
        )
    warnings.warn(
        f"{record.path} holds measurements up to step {latest}, which are not made again where "
        "this is the same run; say first_step= where it goes on from a checkpoint, or choose "
        "another folder for another run",
        stacklevel=3,
    )
