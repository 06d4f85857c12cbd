"""Random second-order regression models: sharpening, the edge of stability, and divergence.

Agarwala, Pedregosa and Pennington (arXiv:2210.04860) find that sharpening and the edge of stability
are generic: models with random residuals z, Jacobians J and second derivatives Q have them, and no
structure of neural networks is needed. That curvature accelerates at a rate set by the variance of
z, and the phase diagram, are derived here after the paper's abstract, in :mod:`lossgeom.quadratic`.
All is in rescaled units: the learning rate is 1, curvature is the largest eigenvalue of J J^T, and
the edge of stability is at 2.

What follows was fixed on seeds 100 and 101, before any other was run. Shares had been expected in a
range closed at 1, and Student's interval went beyond: ranges of shares are open upwards, shares of
runs have binomial intervals, and whether curvature rises is one of them, since that was fixed
before seeds 10, 11, ... were run, which are those of the study. Seen at first with D = 20 and
P = 40: at a = 0.5 and lambda_0 = 1.5, 0.76 of the runs end in the band from 1.9 to 2.001, and those
that passed the edge at 1.975; the acceleration is 1.00 times its prediction, give or take 0.02 for
a seed of 8000 models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from lossgeom.claim import Claim, Interval
from lossgeom.lab.statistics import MOST, claim_of_runs, claim_of_seeds, claim_over_seeds
from lossgeom.lab.studies._network import check_settings
from lossgeom.lab.studies._random_stages import POINTS, RISE, STAGES
from lossgeom.lab.studies._stages import NO_TRAJECTORIES, counted, over_seeds, run_stages
from lossgeom.lab.studies._study import Study, fresh
from lossgeom.quadratic.phases import BAND
from lossgeom.recording.record import Record

PAPER_D = "Agarwala et al., arXiv:2210.04860"
ABSTRACT = f"{PAPER_D}, abstract"
DERIVED = f"derived here, after {PAPER_D}, abstract"
IN_BAND = f"share of all runs that converge with a curvature from {BAND[0]:g} to {BAND[1]:g}"
RISEN = f"share of all runs that end with {RISE:g} times the initial curvature or more"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
NO_SHARPENING: Interval = (0.95, 1.05)  # final by initial curvature
NEARLY_ALL: Interval = (0.9, math.inf)  # share of runs; of most, see MOST
JUST_BELOW: Interval = (1.9, 2.0)  # curvature
AS_PREDICTED: Interval = (0.95, 1.05)  # as a multiple of the prediction
NO_VELOCITY: Interval = (-0.02, 0.02)  # relative change in the time that acceleration takes, 1/a


INCREASING = "increasing positive values"


def increasing(values: Sequence[float]) -> bool:
    """Whether they are that, and there are any."""
    finite = all(0 < value < math.inf for value in values)
    return bool(values) and finite and list(values) == sorted(set(values))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about a minute on two cores."""

    outputs: int = 20
    """Outputs D."""
    parameters: int = 40
    """Parameters P."""
    small_a: float = 0.05
    """Size of residuals, a = sigma_z sqrt(2 D P), that leaves curvature where it is."""
    edge_a: float = 0.5
    """Size that takes runs to the edge of stability."""
    large_a: float = 2.0
    """Size that makes them diverge."""
    curvature: float = 1.5
    """Initial curvature lambda_0 at which these sizes are compared."""
    runs_at_points: int = 40
    """Runs for each of these sizes."""
    models: int = 8000
    """Models to average the acceleration over; it has heavy tails."""
    a: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.2, 2.0)
    """Sizes of residuals in the phase diagram, increasing."""
    initial_curvature: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    """Initial curvatures in the phase diagram, increasing."""
    runs: int = 12
    """Runs for each cell of the phase diagram."""
    steps: int = 10_000
    """Steps, at most."""

    def __post_init__(self) -> None:
        sizes = (self.small_a, self.edge_a, self.large_a)
        numbers = ("outputs", "parameters", "runs_at_points", "models", "runs", "steps")
        check_settings(
            self,
            [
                (all(getattr(self, name) >= 1 for name in numbers), "at least 1", numbers),
                (increasing(sizes), "0 < small_a < edge_a < large_a", POINTS),
                (0 < self.curvature < 2, "curvature in (0, 2)", ("curvature",)),
                (self.outputs >= 2, "two outputs or more", ("outputs",)),
                (increasing(self.a), INCREASING, ("a",)),
                (increasing(self.initial_curvature), INCREASING, ("initial_curvature",)),
            ],
        )


# D and P are meant to be the paper's; the places in the phase diagram and the numbers of runs are
# ours. It takes about half an hour on two cores.
PAPER = Config(outputs=60, parameters=120, edge_a=0.45, runs=6)


@dataclass(frozen=True)
class Run:
    """All of the study for the models of one seed."""

    seed: int
    study: Config

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"seed{self.seed}"

    @property
    def steps(self) -> int:
        """Stages."""
        return len(STAGES)


def plan(config: Config, seeds: int) -> list[Run]:
    """One run for each seed."""
    return [Run(seed, config) for seed in fresh(seeds)]


def run(config: Run, record: Record) -> None:
    """Draw models, and descend."""
    record.update(curves=[f"trajectories-{point}" for point in POINTS], heat_maps=["diagram"])
    run_stages(STAGES, config, record)


# The claims


def claims(config: Config, records: Sequence[Record]) -> list[Claim]:
    """The verdicts, over seeds."""
    return [
        *_phases(config, records),
        *_at_the_edge(config, records),
        *_motion(config, records),
        *_controls(config, records),
    ]


def _place(config: Config, a: float) -> str:
    return f"at a = {a:g} and lambda_0 = {config.curvature:g}"


