"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.gauss_newton_outliers.config import (
    FIRST,
    GAP,
    LAST,
    MIDDLE,
    MOST,
    POINTS,
    Config,
)
from lossgeom.lab.studies.gauss_newton_outliers.run import array_name, first_accurate, series
from lossgeom.recording.claim import Claim, Interval

MACDONALD = "MacDonald et al., arXiv:2305.14683, section 3"
PAPYAN = "Papyan, arXiv:1811.07062; Sagun et al., arXiv:1611.07476"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
ABOUT_C_MINUS_1: Interval = (MOST - 1, MOST + 1)  # outliers
SAME_SPACE: Interval = (0.9, math.inf)  # mean squared cosine
SAME_VALUES: Interval = (-math.inf, 0.1)  # largest relative difference

Seeds = Sequence[SeedRecords[Config]]
Make = Callable[..., Claim]

WHEN = {FIRST: "at initialisation", MIDDLE: "in mid-training", LAST: "at the end"}
ABOUT = f"about C - 1 = {MOST} outliers."
SPACE = "mean squared cosine between the space of the Hessian's C - 1 largest eigenpairs and "
SPAN = "the outliers' eigenvectors span the same space as"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    number = partial(
        _claim,
        seeds=seeds,
        number="outliers",
        make=stats.claim_of_seeds,
        measured=f"share of seeds with {ABOUT_C_MINUS_1[0]} to {ABOUT_C_MINUS_1[1]} outliers, "
        f"given for each seed: how many of the {config.pairs} largest eigenvalues of the "
        "Hessian lie above the largest relative gap between neighbours; none where no eigenvalue "
        f"is {GAP:g} times the next",
        inside=ABOUT_C_MINUS_1,
    )
    space = partial(_claim, seeds=seeds, expected=SAME_SPACE)
    yield from (_number(number, seeds, point) for point in POINTS)
    yield from (_space(space, point) for point in POINTS)
    yield from (_values(seeds, point) for point in POINTS)
    yield from _shuffled(number)
    yield from _other_spaces(space)


def _number(number: Make, seeds: Seeds, point: str) -> Claim:
    same = mean_of(seeds, "real", point, "gauss_newton_outliers")
    note = f"The same count for the Gauss-Newton matrix gives {same}."
    if point == MIDDLE:
        note += f" After that it is so at {share_that_stays(seeds)} measurements over all seeds."
    return number(
        f"number_{slug(point)}",
        point=point,
        statement=f"{WHEN[point].capitalize()}, the Hessian has {ABOUT}",
        source=PAPYAN,
        note=note,
    )


def _space(space: Make, point: str) -> Claim:
    return space(
        f"same_space_{slug(point)}",
        number="overlap",
        point=point,
        statement=f"{WHEN[point].capitalize()}, {SPAN} those of the Gauss-Newton matrix.",
        source=MACDONALD,
        measured=f"{SPACE}that of the Gauss-Newton matrix",
    )


def _values(seeds: Seeds, point: str) -> Claim:
    return _claim(
        f"same_values_{slug(point)}",
        seeds=seeds,
        number="difference",
        point=point,
        statement=f"{WHEN[point].capitalize()}, the outliers are those of the Gauss-Newton matrix.",
        source=MACDONALD,
        measured="largest relative difference between the i-th eigenvalues of the two matrices, "
        "i = 1, ..., C - 1",
        expected=SAME_VALUES,
    )


def _shuffled(number: Make) -> Iterator[Claim]:
    yield number(
        f"shuffled_number_{slug(FIRST)}",
        point=FIRST,
        labels="shuffled",
        statement="At initialisation with shuffled labels, which leave the Gauss-Newton matrix "
        f"as it is and make the residual smaller, the Hessian has {ABOUT}",
        source="this study, to explain number_at_initialisation",
    )
    yield stats.control(
        number,
        f"shuffled_number_{slug(MIDDLE)}",
        point=MIDDLE,
        labels="shuffled",
        statement=f"in mid-training on shuffled labels it, too, has {ABOUT}",
    )


def _other_spaces(space: Make) -> list[Claim]:
    others = {
        "next": (
            "the next C - 1 eigenvectors of the Gauss-Newton matrix.",
            "of the Gauss-Newton matrix after those",
        ),
        "residual": ("those of the residual.", "of the residual of largest magnitude"),
    }
    return [
        stats.control(
            space,
            f"{name}_space_{slug(MIDDLE)}",
            number=f"overlap_with_{name}",
            point=MIDDLE,
            statement=f"in mid-training, {SPAN} {other}",
            measured=f"{SPACE}that of the C - 1 pairs {pairs}",
        )
        for name, (other, pairs) in others.items()
    ]


def slug(point: str) -> str:
    """A point of training in the name of a claim."""
    return WHEN[point].replace(" ", "_").replace("-", "_")


def _claim(
    name: str,
    *,
    seeds: Seeds,
    number: str,
    point: str,
    labels: str = "real",
    make: Make = stats.claim_over_seeds,
    note: str = "",
    **parts: Any,
) -> Claim:
    """Make a claim about a number at a point; a note says what it is for the other labels."""
    other = "shuffled" if labels == "real" else "real"
    note = f"With {other} labels: {mean_of(seeds, other, point, number)}. {note}".strip()
    return make(name, values=numbers(seeds, labels, point, number), note=note, **parts)


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}

    def along(kind: str) -> str:
        each = {point: by_id[f"{kind}_{slug(point)}"] for point in POINTS}
        parts = [f"{_median(c)} {WHEN[point]} ({c.verdict})" for point, c in each.items()]
        return f"{parts[0]}, {parts[1]} and {parts[2]}"

    shuffled = by_id[f"control_shuffled_number_{slug(MIDDLE)}"]
    return (
        f"On {config.network.data}, the Hessian has {along('number')} outliers in the median of "
        f"seeds, for C - 1 = {MOST}. The overlap of their space with the Gauss-Newton matrix's is "
        f"{along('same_space')}. In mid-training on shuffled labels there are "
        f"{_median(shuffled)} outliers."
    )


def _median(claim: Claim) -> str:
    return f"{statistics.median(claim.per_seed or [math.nan]):.3g}"


# The statistics


def numbers(seeds: Seeds, labels: str, point: str, number: str) -> list[float]:
    """A number of each seed at a point of training; NaN where training did not get there."""
    found = [seed.at(labels).load_arrays(array_name(point)) for seed in seeds]
    return [math.nan if arrays is None else float(arrays[1][number]) for arrays in found]


def mean_of(seeds: Seeds, labels: str, point: str, number: str) -> str:
    """The mean over the seeds that have one, for a note."""
    return stats.mean_known(numbers(seeds, labels, point, number), ".3g")


def share_that_stays(seeds: Seeds) -> str:
    """Say how many of the measurements on real labels after mid-training find about C - 1."""
    low, high = ABOUT_C_MINUS_1
    found: list[bool] = []
    for record in (seed.at("real") for seed in seeds):
        accurate = first_accurate(record)
        if accurate is not None:
            later = (n for at, n in series(record, "outliers").items() if at > accurate)
            found += [low <= n <= high for n in later]
    return f"{sum(found)} of {len(found)}"
