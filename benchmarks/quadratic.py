"""``python -m benchmarks.quadratic``: many random second-order regression models at once.

Batched gradient descent beside the tensor contractions that it cannot do without, and beside
Python loops over runs. The unit is the contractions of one chunk of runs, all steps long, timed
in the same round. Loops are timed on a few runs, and their times scaled to as many as the unit has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.machine import commit, machine, now, slug
from benchmarks.timing import Lap, race, timed
from lossgeom.quadratic import Dense, Descent, QuadraticModel, RandomModels, descend, random_models
from lossgeom.quadratic.descent import CACHE

FOLDER, FILE = "quadratic", "random.json"
ERROR = 1e-9  # relative, of J after all steps or of a contraction
UNIT_RUNS = 15  # what fits in 4 MiB at D = 20, P = 40
A, CURVATURE = 0.4, 1.2  # in the band that comes to the edge of stability


@dataclass(frozen=True)
class Options:
    """Sizes of the runs."""

    runs: int = 10_000
    """In one batched call."""
    outputs: int = 20
    """D."""
    parameters: int = 40
    """P."""
    steps: int = 1_000
    """Of gradient descent."""
    loop_runs: int = 4
    """That Python loops are timed on."""
    repeats: int = 3
    """Rounds, whose medians are reported."""
    out: Path = Path("benchmarks/results")
    """A folder in it, named after the machine, gets a JSON."""


def contractions(model: QuadraticModel, steps: int) -> Tensor:
    """Compute J g, Q(g, .) and Q(g, g) with g = J^T z in every step; return Q(g, g)."""
    z, J, R = model.y[:, None], model.G, model.runs
    D, P = J.shape[1:]
    own = model.Q.runs is not None
    Q = dense(model).transpose(-3, -2).reshape(-1, P, D * P)
    g, Jg, Qg, Qgg = (torch.empty(R, 1, n, dtype=J.dtype) for n in (P, D, D * P, D))
    square = Qg.view(R, D, P).mT
    for _ in range(steps):
        torch.bmm(z, J, out=g)
        torch.bmm(g, J.mT, out=Jg)
        if own:
            torch.bmm(g, Q, out=Qg)
        else:
            torch.mm(g[:, 0], Q[0], out=Qg[:, 0])
        torch.bmm(g, square, out=Qgg)
    return Qgg[:, 0]


def dense(model: QuadraticModel) -> Tensor:
    """All entries of Q."""
    if not isinstance(model.Q, Dense):
        raise TypeError(f"expected a dense Q, got {type(model.Q).__name__}")
    return model.Q.Q


Loop = Callable[..., Any]
Models = QuadraticModel | RandomModels


def loop_matmul(z: Any, J: Any, Q: Any, steps: int) -> Any:
    """Descend one run with matrix products of NumPy or torch. The final J."""
    for _ in range(steps):
        g = J.T @ z
        Qg = Q @ g
        z, J = z - J @ g + 0.5 * Qg @ g, J - Qg
    return J


def loop_einsum(einsum: Any, z: Any, J: Any, Q: Any, steps: int) -> Any:
    """Descend one run, as the formula is written."""
    for _ in range(steps):
        g = J.T @ z
        z = z - J @ g + 0.5 * einsum("aij,i,j->a", Q, g, g)
        J = J - einsum("aij,j->ai", Q, g)
    return J


def loop_flat(z: Any, J: Any, Q: Any, steps: int) -> Any:
    """Descend one run as fast as we can write it: Q is one matrix, J is updated in place."""
    J, matrix = J + 0, Q.reshape(-1, Q.shape[-1])
    for _ in range(steps):
        g = z @ J
        Qg = (matrix @ g).reshape(J.shape)
        z = z - J @ g
        J -= Qg
        z += 0.5 * (Qg @ g)
    return J


LOOPS: dict[str, tuple[Loop, bool]] = {
    "loop, torch, matmul": (loop_matmul, False),
    "loop, torch, einsum": (partial(loop_einsum, torch.einsum), False),
    "loop, torch, one matrix": (loop_flat, False),
    "loop, NumPy, matmul": (loop_matmul, True),
    "loop, NumPy, one matrix": (loop_flat, True),
    "loop, NumPy, einsum": (partial(loop_einsum, np.einsum), True),
}


def singles(model: QuadraticModel) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Residuals, Jacobian and Q of every run."""
    Q = dense(model).expand(model.runs, -1, -1, -1).contiguous()
    return list(zip(model.y, model.G, Q, strict=True))


def worst(found: Tensor, right: Tensor) -> float:
    """The largest relative error of a run."""
    return float(((found - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)).max())


