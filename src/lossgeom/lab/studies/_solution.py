"""Networks that are trained by a recipe, and what is measured of the solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lossgeom.batches import Batch
from lossgeom.curvature import LayerSummand, each_layer_summand
from lossgeom.estimate import Estimate
from lossgeom.lab.datasets import Dataset
from lossgeom.lab.studies._checkpoint import Stateful
from lossgeom.lab.studies._network import in_chunks, on_first
from lossgeom.lab.studies._stages import append_missing
from lossgeom.lab.studies._training import train
from lossgeom.lab.training import (
    Objective,
    OptimizerSettings,
    Regularizer,
    batch_of_step,
    objective_of,
    optimize,
)
from lossgeom.lab.training.ascents import Ascent
from lossgeom.lab.training.schedules import Schedule
from lossgeom.losses import LossLike, as_loss
from lossgeom.metrics import Accuracy, JacobianNorm, Loss, Metric, Sharpness
from lossgeom.problem import Problem
from lossgeom.recording.ended import last_values
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.metric_figures import Comparison, Quantity
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        lr: the learning rate.
        batch_size: examples in a batch.
        epochs: how often all examples are gone through.
        optimizer: one of ``OPTIMIZERS``.
        momentum: of it.
        weight_decay: of it.
        label_smoothing: of the loss, which is also the one that is measured.
        schedule: of the learning rate.
        ascent: such as ``sam(0.1)``.
        regularizers: what else changes the loss that is trained on, but not what is measured.
        clip: the largest norm of a gradient.
    """

    lr: float
    batch_size: int
    epochs: int
    optimizer: str = "momentum"
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    schedule: Schedule | None = None
    ascent: Ascent | None = None
    regularizers: tuple[Regularizer, ...] = ()
    clip: float | None = None

    def optimizers(self, model: nn.Module) -> list[Optimizer]:
        """Make the optimisers of a model."""
        return OptimizerSettings(
            self.optimizer, self.lr, self.momentum, weight_decay=self.weight_decay
        ).made_for(model)

    def steps(self, examples: int) -> int:
        """How many steps the epochs are."""
        return self.epochs * -(-examples // self.batch_size)

    def training(
        self,
        model: nn.Module,
        loss: LossLike,
        data: Dataset,
        *,
        optimizers: Sequence[Optimizer],
        seed: int,
        first: int = 0,
    ) -> Iterator[int]:
        """Train a model in place; see :func:`lossgeom.lab.training.optimize`."""
        return optimize(
            model, loss, batch_of_step(data.train, self.batch_size, seed=seed),
            optimizers=optimizers, steps=self.steps(len(data.train[0])), first=first,
            schedule=self.schedule, ascent=self.ascent, clip=self.clip,
            regularizers=self.regularizers, seed=seed,
        )  # fmt: skip


Further = Callable[[Problem], Iterable[Mapping[str, float]]]
"""Other numbers of a solution, by their names; what is yielded is recorded before the next."""


@dataclass(frozen=True)
class InUse:
    """A metric: another one, of the model in use (in eval mode), under a name of its own."""

    name: str
    metric: Metric

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return self.metric(problem.in_mode("eval"))


@dataclass(frozen=True)
class OfOutputs:
    """A metric: another one that looks at nothing but the outputs of the model in use.

    Of the loss that the problem has, or of another one. All of these at a point cost one forward
    pass together.
    """

    name: str
    metric: Metric
    loss: str | None = None

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        table = problem.cached(table_of_outputs)
        return self.metric(table if self.loss is None else table.with_loss(as_loss(self.loss)))


@torch.no_grad()
def table_of_outputs(problem: Problem) -> Problem:
    """The same losses of a model that looks the outputs up, as they are of the model in use."""
    here = problem.in_mode("eval")

    def of_batch(batch: Batch) -> tuple[Tensor, Any]:
        return here.outputs(here.theta, batch), batch.targets

    outputs, targets = zip(*here.over_batches(of_batch), strict=True)
    numbers = torch.cat(outputs)
    places = torch.split(torch.arange(len(numbers)), [*map(len, outputs)])
    table = nn.Embedding(len(numbers), numbers.shape[1], _weight=numbers)
    return Problem(
        table, problem.criterion, list(zip(places, targets, strict=True)), mode="eval"
    )  # fmt: skip


TRAIN, TEST = "train_", "test_"
LOSS, LABEL_LOSS, ACCURACY = "loss", "label_loss", "accuracy"  # of either set, after its prefix
GAP, LABEL_GAP = "gap", "label_gap"
NOISY = (  # for glossaries
    "With --label-noise, which only the labels to train on have, it is no generalisation gap: the "
    "two losses are of different tasks, and that to train on is the larger one until the noise is "
    "fitted. Compare the losses or accuracies on the examples to test on then; runs.csv has them."
)
SHARPNESS = Sharpness(tol=0.01)  # an eigenvalue is then good to about four digits
JACOBIAN, JACOBIAN_MAX = JacobianNorm(over="mean"), JacobianNorm(over="max")
SOFTMAX_JACOBIAN = JacobianNorm(outputs="softmax", over="mean")
AT_END: tuple[Metric, ...] = (SHARPNESS, JACOBIAN, JACOBIAN_MAX, SOFTMAX_JACOBIAN)
COMPARED = Comparison(
    Quantity(SHARPNESS.name, "sharpness"), Quantity(JACOBIAN.name, "Jacobian norm"),
    outcome=Quantity(GAP, "gap"), given=Quantity(TRAIN + LOSS, "training loss"),
)  # fmt: skip


def losses(examples: str, loss: str) -> tuple[Metric, ...]:
    """Metrics of how well the model in use does on a set of examples, with that in their names.

    Of a cross-entropy less the entropy of labels, so that 0 is its least value whatever the label
    smoothing; and that of the labels without smoothing, whose least value is 0, too.
    """
    if loss != "cross_entropy":
        return (OfOutputs(examples + LOSS, Loss()),)
    return (
        OfOutputs(examples + LOSS, Loss(minus_label_entropy=True)),
        OfOutputs(examples + LABEL_LOSS, Loss(), loss),
        OfOutputs(examples + ACCURACY, Accuracy()),
    )


def solve(
    recipe: Recipe,
    model: nn.Module,
    data: Dataset,
    record: Record,
    *,
    seed: int,
    chunk: int,
    every: int,
    measured_on: int = 0,
    loss: str = "cross_entropy",
    along: Sequence[Metric] = (),
    at_end: Sequence[Metric] = AT_END,
    further: Further = lambda problem: (),  # noqa: ARG005
) -> None:
    r"""Train a network in place, going on where its record stopped, and measure the solution.

    Losses and accuracies are those of the model in use, on the examples to train on and on those
    to test on; sharpness is that of the loss in the mode of training. The gap is
    :math:`|L_\mathrm{test} - L_\mathrm{train}|`, with the label smoothing of the recipe as in
    MacDonald et al. (arXiv:2305.14683), and, as ``label_gap``, without any.

    Args:
        recipe: how.
        model: at its initialisation.
        data: to train and to test on.
        record: gets rows along training and at the end; is finished, also where training diverged.
        seed: of batches, and of what regularisers draw.
        chunk: examples to go through at a time, in measuring.
        every: steps between measurements along training.
        measured_on: examples to train on that ``along`` and ``at_end`` are measured on, at most;
            0 for all.
        loss: by its name.
        along: what else is measured along training.
        at_end: what is measured after the last step, if training gets there.
        further: yields other numbers that are, by their names.
    """
    steps = recipe.steps(len(data.train[0]))
    made = partial(Problem, model, loss, label_smoothing=recipe.label_smoothing, mode="train")
    trained, held_out = (made(in_chunks(part, chunk)) for part in (data.train, data.test))
    few = on_first(trained, measured_on, len(data.train[0]))
    due = {*range(0, steps, every), steps}
    trackers = (
        Tracker(trained, losses(TRAIN, loss), record, due),
        *([Tracker(few, along, record, due)] if along else []),
        Tracker(held_out, losses(TEST, loss), record, due),
        Tracker(few, at_end, record, [steps]),
    )
    record.update(data=data.scaling)
    record.describe(ForReport(planned_at_end=tuple(metric.name for metric in at_end)))

    def at_step(step: int) -> None:
        for tracker in trackers:
            tracker(step)
        if step == steps:
            for numbers in chain([gaps(record)], further(trained.refreshed())):
                append_missing(record, step, numbers)

    optimizers = recipe.optimizers(model)
    training = partial(recipe.training, model, trained.criterion, data, seed=seed)
    ended = train(
        model, record, partial(training, optimizers=optimizers), steps=steps, every=every,
        at_step=at_step, optimizers=optimizers,
        others=_with_state(objective_of(model, loss, (), recipe.regularizers)),
    )  # fmt: skip
    record.finish(ended)


def _with_state(objective: Objective) -> list[Stateful]:
    """The quantities of penalties that have a state."""
    quantities: list[object] = [quantity for quantity, _ in objective.penalties]
    return [quantity for quantity in quantities if isinstance(quantity, Stateful)]


def gaps(record: Record) -> dict[str, float]:
    """The gaps between the last losses on the two sets of examples, of those that are recorded."""
    ends = last_values(record)
    return {
        gap: abs(ends[TEST + loss] - ends[TRAIN + loss])
        for gap, loss in {GAP: LOSS, LABEL_GAP: LABEL_LOSS}.items()
        if TRAIN + loss in ends
    }


def mediators(problem: Problem, seed: int) -> Iterator[dict[str, float]]:
    r"""Yield, layer by layer, the mediators of :func:`lossgeom.layer_summands`, by their names.

    Each name holds the number of a layer. That is ``root`` (the norm of C) and, for each layer
    from the first, ``summand_1`` (the largest eigenvalue of its part of the Gauss-Newton matrix),
    ``tail_jacobian_1`` and ``layer_jacobian_1`` (the norms of what it is made of). Cost: some 30
    gradients of these examples for a layer, of which one is held at a time.
    """

    def sizes(number: int, summand: LayerSummand) -> dict[str, float]:
        layer = summand.mediators(tol=0.01, max_matvecs=50, seed=seed)
        root = {"root": layer.root.value} if number == 1 else {}  # it is that of all layers
        return root | {
            f"summand_{number}": layer.eigenvalue.value,
            f"tail_jacobian_{number}": layer.tail_jacobian.value,
            f"layer_jacobian_{number}": layer.layer_jacobian.value,
        }

    yield from map(sizes, count(1), each_layer_summand(problem))  # which holds one at a time
