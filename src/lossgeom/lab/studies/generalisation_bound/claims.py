"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.generalisation_bound.config import (
    DECODER,
    SURFACE,
    SURFACES,
    TASKS,
    UNREGULARISED,
    Config,
)
from lossgeom.lab.studies.generalisation_bound.run import (
    BEST,
    CONSTANT,
    ERROR,
    FIT,
    FORMS,
    LIKELIHOOD,
    RANGE,
    RATES,
    TWO_NEAREST,
)
from lossgeom.lab.studies.generalisation_bound.seed_statistics import (
    ERRORS,
    PART,
    Seed,
    at_last,
    claimed,
    farthest,
    foreseen,
    reached,
    slope,
    tightness,
    values,
    values_of,
    worst,
)
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683"
THEOREM = f"{PAPER_A}, Theorem 6.1"
DERIVED = f"{THEOREM}; derived here"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
HOLDS: Interval = (-math.inf, 1.0)  # true error / bound
SLOPES: dict[int, Interval] = {1: (0.9, 1.35), 2: (1.8, 2.7)}  # by the power of delta
FORESEEN: Interval = (0.5, 2.0)  # examples at which a bound falls below a level / predicted
SAYS_SOMETHING: Interval = (-math.inf, 1.0)  # bound / range of the target
TIGHT: Interval = (-math.inf, 100.0)  # bound / true error
RISES: Interval = (0.99, math.inf)  # rank correlation with the dimension
NEAR: Interval = (-math.inf, 0.75)  # distance of an estimated dimension
LEVELS = {RANGE: "range of the target", CONSTANT: "error of the best constant predictor"}

Seeds = Sequence[Seed]


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:
    """The verdicts."""
    seeds = [Seed.of(each) for each in records]
    yield _holds(seeds)
    yield from _rates(seeds)
    yield from _levels(config, seeds)
    yield _tight(config, seeds)
    yield from _dimensions(seeds)
    yield from _decoder(seeds)
    yield from _controls(seeds)


def _holds(seeds: Seeds) -> Claim:
    sizes = sum(len(values(seed, task, ERROR)) for seed in seeds[:1] for task in TASKS)
    return stats.claim_of_all(
        "holds",
        statement="The true error is below every form of the bound at every size of the sample.",
        source=DERIVED,
        measured=f"true error and {ERRORS} of its standard errors over the bound, the largest over "
        "forms, sizes and tasks, among them a student that is off by 1 and has that for a fit",
        values=[worst(seed) for seed in seeds],
        expected=HOLDS,
        note=f"{len(FORMS)} forms of {sizes + 1} networks for each seed." if seeds else "",
    )


def _rates(seeds: Seeds) -> Iterator[Claim]:
    for form, power in RATES.items():
        yield stats.claim_over_seeds(
            f"rate_{form}",
            statement=f"The {said(form)} form falls like the power {power} of delta, or a little "
            "faster, as certificates get sharper on smaller balls.",
            source=THEOREM if form == "ambient" else DERIVED,
            measured=_slope(form),
            values=[slope(seed, form) for seed in seeds],
            expected=SLOPES[power],
        )


def _slope(form: str) -> str:
    return (
        f"slope of the logarithm of the {said(form)} form, less the fit, over that of delta, for "
        "all sizes in two dimensions"
    )


def _levels(config: Config, seeds: Seeds) -> Iterator[Claim]:
    for level, name in LEVELS.items():
        yield stats.claim_of_seeds(
            f"foreseen_{level}",
            statement=f"The size at which a form falls below the {name} is foreseen from "
            "smaller samples and the rate.",
            source=DERIVED,
            measured=f"share of seeds in which it is {FORESEEN[0]:g} to {FORESEEN[1]:g} times what "
            f"is foreseen from the largest sample of at most 1/{PART} of it, for every form that "
            "gets there within the sizes, in two dimensions",
            values=[farthest(foreseen(seed, form, level) for form in FORMS) for seed in seeds],
            inside=FORESEEN,
            note=_sizes(config, seeds, level),
        )


def _sizes(config: Config, seeds: Seeds, level: str) -> str:
    """Say where forms fall below a level, and where that is extrapolated."""
    first, last, found = config.examples[0], config.examples[-1], []
    for form in FORMS:
        N = statistics.median([reached(seed, form, level) for seed in seeds] or [math.nan])
        beyond = " (extrapolated)" if last < N else " or fewer" if first == N else ""
        found.append(f"{said(form)} {N:.3g}{beyond}")
    return f"Median sizes: {', '.join(found)}."


