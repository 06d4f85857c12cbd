"""Thresholds of SGD, by themselves and beside SGD that starts at a minimum or looks for one."""

from __future__ import annotations

import math
import statistics
from functools import partial

import torch
from torch import Tensor

from lossgeom.lab.statistics import known
from lossgeom.lab.studies._stages import Stage, run_stages
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.sgd_stability.config import Config
from lossgeom.lab.studies.sgd_stability.linearised import (
    POINTS,
    SAMPLINGS,
    every_batch,
    growth,
    plain_growth,
    population_growth,
    random_problems,
    threshold,
)
from lossgeom.lab.studies.sgd_stability.minimum import (
    LEFT,
    descended,
    distance_after,
    independent_sgd,
    network,
    problem_of,
)
from lossgeom.problem import Problem
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import Boundary, ForReport, Prediction
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.stability import UndefinedError, batch_sharpness
from lossgeom.stability.sgd import (
    ExampleCurvatures,
    example_curvatures,
    mean_square_threshold,
    mean_square_thresholds,
)

MULTIPLES = (0.95, 1.0, 1.05)  # of the threshold, at which growth is compared
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of batches in the figure
BATCHES = 60  # that batch sharpness is a mean over
Numbers = dict[str, float]


def run(run: SeedRun[Config], record: Record) -> None:
    """Go through the stages."""
    record.describe(ForReport(boundaries=("boundary",), predictions=("ends",)))
    run_stages(stages(run.study), run, record)


def stages(config: Config) -> dict[str, Stage]:
    """What is computed, by the names of the rows."""
    starts = {
        name_of_start(batch_size, multiple): partial(start, batch_size, multiple)
        for batch_size in config.batch_size
        for multiple in (config.below, config.above)
    }
    runs = {name_of_end(lr, size): partial(end, lr, size) for lr, size in config.noisy}
    return {
        "enumeration": enumeration, "population": population, "minimum": minimum, **starts,
        "full_batch_above_1": full_batch_above_1, "one_below_full_batch": one_below_full_batch,
        "boundary": boundary, **runs, "ends": ends,
    }  # fmt: skip


def name_of_start(batch_size: int, multiple: float) -> str:
    """The stage of SGD that starts at the minimum."""
    return f"start_batch{batch_size}_at{multiple:g}"


def name_of_end(lr: float, batch_size: int) -> str:
    """The stage of SGD that looks for a minimum."""
    return f"end_lr{lr:g}_batch{batch_size}"


# Where all batches can be listed


def enumeration(run: SeedRun[Config], _: Record) -> Numbers:
    """The largest relative difference between the exact threshold and that by trying."""
    worst = 0.0
    points = torch.tensor(POINTS, dtype=torch.float64)
    for gradients in (points, *random_problems(run.study.problems, run.seed)):
        curvatures = ExampleCurvatures.of(gradients[:, None])
        for batch_size in range(1, len(gradients) + 1):
            for sampling in SAMPLINGS:
                exact = mean_square_threshold(curvatures, batch_size, sampling=sampling)
                tried = threshold(every_batch(gradients, batch_size, sampling))
                worst = max(worst, abs(exact / tried - 1))
    return {"value": worst}


