"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from lossgeom.claim import Claim
from lossgeom.lab.statistics import (
    MOST,
    claim_of_runs,
    claim_of_seeds,
    claim_over_seeds,
    control,
    counted,
    mean,
)
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies.random_quadratic.config import (
    ABSTRACT,
    AS_PREDICTED,
    DERIVED,
    JUST_BELOW,
    NEARLY_ALL,
    NO_SHARPENING,
    NO_VELOCITY,
    RISE,
    Config,
)
from lossgeom.quadratic.phases import BAND
from lossgeom.recording.record import Record

IN_BAND = f"share of all runs that converge with a curvature from {BAND[0]:g} to {BAND[1]:g}"
RISEN = f"share of all runs that end with {RISE:g} times the initial curvature or more"


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
    ratio = mean(over_seeds(records, "edge", "sharpening"))
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
    limit = mean(over_seeds(records, "acceleration", "limit"))
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
    of_runs = partial(control, claim_of_runs, runs=config.runs_at_points, expected=MOST)
    return [
        of_runs(
            "linear",
            statement="curvature rises with Q = 0, too.",
            measured=f"{RISEN}, {_place(config, config.edge_a)}, with Q = 0",
            values=over_seeds(records, "linear", "risen"),
        ),
        of_runs(
            "linear_edge",
            statement="most runs end at the edge with Q = 0, too.",
            measured=f"{IN_BAND}, {_place(config, config.edge_a)}, with Q = 0",
            values=over_seeds(records, "linear"),
        ),
        of_runs(
            "small_residuals",
            statement="most runs end at the edge with small residuals, too.",
            measured=f"{IN_BAND}, {_place(config, config.small_a)}",
            values=over_seeds(records, "small"),
        ),
        control(
            claim_over_seeds,
            "half_residuals",
            statement="residuals half as large accelerate curvature as much.",
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