def _tight(config: Config, seeds: Seeds) -> Claim:
    last = config.examples[-1]
    fits = [values(seed, SURFACE, FIT)[last] for seed in seeds]
    return stats.claim_over_seeds(
        "tight",
        statement=f"With {last} examples in two dimensions and a fit of {config.fit:g} or less, "
        "the best form is less than 100 times the true error.",
        source=DERIVED,
        measured="smallest form over true error",
        values=[
            tightness(seed, last) if fit <= config.fit else math.nan
            for seed, fit in zip(seeds, fits, strict=True)
        ],
        expected=TIGHT,
        note=f"The mean fit is {stats.mean_known(fits, '.1e')}. A better one makes this ratio "
        "larger, as the error goes to 0 and the bound does not.",
    )


def _dimensions(seeds: Seeds) -> Iterator[Claim]:
    found = {
        f"d = {d}": [at_last(seed, task, BEST) / at_last(seed, task, RANGE) for seed in seeds]
        for task, d in SURFACES.items()
    }
    yield stats.claim_of_seeds(
        "grows_with_dimension",
        statement="Bounds get worse with the dimension of the latent cube.",
        source=f"{PAPER_A}, Theorem 4.2",
        of="rank correlation of the latent form over the range of the target with the dimension, "
        "at the largest common size",
        values=[
            stats.rank_correlation(
                list(SURFACES.values()),
                [at_last(seed, task, "latent") / at_last(seed, task, RANGE) for task in SURFACES],
            )
            for seed in seeds
        ],
        inside=RISES,
        note=f"Of the smooth difference over the range: {stats.means(found)}",
    )
    estimated = {
        f"d = {d}": [values_of(seed, task, LIKELIHOOD) for seed in seeds]
        for task, d in SURFACES.items()
    }
    yield stats.claim_of_seeds(
        "dimension_is_seen",
        statement="The dimension of the latent cube is seen in the data that it generates.",
        source="Facco et al., arXiv:1803.06992; Levina and Bickel (2004)",
        of="distance between the dimension and its estimate from two nearest neighbours, the "
        "largest over surfaces",
        values=[
            max(abs(values_of(seed, task, TWO_NEAREST) - d) for task, d in SURFACES.items())
            for seed in seeds
        ],
        inside=NEAR,
        note=f"By maximum likelihood: {stats.means(estimated)} Of what the decoder makes: "
        f"{stats.mean_known(values_of(seed, DECODER, TWO_NEAREST) for seed in seeds)}.",
    )


def _decoder(seeds: Seeds) -> Iterator[Claim]:
    for form in ("latent", "local_Lipschitz", BEST):
        yield stats.claim_of_seeds(
            f"decoder_{form}",
            statement=f"On a learnt and regularised decoder of digits, the {said(form)} form says "
            "something.",
            source=DERIVED,
            of=_over_range(form),
            values=[at_last(seed, DECODER, form) / at_last(seed, DECODER, RANGE) for seed in seeds],
            inside=SAYS_SOMETHING,
        )


def _over_range(form: str) -> str:
    return f"{said(form)} form over the range of the target, at the largest size"


def _controls(seeds: Seeds) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_of_seeds,
        "unregularised",
        statement="a decoder of digits that is not regularised does as well.",
        of=_over_range("local_Lipschitz"),
        values=[
            at_last(seed, UNREGULARISED, "local_Lipschitz") / at_last(seed, UNREGULARISED, RANGE)
            for seed in seeds
        ],
        inside=SAYS_SOMETHING,
    )
    yield stats.control(
        stats.claim_of_all,
        "claimed_fit",
        statement="the bounds hold for a student that is off by 1 and claims to fit.",
        measured="true error over the largest form, less the least error on the sample, which is "
        "more than what the form would be for a fit of 0",
        values=[claimed(seed) for seed in seeds],
        expected=HOLDS,
    )
    yield stats.control(
        stats.claim_over_seeds,
        "rate_of_difference",
        statement="the difference form falls like delta.",
        measured=_slope("difference"),
        values=[slope(seed, "difference") for seed in seeds],
        expected=SLOPES[1],
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    tight, decoder = (
        statistics.median(by_id[name].per_seed or [math.nan])
        for name in ("tight", "decoder_local_Lipschitz")
    )
    return (
        f"{stats.counted(found)} Each form is what the mean distance of a network from its target "
        f"on new inputs is at most, with probability {1 - config.epsilon:g}. With "
        f"{config.examples[-1]} examples in two dimensions the best is {tight:.0f} times the true "
        f"error; on a regularised decoder of digits the local form is {decoder:.2f} of the range "
        "of the target."
    )


def said(form: str) -> str:
    """The name of a form in a sentence."""
    return form.replace("_", " ")