def population(run: SeedRun[Config], _: Record) -> Numbers:
    """The largest difference between the growth of a population and that of second moments.

    The population is held to what theory says of it, at a threshold that is computed without it:
    growth is 1 there. The same for replicas that go their own ways is ``"plain"``.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    curvatures = ExampleCurvatures.of(points[:, None])
    settings = (run.study.replicas, run.study.population_steps, run.seed)
    found: dict[str, list[float]] = {"value": [], "plain": []}
    for batch_size in range(1, len(points)):
        batches = every_batch(points, batch_size, "without replacement")
        edge = mean_square_threshold(curvatures, batch_size)
        for multiple in MULTIPLES:
            lr = multiple * edge
            expected = 1.0 if multiple == 1 else growth(batches, lr)
            found["value"].append(abs(population_growth(batches, lr, *settings) / expected - 1))
            found["plain"].append(abs(plain_growth(batches, lr, *settings) / expected - 1))
    return {name: max(values) for name, values in found.items()}


# At a minimum


def minimum(run: SeedRun[Config], record: Record) -> Numbers:
    """The minimum of full-batch descent, whose parameters are kept; the value is its loss.

    The threshold of the full batch there over the learning rate of descent is ``"ratio"``.
    """
    problem = descended(run)
    curvatures = example_curvatures(problem)
    n = run.study.network.examples
    asked = (*run.study.batch_size, *run.study.noisy_batch_size)
    sizes = sorted({*(size for size in SIZES if size < n), *asked, n})
    arrays = {
        "theta": problem.theta,
        "batch_size": torch.tensor(sizes, dtype=torch.float64),
        "threshold": torch.tensor(mean_square_thresholds(curvatures, sizes), dtype=torch.float64),
    }
    record.save_arrays("minimum", arrays)
    return {
        "value": problem.loss(),
        "sharpness": curvatures.sharpness,
        "trace": curvatures.trace,
        "ratio": arrays["threshold"][-1].item() / run.study.lr,
    }


def thresholds(record: Record) -> dict[int, float]:
    """The thresholds at the minimum of full-batch descent, by batch size."""
    found = _kept(record)
    pairs = zip(found["batch_size"].tolist(), found["threshold"].tolist(), strict=True)
    return {int(size): value for size, value in pairs}


def _kept(record: Record) -> dict[str, Tensor]:
    held = record.load_arrays("minimum")
    if held is None:
        raise RecordError(f"{record.path} has a row for the minimum, but not its arrays")
    return held[0]


def _distance(run: SeedRun[Config], record: Record, batch_size: int, lr: float) -> Numbers:
    farthest = distance_after(run, _kept(record)["theta"], lr, batch_size)
    return {"value": farthest, "left": float(not farthest < LEFT), "lr": lr}


def start(batch_size: int, multiple: float, run: SeedRun[Config], record: Record) -> Numbers:
    """How far SGD gets from the minimum, with a learning rate in parts of its threshold."""
    return _distance(run, record, batch_size, multiple * thresholds(record)[batch_size])


def full_batch_above_1(run: SeedRun[Config], record: Record) -> Numbers:
    """The same for the full batch, above the threshold of single examples."""
    lr = run.study.above * thresholds(record)[1]
    return _distance(run, record, run.study.network.examples, lr)


def one_below_full_batch(run: SeedRun[Config], record: Record) -> Numbers:
    """The same for single examples, below the threshold of the full batch."""
    n = run.study.network.examples
    return _distance(run, record, 1, run.study.below * thresholds(record)[n])


def boundary(run: SeedRun[Config], record: Record) -> Numbers:
    """The figure of what stays and what leaves; the value is the number of its runs."""
    found = thresholds(record)
    sizes, n = list(found), run.study.network.examples
    rows = {row["metric"]: row for row in record.rows()}
    places = {
        name_of_start(size, multiple): size
        for size in run.study.batch_size
        for multiple in (run.study.below, run.study.above)
    } | {"full_batch_above_1": n, "one_below_full_batch": 1}
    drawing = Boundary(
        title=f"seed {run.seed}",
        x_label="batch size",
        y_label="learning rate",
        lines={"threshold": "threshold of SGD", "full_batch": "threshold of the full batch"},
        stays="stays at the minimum",
        leaves="leaves it",
    )
    arrays = {
        "x": torch.tensor(sizes),
        "threshold": torch.tensor(list(found.values())),
        "full_batch": torch.full((len(sizes),), found[n]),
        "points_x": torch.tensor(list(places.values())),
        "points_y": torch.tensor([rows[name]["lr"] for name in places]),
        "left": torch.tensor([rows[name]["left"] for name in places]),
    }
    save_drawing(record, "boundary", drawing, {k: v.double() for k, v in arrays.items()})
    return {"value": len(places)}


# Where SGD ends


def end(lr: float, batch_size: int, run: SeedRun[Config], record: Record) -> Numbers:
    """Train with SGD, and compare where it ends with what its learning rate allows.

    Returns:
        The threshold there over the learning rate (``"value"``), the same of the minimum of
        full-batch descent (``"descent"``), the median of batch sharpness over 2 / lr in the second
        half of training (``"batch"``), the threshold itself, and the loss. Where training diverged,
        NaN and the step at which it did.
    """
    steps, step, sharpnesses = run.study.noisy_steps, 0, []
    model, examples = network(run)
    problem = problem_of(run, model, examples)
    for step in independent_sgd(run, model, examples, lr, batch_size, steps):
        if 2 * step >= steps and step % run.study.every == 0:
            sharpnesses.append(sharpness_of_batches(problem.refreshed(), batch_size))
    descent = thresholds(record)[batch_size] / lr
    if step < steps:
        return {"value": math.nan, "descent": descent, "batch": math.nan, "diverged_at": step}
    problem = problem.refreshed()
    found = mean_square_threshold(example_curvatures(problem), batch_size)
    return {
        "value": found / lr,
        "descent": descent,
        "batch": statistics.median(known(sharpnesses) or [math.nan]) * lr / 2,
        "threshold": found,
        "loss": problem.loss(),
    }


def sharpness_of_batches(problem: Problem, batch_size: int) -> float:
    """Batch sharpness at a point; NaN where the gradient of a batch is zero."""
    try:
        return batch_sharpness(problem, batch_size=batch_size, batches=BATCHES).value
    except UndefinedError:
        return math.nan


def ends(run: SeedRun[Config], record: Record) -> Numbers:
    """The figure of thresholds where SGD has ended; the value is how many runs did not diverge."""
    rows = {row["metric"]: row for row in record.rows()}
    noisy = sorted(run.study.noisy)
    found = [rows[name_of_end(*each)].get("threshold", math.nan) for each in noisy]
    rates = torch.tensor([lr for lr, _ in noisy], dtype=torch.float64)
    drawing = Prediction(
        title="Where SGD ends",
        x_label="learning rate of SGD",
        y_label="threshold of SGD there",
        line_label="its own learning rate",
        log_x=True,
    )
    values = torch.tensor(found, dtype=torch.float64)
    arrays = {"x": rates, "y": values[:, None], "line_x": rates.clone(), "line_y": rates.clone()}
    save_drawing(record, "ends", drawing, arrays)
    return {"value": float(values.isfinite().sum())}
