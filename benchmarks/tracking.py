"""``python -m benchmarks.tracking``: what watching a run costs, as tables of the docs.

The sharpness at every step of full-batch gradient descent, in units of a step: a gradient and the
update. All that is timed at a step is timed one after the other, at the same parameters, in seconds
of the processor, which other processes change little. Also forward passes of a critical step,
thresholds of SGD, and a step that a watch has nothing to do at.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
import tyro
from torch import Tensor, nn
from torch.optim import SGD

import lossgeom as lg
from benchmarks.cases import CASES, INITIAL, Case
from benchmarks.machine import commit, machine, now
from benchmarks.table import markdown, publish
from benchmarks.tracking_runs import TOL, Run, below, eigsh, power_iteration, runs
from lossgeom.estimate import Estimate
from lossgeom.metrics import Sharpness, Step
from lossgeom.stability import loss_rounding, optimizer_state
from lossgeom.stability.sgd.mean_square import mean_square_thresholds

BEGIN, END = "<!-- tracking: begin -->", "<!-- tracking: end -->"
COLD, SOMETIMES = "lossgeom, from scratch", 20  # in one of so many steps for the slowest
WARM, TRACKED = "lossgeom, from the step before", "lossgeom, tracked"
T = TypeVar("T")
BATCH_SIZES = (1, 2, 5, 10, 50, 500)


@dataclass(frozen=True)
class Options:
    """Sizes of the runs."""

    steps: int = 200
    """Of gradient descent."""
    before: int = 200
    """Steps of the run at the edge before those that are measured."""
    compare: int = 1
    """Of so many steps, one is measured from scratch, too, which the others are judged by."""
    examples: int = 500
    """Of the thresholds of SGD."""
    quick: bool = False
    """Little data: shows that everything runs."""
    models: tuple[str, ...] = ()
    """Further models of the benchmarks to follow, such as vgg and gpt; each takes minutes."""
    into: Path | None = None
    """A page with the two lines that the tables go between; None prints them."""


@dataclass
class Tally:
    """What one way to follow the sharpness cost, and how good it was.

    Attributes:
        seconds: of the calls.
        units: of steps at the same parameters.
        products: with the Hessian.
        errors: relative to the larger of the values from scratch and from the step before.
        judged: how many predicted values were compared.
        covered: how many of these were off by no more than they said.
    """

    seconds: float = 0.0
    units: list[float] = field(default_factory=list)
    products: int = 0
    errors: list[float] = field(default_factory=list)
    predicted: int = 0
    judged: int = 0
    covered: int = 0

    def add(self, found: Estimate, right: float | None, seconds: float, unit: float) -> None:
        """Count one value, and compare it with the right one if that is known."""
        self.seconds += seconds
        self.units.append(unit)
        self.products += found.matvecs
        self.predicted += found.predicted
        if right is not None:
            off = abs(found.value - right)
            self.errors.append(off / abs(right))
            self.judged += found.predicted
            self.covered += found.predicted and off <= (found.stderr or 0.0)

    @property
    def extra(self) -> float:
        """The time of a call, in steps."""
        return self.seconds / len(self.units) / statistics.median(self.units)

    def row(self, name: str) -> list[str]:
        """A line of the table."""
        n, told = len(self.units), f"{self.covered / self.judged:.0%}" if self.judged else ""
        return [
            name,
            f"{self.extra:.2f}",
            f"{self.products / n:.2f}",
            f"{self.predicted / n:.0%}" if self.predicted else "0",
            f"{max(self.errors):.1e}",
            f"{statistics.median(self.errors):.1e}",
            told,
        ]


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """Call a function; return the seconds of the processor that it took, and the result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


HEAD = (
    "", "extra steps", "products", "predicted", "largest error", "median error",
    "predicted values within their error",
)  # fmt: skip

Follow = Callable[[Step], Estimate]


def followers(case: Case, compare: int = 1) -> dict[str, tuple[Follow, int]]:
    """Ways to follow the sharpness, and at one of how many steps they are called."""
    warm: dict[str, Tensor] = {}
    return {
        COLD: (lambda step: lg.sharpness(step.before, tol=TOL), compare),
        WARM: (Sharpness(TOL).of_step, compare),
        TRACKED: (Sharpness(TOL, tracked=True).of_step, 1),
        "power iteration, from the step before": (partial(power_iteration, case, warm), compare),
        "power iteration, from scratch": (
            lambda step: power_iteration(case, {}, step),
            SOMETIMES * compare,
        ),
        "SciPy eigsh, from scratch": (partial(eigsh, case), SOMETIMES * compare),
    }


@dataclass
class Critical:
    """What critical steps cost along a run."""

    start: float | None = None
    rounding: float = 0.0
    passes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    beside_loss: float = 0.0

    def add(self, step: Step, warm: bool) -> None:
        """Measure one, from the one before; the first, from none, does not count."""
        fresh = step.before.at(step.before.theta)  # whose loss is not known yet
        if not warm:
            self.rounding = loss_rounding(fresh)
            fresh = step.before.at(step.before.theta)
        of_loss, _ = timed(fresh.loss)
        spent, found = timed(
            lambda: lg.critical_step(fresh, step.update, start=self.start, rounding=self.rounding)
        )
        self.start = found.value
        if warm:
            self.passes.append(found.passes)
            self.seconds += of_loss + spent
            self.beside_loss += spent


