"""Training with SGD on a task of which all is known, and the bounds where that ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.adversarial import logit_change
from lossgeom.bounds import cell_bounds, generalisation_bounds, input_gradients, stable_trace
from lossgeom.lab.generators import ManifoldTask, tanh_surface
from lossgeom.lab.models import mlp
from lossgeom.lab.studies._stages import Stage, run_stages
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.smoothness_bounds.config import Config
from lossgeom.lab.training import sgd
from lossgeom.problem import Problem
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import ForReport, Prediction
from lossgeom.recording.record import Record
from lossgeom.smoothness import jacobian_norms, sobolev_seminorms

OTHER = 1000  # added to a seed for inputs that are new
LOOK_EVERY = 100  # steps
FEW = 1  # ball on which an ascent looks for the lower side of a bound
ANY = "generalisation, k = 1, any cells"
Numbers = dict[str, float]


def run(run: SeedRun[Config], record: Record) -> None:
    """Go through the stages."""
    record.describe(ForReport(predictions=("traces", "rates")))
    run_stages(stages(run.study), run, record)


def stages(study: Config) -> dict[str, Stage]:
    """One for each learning rate and batch size, each sample size, and two figures."""
    grid = {
        name_of_end(lr, size): partial(end, lr, size)
        for lr in study.lr
        for size in study.batch_size
    }
    sizes = {name_of_size(n): partial(at_size, n) for n in study.sizes}
    return {**grid, "unfitted": unfitted, "traces": traces, **sizes, "rates": rates}


def name_of_end(lr: float, batch_size: int) -> str:
    """The stage of a learning rate and a batch size."""
    return f"lr{lr:g}-batch{batch_size}"


def name_of_size(n: int) -> str:
    """The stage of a number of examples."""
    return f"examples{n}"


@dataclass(frozen=True, eq=False)
class Learned:
    """A network at the end of its training, and what it was trained on.

    Attributes:
        task: what it was to learn, as a function of the latent inputs.
        model: the network.
        inputs: the examples.
        targets: theirs.
        fits: whether it got below the loss of interpolation.
    """

    task: ManifoldTask
    model: nn.Sequential
    inputs: Float[Tensor, "n d"]
    targets: Float[Tensor, "n 1"]
    fits: bool

    @property
    def problem(self) -> Problem:
        """Its squared error."""
        return Problem(self.model, "squared_error", [(self.inputs, self.targets)], check=False)


def learn(study: Config, lr: float, batch_size: int, n: int, seed: int, steps: int) -> Learned:
    """Train on n examples until they are interpolated, or for some steps."""
    task = tanh_surface(study.dimension, seed)
    u, _, y = task.sample(n, seed)
    model = mlp(study.dimension, 1, study.widths, "gelu", seed).double()
    for parameter in model[0].parameters():
        parameter.data *= study.scale
    fits = False
    training = sgd(
        model, "squared_error", (u, y), lr=lr, batch_size=batch_size, steps=steps, seed=seed,
        sampling="without replacement",
    )  # fmt: skip
    for step in training:
        if step % LOOK_EVERY == 0:
            with torch.no_grad():
                fits = bool((model(u) - y).square().mean() / 2 < study.interpolation)
            if fits:
                break
    return Learned(task, model, u, y, fits)


def end(lr: float, batch_size: int, run: SeedRun[Config], _: Record) -> Numbers:
    """What is promised and what is measured, where a run of SGD ends; NaN if it does not fit.

    Returns:
        The trace of the Hessian (``"value"``) and what the settings allow it to be
        (``"value_bound"``); the mean error on new inputs (``"error"``) and its bound
        (``"error_bound"``); the same of attacks (``"attack"``, ``"attack_bound"``) and of gradients
        in the input (``"g_x"``, ``"g_x_bound"``); and the largest ratio of what an attack found
        and the gradient at the nearest example allows by itself (``"first_order"``).
    """
    study, n = run.study, run.study.examples
    found = learn(study, lr, batch_size, n, run.seed, study.steps)
    if not found.fits:
        return {"value": math.nan}
    bounds = cell_bounds(
        found.model, found.task.target, found.inputs, found.task.latent, attack=study.attack,
        orders=(), epsilon=study.epsilon, searched=FEW, seed=run.seed,
    )  # fmt: skip
    u, moved = new_inputs(study, found, run.seed)
    nearest = torch.cdist(u, found.inputs).argmin(1)
    allowed = stable_trace(lr, batch_size, n, rank=n).value
    weight = found.model.get_parameter("0.weight").detach()
    norm = torch.linalg.matrix_norm(weight, 2).item()
    shortest = float((found.inputs.square().sum(1) + 1).sqrt().min())  # with the bias
    slopes = study.attack * jacobian_norms(found.problem).values[nearest]
    return {
        "value": sobolev_seminorms(found.problem, "parameters", [1]).elementwise[1] ** 2,
        "value_bound": allowed,
        "error": error(found, u),
        "error_bound": bounds["generalisation"].value,
        "attack": float(moved.mean()),
        "attack_bound": bounds["robustness"].value,
        "first_order": float((moved / slopes).max()),
        "g_x": sobolev_seminorms(found.problem, "input", [1]).elementwise[1],
        "g_x_bound": input_gradients(norm, shortest, math.sqrt(allowed)).value,
    }


def new_inputs(
    study: Config, found: Learned, seed: int
) -> tuple[Float[Tensor, "M d"], Float[Tensor, " M"]]:
    """New inputs, and how far the outputs move by attacks on them."""
    u, _, y = found.task.sample(study.new, seed + OTHER)
    problem = Problem(found.model, "squared_error", [(u, y)], check=False)
    change = logit_change(problem, study.attack, steps=10, restarts=1, seed=seed, certify=False)
    return u, change.lower[0]


@torch.no_grad()
def error(found: Learned, u: Float[Tensor, "M d"]) -> float:
    """The mean distance from the target."""
    return float((found.model(u) - found.task.target(u)).norm(dim=1).mean())


def unfitted(run: SeedRun[Config], _: Record) -> Numbers:
    """The error of the network as it was initialised, over its bound without the misfit."""
    study = run.study
    found = learn(study, study.lr[0], study.examples, study.examples, run.seed, 0)
    bound = cell_bounds(
        found.model, found.task.target, found.inputs, found.task.latent, orders=(),
        epsilon=study.epsilon, searched=FEW, seed=run.seed,
    )["generalisation"]  # fmt: skip
    u = found.task.latent.sample(study.new, run.seed + OTHER)
    return {"value": error(found, u) / (bound.value - bound.terms["fit"])}


def at_size(n: int, run: SeedRun[Config], _: Record) -> Numbers:
    """Bounds on the error with n examples: those of paper A, and those by cells.

    Returns:
        The bound by cells of whatever masses (``"value"``), the same with their masses by the
        moment of gradients (``"masses"``), theorem 6.1 (``"theorem"``), its smooth difference form
        (``"smooth"``), and the error (``"error"``); NaN where the examples are not fitted.
    """
    study = run.study
    found = learn(study, study.lr[-1], study.batch_size[0], n, run.seed, study.steps)
    if not found.fits:
        return {"value": math.nan}
    given = (found.model, found.task.target, found.inputs, found.task.latent)
    settings: dict[str, Any] = {"epsilon": study.epsilon, "searched": FEW, "seed": run.seed}
    cells, others = cell_bounds(*given, **settings), generalisation_bounds(*given, **settings)
    u = found.task.latent.sample(study.new, run.seed + OTHER)
    return {
        "value": cells[ANY].value,
        "masses": cells["generalisation, k = 1"].value,
        "theorem": others["ambient"].value,
        "smooth": others["smooth difference"].value,
        "error": error(found, u),
    }


# Figures


def traces(run: SeedRun[Config], record: Record) -> Numbers:
    """Draw the trace at the smallest batch over the learning rate; the value is the last."""
    study = run.study
    names = [name_of_end(lr, study.batch_size[0]) for lr in study.lr]
    drawing = Prediction(
        "Where SGD ends", "learning rate", "trace of the Hessian", "what the settings allow",
        log_x=True,
    )  # fmt: skip
    return drawn(record, "traces", drawing, study.lr, names, "value", "value_bound")


def rates(run: SeedRun[Config], record: Record) -> Numbers:
    """Draw bounds on the error over the number of examples; the value is the last."""
    sizes, names = run.study.sizes, list(map(name_of_size, run.study.sizes))
    drawing = Prediction(
        "Bounds on the error", "examples", "bound by cells of any masses",
        "theorem 6.1 of paper A, first seed", log_x=True,
    )  # fmt: skip
    return drawn(record, "rates", drawing, sizes, names, "value", "theorem")


def drawn(
    record: Record,
    name: str,
    drawing: Prediction,
    x: tuple[float, ...],
    stages: list[str],
    measured: str,
    line: str,
) -> Numbers:
    """Save a figure of two numbers of some stages."""
    rows = {row["metric"]: row for row in record.rows()}
    y, line_y = (
        torch.tensor([rows[stage].get(each, math.nan) for stage in stages], dtype=torch.float64)
        for each in (measured, line)
    )
    places = torch.tensor(x, dtype=torch.float64)
    arrays = {"x": places, "y": y[:, None], "line_x": places.clone(), "line_y": line_y}
    save_drawing(record, name, drawing, arrays)
    return {"value": y[-1].item()}
