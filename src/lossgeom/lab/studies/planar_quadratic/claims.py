"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.planar_quadratic.config import Config
from lossgeom.lab.studies.planar_quadratic.run import STEPS
from lossgeom.recording.claim import Claim, Interval

ABSTRACT = "Agarwala et al., arXiv:2210.04860, abstract"
DERIVED = f"derived here; {ABSTRACT}, says that there is such a limit"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
NEAR_THE_FORMULA: Interval = (-math.inf, 0.05)  # largest relative difference
FIRST_ORDER: Interval = (0.95, 1.05)  # exponent of eps
SECOND_ORDER: Interval = (1.8, 2.2)
BELOW_THE_EDGE: Interval = (-math.inf, 0.0)  # largest T(0) - 2
CONSERVED: Interval = (-math.inf, 1e-12)
CLOSED: Interval = (-math.inf, 1e-10)  # largest difference of T(0)

Seeds = Sequence[SeedRecords[Config]]

LARGEST = "largest relative difference of 2 - T(0) at the end from"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    yield from _limits(config, seeds)
    yield from _from_below(config, seeds)
    yield from _conserved(config, seeds)
    yield from _controls(config, seeds)


def _limits(config: Config, seeds: Seeds) -> Iterator[Claim]:
    upto = f"for eps <= {config.small_eps:g}, over eps and starts"
    of_all = partial(stats.claim_of_all, cases=config.starts, case="start", source=DERIVED)
    claim = partial(stats.claim_over_seeds, source=DERIVED)
    yield of_all(
        "limit_symmetric",
        statement="For E = 0, runs that overshot the edge of stability end at 2 - eps / 2.",
        measured=f"{LARGEST} eps / 2, {upto}",
        values=over_seeds(seeds, "limits"),
        expected=NEAR_THE_FORMULA,
    )
    yield of_all(
        "limit_general",
        statement="They end at 2 - eps (2 - E) / 4 for any E.",
        measured=f"{LARGEST} eps (2 - E) / 4, for eps = {config.small_eps:g}, over E and starts",
        values=over_seeds(seeds, "energies"),
        expected=NEAR_THE_FORMULA,
    )
    yield claim(
        "first_order",
        statement="The distance of the limit from the edge is of first order in eps.",
        measured="exponent of eps that fits 2 - T(0), averaged over starts, best for "
        f"eps <= {config.fit_eps:g} and E = 0",
        values=over_seeds(seeds, "limits", "order"),
        expected=FIRST_ORDER,
    )
    yield claim(
        "second_order_remainder",
        statement="What the formula leaves is of second order in eps.",
        measured="the same for the magnitude of 2 - T(0) - eps / 2",
        values=over_seeds(seeds, "limits", "remainder"),
        expected=SECOND_ORDER,
    )


def _from_below(config: Config, seeds: Seeds) -> Iterator[Claim]:
    of_all = partial(stats.claim_of_all, cases=config.starts, case="start")
    at = f"for eps = {config.small_eps:g} and E = 0, over starts"
    end = max(over_seeds(seeds, "below", "end"), default=math.nan)
    yield of_all(
        "sharpens_then_locks",
        source=f"{ABSTRACT}; the value derived here",
        statement="Runs that start below the edge with z far enough below zero sharpen beyond "
        "it, and end at the same 2 - eps / 2.",
        measured=f"{LARGEST} eps / 2, {at}",
        values=over_seeds(seeds, "sharpening"),
        expected=NEAR_THE_FORMULA,
    )
    yield of_all(
        "stays_below",
        source="derived here",
        statement="Runs whose gradient flow ends below the edge do not reach it.",
        measured=f"largest T(0) - 2 on the way, {at}",
        values=over_seeds(seeds, "below"),
        expected=BELOW_THE_EDGE,
        note="A first step from z < 0 goes further than flow does, and the second one back; "
        f"at the end it is at most {end:.3g}.",
    )


def _conserved(config: Config, seeds: Seeds) -> Iterator[Claim]:
    of_all = partial(stats.claim_of_all, cases=config.starts, case="start", source="derived here")
    yield of_all(
        "invariant",
        statement="E = T(-1) - 2z does not change.",
        measured=f"largest change along {STEPS} steps of the model with two parameters, over "
        "steps and starts",
        values=over_seeds(seeds, "conservation"),
        expected=CONSERVED,
    )
    yield of_all(
        "closed_plane",
        statement="With E, the pair (z, T(0)) determines its own future.",
        measured="largest difference of T(0) between the model with two parameters and the map "
        f"of the plane, over {STEPS} steps and starts",
        values=over_seeds(seeds, "conservation", "plane"),
        expected=CLOSED,
    )


def _controls(config: Config, seeds: Seeds) -> Iterator[Claim]:
    of_all = partial(stats.control, stats.claim_of_all, cases=config.starts, case="start")
    measured = f"{LARGEST} eps / 2, for eps = {config.small_eps:g}, over starts"
    near = partial(of_all, expected=NEAR_THE_FORMULA, measured=measured)
    yield near(
        "below",
        statement="runs whose gradient flow ends below the edge end at 2 - eps / 2, too.",
        values=over_seeds(seeds, "below", "off"),
    )
    yield near(
        "flow",
        statement="gradient flow ends at 2 - eps / 2, too, from the starts from which descent "
        "does.",
        values=over_seeds(seeds, "sharpening", "flow"),
    )
    yield near(
        "without_E",
        statement="runs that overshot end at 2 - eps / 2 for any E.",
        values=over_seeds(seeds, "energies", "without_E"),
    )
    yield of_all(
        "invariant",
        statement="T(-1) alone does not change.",
        measured=f"largest change along {STEPS} steps, over steps and starts",
        values=over_seeds(seeds, "conservation", "without_z"),
        expected=CONSERVED,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    symmetric, general = by_id["limit_symmetric"], by_id["limit_general"]
    return (
        f"{stats.counted(found)} Limits are within {symmetric.statistic:.1%} of the predicted "
        f"distance from the edge of stability for E = 0 and eps up to {config.small_eps:g}, and "
        f"within {general.statistic:.1%} for other E."
    )
