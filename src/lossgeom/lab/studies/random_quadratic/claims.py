"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.random_quadratic.config import RISE, Config
from lossgeom.quadratic.phases import BAND
from lossgeom.recording.claim import Claim, Interval

PAPER_D = "Agarwala et al., arXiv:2210.04860"
ABSTRACT = f"{PAPER_D}, abstract"
DERIVED = f"derived here, after {PAPER_D}, abstract"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
NO_SHARPENING: Interval = (0.95, 1.05)  # final by initial curvature
NEARLY_ALL: Interval = (0.9, math.inf)  # share of runs; of most, see MOST
JUST_BELOW: Interval = (1.9, 2.0)  # curvature
AS_PREDICTED: Interval = (0.95, 1.05)  # as a multiple of the prediction
NO_VELOCITY: Interval = (-0.02, 0.02)  # relative change in the time that acceleration takes, 1/a

Seeds = Sequence[SeedRecords[Config]]

IN_BAND = f"share of all runs that converge with a curvature from {BAND[0]:g} to {BAND[1]:g}"
RISEN = f"share of all runs that end with {RISE:g} times the initial curvature or more"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    yield from _phases(config, seeds)
    yield from _at_the_edge(config, seeds)
    yield from _motion(config, seeds)
    yield from _controls(config, seeds)


def _place(config: Config, a: float) -> str:
    return f"at a = {a:g} and lambda_0 = {config.curvature:g}"


def _phases(config: Config, seeds: Seeds) -> Iterator[Claim]:
    of_runs = partial(stats.claim_of_runs, source=DERIVED, runs=config.runs_at_points)
    yield stats.claim_over_seeds(
        "small_residuals",
        source=DERIVED,
        statement="With small residuals, curvature stays where it is.",
        measured="median over runs of the final by the initial curvature, "
        f"{_place(config, config.small_a)}",
        values=over_seeds(seeds, "small", "sharpening"),
        expected=NO_SHARPENING,
    )
    yield of_runs(
        "edge_of_stability",
        statement="With larger ones, most runs end at the edge of stability.",
        measured=f"{IN_BAND}, {_place(config, config.edge_a)}",
        values=over_seeds(seeds, "edge"),
        expected=stats.MOST,
    )
    yield of_runs(
        "divergence",
        statement="With large ones, descent diverges.",
        measured=f"share of runs that diverge, {_place(config, config.large_a)}",
        values=over_seeds(seeds, "large", "diverged"),
        expected=NEARLY_ALL,
    )
    yield stats.claim_of_seeds(
        "phases_in_order",
        statement="These three phases follow each other as residuals grow, for most initial "
        "curvatures.",
        source=DERIVED,
        measured="share of seeds for which all three are there, in this order, at more than "
        "half of the initial curvatures of the phase diagram, whose share is given for each "
        "seed; a cell is of a phase if half of its runs are",
        values=over_seeds(seeds, "diagram"),
        inside=stats.MOST,
    )


def _at_the_edge(config: Config, seeds: Seeds) -> Iterator[Claim]:
    ratio = stats.mean(over_seeds(seeds, "edge", "sharpening"))
    yield stats.claim_of_runs(
        "sharpening",
        statement="On the way to the edge, curvature rises.",
        source=ABSTRACT,
        measured=f"{RISEN}, {_place(config, config.edge_a)}",
        values=over_seeds(seeds, "edge", "risen"),
        runs=config.runs_at_points,
        expected=stats.MOST,
        note=stats.note("The median run ends with {:.2f} times as much.", ratio),
    )
    yield stats.claim_over_seeds(
        "just_below",
        source=ABSTRACT,
        statement="Runs that pass the edge and do not diverge end just below it.",
        measured="median final curvature of the runs that were above 2 and converged, "
        f"{_place(config, config.edge_a)}",
        values=over_seeds(seeds, "edge", "held"),
        expected=JUST_BELOW,
    )


def _motion(config: Config, seeds: Seeds) -> Iterator[Claim]:
    size = f"over {config.models} models with D = {config.outputs}, P = {config.parameters}"
    limit = stats.mean(over_seeds(seeds, "acceleration", "limit"))
    yield stats.claim_over_seeds(
        "acceleration",
        statement="By gradient flow curvature accelerates upward at first, relative to itself "
        "by 2 D P sigma_z^2 for large D and P, and by 1.75 (1/D + 1/P) of that more.",
        source=f"{DERIVED}; its excess at finite size measured here",
        measured="mean second derivative of curvature by mean curvature, as a multiple of the "
        f"prediction with its finite-size excess, {size}",
        values=over_seeds(seeds, "acceleration"),
        expected=AS_PREDICTED,
        note=stats.note("As a multiple of 2 D P sigma_z^2 it is {:.3f}.", limit),
    )
    yield stats.claim_over_seeds(
        "no_velocity",
        statement="It has no velocity at first, on average.",
        source="derived here",
        measured=f"mean derivative of curvature by mean curvature and by a, {size}",
        values=over_seeds(seeds, "acceleration", "velocity"),
        expected=NO_VELOCITY,
    )


def _controls(config: Config, seeds: Seeds) -> Iterator[Claim]:
    of_runs = partial(
        stats.control, stats.claim_of_runs, runs=config.runs_at_points, expected=stats.MOST
    )
    yield of_runs(
        "linear",
        statement="curvature rises with Q = 0, too.",
        measured=f"{RISEN}, {_place(config, config.edge_a)}, with Q = 0",
        values=over_seeds(seeds, "linear", "risen"),
    )
    yield of_runs(
        "linear_edge",
        statement="most runs end at the edge with Q = 0, too.",
        measured=f"{IN_BAND}, {_place(config, config.edge_a)}, with Q = 0",
        values=over_seeds(seeds, "linear"),
    )
    yield of_runs(
        "small_residuals",
        statement="most runs end at the edge with small residuals, too.",
        measured=f"{IN_BAND}, {_place(config, config.small_a)}",
        values=over_seeds(seeds, "small"),
    )
    yield stats.control(
        stats.claim_over_seeds,
        "half_residuals",
        statement="residuals half as large accelerate curvature as much.",
        measured="the same as for the acceleration, with z / 2 in place of z",
        values=over_seeds(seeds, "acceleration", "halved"),
        expected=AS_PREDICTED,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"{stats.counted(found)} With D = {config.outputs}, P = {config.parameters} and "
        f"a = {config.edge_a:g}, {by_id['edge_of_stability'].statistic:.0%} of runs end at the "
        "edge of stability, and those that had passed it at a curvature of "
        f"{by_id['just_below'].statistic:.3f} for an edge at 2. With Q = 0 curvature rises in "
        f"{by_id['control_linear'].statistic:.0%} of runs."
    )