def _phases(config: Config, records: Sequence[Record]) -> list[Claim]:
    of_runs = partial(claim_of_runs, source=DERIVED, runs=config.runs_at_points)
    return [
        claim_over_seeds(
            "small_residuals",
            source=DERIVED,
            statement="With small residuals, curvature stays where it is.",
            measured="median over runs of the final by the initial curvature, "
            f"{_place(config, config.small_a)}",
            values=over_seeds(records, "small", "sharpening"),
            expected=NO_SHARPENING,
        ),
        of_runs(
            "edge_of_stability",
            statement="With larger ones, most runs end at the edge of stability.",
            measured=f"{IN_BAND}, {_place(config, config.edge_a)}",
            values=over_seeds(records, "edge"),
            expected=MOST,
        ),
        of_runs(
            "divergence",
            statement="With large ones, descent diverges.",
            measured=f"share of runs that diverge, {_place(config, config.large_a)}",
            values=over_seeds(records, "large", "diverged"),
            expected=NEARLY_ALL,
        ),
        claim_of_seeds(
            "phases_in_order",
            statement="These three phases follow each other as residuals grow, for most initial "
            "curvatures.",
            source=DERIVED,
            measured="share of seeds for which all three are there, in this order, at more than "
            "half of the initial curvatures of the phase diagram, whose share is given for each "
            "seed; a cell is of a phase if half of its runs are",
            values=over_seeds(records, "diagram"),
            inside=MOST,
        ),
    ]


def _at_the_edge(config: Config, records: Sequence[Record]) -> list[Claim]:
    ratio = fmean(over_seeds(records, "edge", "sharpening") or [math.nan])
    return [
        claim_of_runs(
            "sharpening",
            statement="On the way to the edge, curvature rises.",
            source=ABSTRACT,
            measured=f"{RISEN}, {_place(config, config.edge_a)}",
            values=over_seeds(records, "edge", "risen"),
            runs=config.runs_at_points,
            expected=MOST,
            note=""
            if math.isnan(ratio)
            else f"The median run ends with {ratio:.2f} times as much.",
        ),
        claim_over_seeds(
            "just_below",
            source=ABSTRACT,
            statement="Runs that pass the edge and do not diverge end just below it.",
            measured="median final curvature of the runs that were above 2 and converged, "
            f"{_place(config, config.edge_a)}",
            values=over_seeds(records, "edge", "held"),
            expected=JUST_BELOW,
        ),
    ]


def _motion(config: Config, records: Sequence[Record]) -> list[Claim]:
    size = f"over {config.models} models with D = {config.outputs}, P = {config.parameters}"
    limit = fmean(over_seeds(records, "acceleration", "limit") or [math.nan])
    return [
        claim_over_seeds(
            "acceleration",
            statement="By gradient flow curvature accelerates upward at first, relative to itself "
            "by 2 D P sigma_z^2 for large D and P, and by 1.75 (1/D + 1/P) of that more.",
            source=f"{DERIVED}; its excess at finite size measured here",
            measured="mean second derivative of curvature by mean curvature, as a multiple of the "
            f"prediction with its finite-size excess, {size}",
            values=over_seeds(records, "acceleration"),
            expected=AS_PREDICTED,
            note=""
            if math.isnan(limit)
            else f"As a multiple of 2 D P sigma_z^2 it is {limit:.3f}.",
        ),
        claim_over_seeds(
            "no_velocity",
            statement="It has no velocity at first, on average.",
            source="derived here",
            measured=f"mean derivative of curvature by mean curvature and by a, {size}",
            values=over_seeds(records, "acceleration", "velocity"),
            expected=NO_VELOCITY,
        ),
    ]


def _controls(config: Config, records: Sequence[Record]) -> list[Claim]:
    control = partial(
        claim_of_runs, source="made to fail", control=True, runs=config.runs_at_points,
        expected=MOST,
    )  # fmt: skip
    return [
        control(
            "control_linear",
            statement="Negative control: curvature rises with Q = 0, too.",
            measured=f"{RISEN}, {_place(config, config.edge_a)}, with Q = 0",
            values=over_seeds(records, "linear", "risen"),
        ),
        control(
            "control_linear_edge",
            statement="Negative control: most runs end at the edge with Q = 0, too.",
            measured=f"{IN_BAND}, {_place(config, config.edge_a)}, with Q = 0",
            values=over_seeds(records, "linear"),
        ),
        control(
            "control_small_residuals",
            statement="Negative control: most runs end at the edge with small residuals, too.",
            measured=f"{IN_BAND}, {_place(config, config.small_a)}",
            values=over_seeds(records, "small"),
        ),
        claim_over_seeds(
            "control_half_residuals",
            source="made to fail",
            control=True,
            statement="Negative control: residuals half as large accelerate curvature as much.",
            measured="the same as for the acceleration, with z / 2 in place of z",
            values=over_seeds(records, "acceleration", "halved"),
            expected=AS_PREDICTED,
        ),
    ]


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"{counted(found)} With D = {config.outputs}, P = {config.parameters} and "
        f"a = {config.edge_a:g}, {by_id['edge_of_stability'].statistic:.0%} of runs end at the "
        "edge of stability, and those that had passed it at a curvature of "
        f"{by_id['just_below'].statistic:.3f} for an edge at 2. With Q = 0 curvature rises in "
        f"{by_id['control_linear'].statistic:.0%} of runs."
    )


STUDY = Study(
    name="random_quadratic",
    title="Random second-order regression: sharpening, the edge of stability, divergence",
    source=ABSTRACT,
    Config=Config,
    paper=PAPER,
    plan=plan,
    run=run,
    claims=claims,
    summary=summary,
    figure=NO_TRAJECTORIES,
)