@dataclass(frozen=True)
class Bench:
    """Seconds for as many runs as the unit has, and the error."""

    options: Options

    def scaled(self, seconds: float, runs: int) -> float:
        """Scale the seconds of so many runs to those of the unit."""
        return seconds * min(UNIT_RUNS, self.options.runs) / runs

    def few(self, models: Models) -> QuadraticModel:
        """The runs that loops go through."""
        return models.rows(slice(self.options.loop_runs))

    def batched(self, models: Models) -> tuple[float, float]:
        """Time one call, which draws the models if they are random."""
        seconds, found = timed(lambda: descend(models, Descent(self.options.steps)))
        few = self.few(models)
        right = torch.stack([loop_matmul(*run, self.options.steps) for run in singles(few)])
        return self.scaled(seconds, models.runs), worst(found.final["J"][: few.runs], right)

    def contracted(self, models: Models, size: int) -> tuple[float, float]:
        """Time contractions chunk after chunk, drawn before the clock runs."""
        total, error = 0.0, 0.0
        for i in range(0, models.runs, size):
            model = models.rows(slice(i, i + size))
            seconds, found = timed(partial(contractions, model, self.options.steps))
            g = model.at(model.origin).pullback(model.y)
            right = (model.Q.contract(g) @ g[:, :, None])[:, :, 0]
            total, error = total + seconds, max(error, worst(found, right))
        return self.scaled(total, models.runs), error

    def looped(self, models: Models, loop: Loop, numpy: bool) -> tuple[float, float]:
        """Time a loop over runs in Python."""
        runs = singles(self.few(models))
        right = torch.stack([loop_matmul(*run, self.options.steps) for run in runs])
        given: list[Any] = [tuple(part.numpy() if numpy else part for part in run) for run in runs]
        seconds, Js = timed(lambda: [loop(*run, self.options.steps) for run in given])
        found = torch.stack([torch.as_tensor(J) for J in Js])
        return self.scaled(seconds, len(runs)), worst(found, right)


def with_one(models: RandomModels) -> QuadraticModel:
    """The starts of all models with the Q of the first."""
    chunks = (models.rows(slice(i, i + 100)) for i in range(0, models.runs, 100))
    y, G = zip(*((chunk.y, chunk.G) for chunk in chunks), strict=True)
    return QuadraticModel(torch.cat(y), torch.cat(G), Dense(dense(models.rows(slice(1)))[0]))


def measure(options: Options) -> dict[str, Lap]:
    """Race all competitors, in units of contractions."""
    bench, sizes = Bench(options), (options.runs, options.outputs, options.parameters)
    models = random_models(*sizes, a=A, initial_curvature=CURVATURE)
    first, shared = models.rows(slice(UNIT_RUNS)), with_one(models)
    runs: dict[str, Callable[[], tuple[float, float]]] = {
        "contractions": partial(bench.contracted, models, UNIT_RUNS),
        "lossgeom": partial(bench.batched, models),
        "contractions, one Q": partial(bench.contracted, shared, CACHE // shared.bytes_per_run),
        "lossgeom, one Q": partial(bench.batched, shared),
        **{name: partial(bench.looped, models, *loop) for name, loop in LOOPS.items()},
    }

    def unit() -> None:
        contractions(first, options.steps)

    with torch.no_grad():
        return race(runs, unit, _verdict, options.repeats)


def _verdict(error: float) -> dict[str, object]:
    return {"status": "right" if error <= ERROR else "wrong", "error": error}


def table(record: Mapping[str, Any]) -> str:
    """Write the table of the documentation."""
    sizes, laps = record["options"], record["laps"]
    ours = laps["lossgeom"]["gradients"]
    lines = [
        "#### Gradient descent of random second-order regression models",
        f"{sizes['runs']:,} runs of {sizes['steps']:,} steps with D = {sizes['outputs']}, "
        f"P = {sizes['parameters']} and a Q each, in one call that draws them, too; "
        f"{record['machine']['cpu']}, threads: {record['machine']['torch_threads']}, "
        f"{record['date'][:10]}, commit {record['commit']}. The unit is the time of the tensor "
        "contractions alone on a chunk in the cache, taken in the same round. Loops over runs are "
        f"timed on {sizes['loop_runs']} runs.",
        "| | contractions | by lossgeom's | error |\n| --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {name} | {lap['gradients']:.3g} | {lap['gradients'] / ours:.3g} | "
            f"{lap['error']:.0e} |"
            for name, lap in laps.items()
        ),
    ]
    return "\n\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.quadratic")
    about = machine()
    laps = {name: lap.summary() for name, lap in measure(options).items()}
    record = {
        "options": {name: value for name, value in asdict(options).items() if name != "out"},
        "machine": about,
        "date": now(),
        "commit": commit(),
        "laps": laps,
    }
    file = options.out / slug(about) / FOLDER / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    sys.stderr.write(f"{table(record)}\n\nwrote {file}\n")
    return 0 if all(lap["status"] == "right" for lap in laps.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