def follow(run: Run, count: int, compare: int = 1) -> tuple[dict[str, Tally], Critical]:
    """Follow the sharpness of a run in all ways, and the critical step."""
    case, critical = run.case, Critical()
    problem = lg.Problem(case.model, case.loss, case.batches, mode=case.mode)
    start = lg.sharpness(problem).value  # which makes the checks that are made once
    optimizer = SGD(case.model.parameters(), run.lr or 1 / start)
    for _ in range(run.before):
        take(case, optimizer)
    ways = followers(case, compare)
    tallies = {name: Tally() for name in ways}
    memories: dict[str, dict[str, object]] = {name: {} for name in ways}
    for number in range(count):
        before, state = problem.refreshed(), optimizer_state(problem, optimizer)
        unit, _ = timed(partial(take, case, optimizer))
        made = Step(before, problem.refreshed().theta - before.theta, state)
        due = {name: way for name, (way, every) in ways.items() if number % every == 0}
        made_for = {
            name: replace(made, before=before.at(before.theta), memory=memories[name])
            for name in due
        }
        found = {name: timed(partial(due[name], made_for[name])) for name in due}
        known = [found[name][1].value for name in (COLD, WARM) if name in found]
        right = max(known, default=None)  # no Rayleigh quotient is above the largest eigenvalue
        for name, (spent, estimate) in found.items():
            tallies[name].add(estimate, right, spent, unit)
        critical.add(made, warm=number > 0)
    return tallies, critical


def take(case: Case, optimizer: SGD) -> None:
    """Take a step of training."""
    optimizer.zero_grad()
    for x, y, share in case.weighted():
        (share * case.criterion(case.model(x), y)).backward()
    optimizer.step()


def thresholds(examples: int) -> str:
    """Thresholds of SGD for six batch sizes, of a perceptron with 5,017 parameters."""
    x = torch.randn(examples, 64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL)
        model = nn.Sequential(nn.Linear(64, 76), nn.Tanh(), nn.Linear(76, 1))
    problem = lg.Problem(model, "squared_error", [(x, x[:, :1])], mode="eval")
    sizes = [min(size, examples) for size in BATCH_SIZES]
    seconds, _ = timed(lambda: mean_square_thresholds(lg.example_curvatures(problem), sizes))
    P = sum(p.numel() for p in model.parameters())
    return (
        f"Mean-square thresholds of SGD for {len(sizes)} batch sizes, {examples} examples, "
        f"P = {P:,}: {seconds:.2f} s"
    )


def watching(steps: int = 5_000, rounds: int = 7) -> str:
    """A step at which a watch has nothing to do: the least of some rounds with and without it."""
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), 1e-6)
    data = [(torch.ones(4, 2), torch.zeros(4, 1))]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)

    def loop() -> float:
        started = time.process_time()
        for _ in range(steps):
            optimizer.step()
        return time.process_time() - started

    alone, watched = [], []
    for _ in range(rounds):
        alone.append(loop())
        with (
            TemporaryDirectory() as folder,
            lg.watch(
                model, optimizer, "squared_error", data, folder, every=[0], metrics=[Sharpness()]
            ),
        ):
            optimizer.step()
            loop()
            watched.append(loop())
    micro = 1e6 * (min(watched) - min(alone)) / steps
    return f"A step at which a watch has nothing due: {micro:.1f} microseconds more than without it"


def section(run: Run, tallies: dict[str, Tally], critical: Critical) -> list[str]:
    """The table of a run."""
    warm, found = tallies[WARM], max(len(critical.passes), 1)
    alone, beside = (
        warm.seconds / len(warm.units) / (seconds / found)
        for seconds in (critical.seconds, critical.beside_loss)
    )
    ours = tallies[TRACKED]
    cheaper = tallies[COLD].extra / ours.extra
    return [
        f"#### {run.title[0].upper()}{run.title[1:]}",
        markdown(HEAD, [tally.row(name) for name, tally in tallies.items()]),
        f"Tracked, it costs {ours.extra:.2f} extra steps a step, "
        f"{cheaper:.1f} times less than from scratch. A critical step from the one before takes "
        f"{statistics.fmean(critical.passes):.1f} forward passes (at most {max(critical.passes)}), "
        f"{alone:.1f} times less time than the sharpness from the step before, and {beside:.1f} "
        "times less where the loss is measured anyway, as a watch does.",
    ]


def tables(options: Options) -> str:
    """All that is measured."""
    about, steps = machine(), 8 if options.quick else options.steps
    text = [
        f"{steps} steps of full-batch gradient descent; {about['cpu']}, threads: "
        f"{about['torch_threads']}, {now()[:10]}, commit {commit()}."
    ]
    others = [below(CASES[name](options.quick)) for name in options.models]
    for run in runs(options.quick, 3 if options.quick else options.before) + others:
        text += section(run, *follow(run, steps, options.compare))
    text += [f"{thresholds(40 if options.quick else options.examples)}.", f"{watching()}."]
    return "\n\n".join(text)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.tracking")
    return publish(lambda: tables(options), options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
