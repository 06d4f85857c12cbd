"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._growth import (
    FIRST,
    LAST,
    PARTS,
    Of,
    Shortfall,
    along,
    exponent,
    grown,
    numbers,
    of_layer,
    of_part,
    share,
    shortfall,
)
from lossgeom.lab.studies._solution import JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.input_scaling.config import Config
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, appendix C.2"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
GROWS_MORE: Interval = (0.25, math.inf)  # power of 1 / scale
DOES_NOT: Interval = (-0.5, 0.5)  # power of the Jacobian norm, which is 2 in the ansatz
MOST: Interval = (0.5, math.inf)  # share of a shortfall

Seed = SeedRecords[Config]


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    small, large = config.input_scales[0], config.input_scales[-1]
    yield from _growth(seeds, f"at the scale {small:g} than at {large:g}, if neither run diverges")
    yield from _mediators(
        seeds, f"from the scale {large:g} to {small:g}, at the end, if neither run diverges"
    )


def _growth(seeds: Sequence[Seed], where: str) -> Iterator[Claim]:
    more = partial(stats.claim_over_seeds, expected=GROWS_MORE)
    of = (
        "power of 1 / scale with which the largest Jacobian norm{} grows more in training "
        f"{where}"
    )
    yield more(
        "jacobian_grows_more",
        statement="The Jacobian norm grows more where inputs are closer together.",
        source=PAPER_A,
        measured=of.format(""),
        values=[jacobian_grows_more(seed) for seed in seeds],
    )
    yield stats.claim_over_seeds(
        "sharpness_does_not",
        statement="Sharpness hardly grows with the Jacobian norm there.",
        source=PAPER_A,
        measured="power of the largest Jacobian norm at the end with which the largest sharpness "
        f"along the run is larger {where}; it is 2 if both change as the ansatz has it",
        values=[sharpness_is_larger(seed) for seed in seeds],
        expected=DOES_NOT,
        note=stats.note(
            "With sharpness over that of its start it is {:.2f}.",
            stats.mean(sharpness_is_larger(seed, over_start=True) for seed in seeds),
        ),
    )
    yield stats.control(
        more,
        "in_old_units",
        statement="so does the Jacobian norm in the inputs as they were before they were scaled.",
        measured=of.format(" times the scale"),
        values=[jacobian_grows_more(seed) - 1 for seed in seeds],
    )


def _mediators(seeds: Sequence[Seed], where: str) -> Iterator[Claim]:
    most = partial(stats.claim_over_seeds, expected=MOST)
    of = (
        f"share that Df of the {{}} layer has in what keeps {{}} from growing as |J|^2 does {where}"
    )
    found = [breaks(seed) for seed in seeds]
    last = [max((layer for _, layer in each), default=0) for each in found]
    summand = "the {0} layer's part of the Gauss-Newton matrix".format
    yield most(
        "df_1_in_its_layer",
        statement="What keeps the first layer's part of the curvature from growing as the Jacobian "
        "does is its Df_1, which shrinks.",
        source=PAPER_A,
        measured=of.format("first", summand("first")),
        values=[share_of_df(each, 1, of_layer(each, 1)) for each in found],
    )
    parts: dict[str, list[float]] = {
        part: [share(of_part(each, part), each) for each in found] for part in PARTS
    }
    yield most(
        "df_1_of_all",
        statement="Df_1 is also what keeps the curvature of all layers together from growing so.",
        source=PAPER_A,
        measured=of.format("first", "the parts of all layers"),
        values=[share_of_df(each, 1, each) for each in found],
        note=f"By mediator, of all layers. {stats.means(parts)}",
    )
    yield stats.control(
        most,
        "df_of_the_last_layer",
        statement="what keeps the last layer's part from growing is that its Df shrinks, too.",
        measured=of.format("last", summand("last")),
        values=[
            share_of_df(each, layer, of_layer(each, layer))
            for each, layer in zip(found, last, strict=True)
        ],
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim.statistic for claim in found}
    return (
        f"On {config.network.data}, {stats.counted(found)} The Jacobian norm grows with the power "
        f"{by_id['jacobian_grows_more']:.2f} of 1 / scale, and sharpness with the power "
        f"{by_id['sharpness_does_not']:.2f} of the Jacobian norm. Df_1 is "
        f"{by_id['df_1_in_its_layer']:.0%} of what makes the difference in the first layer, and "
        f"{by_id['df_1_of_all']:.0%} in all layers."
    )


# The statistics of a seed


def jacobian_grows_more(seed: Seed) -> float:
    """The power of 1 / scale with which the growth of the Jacobian norm is larger."""
    large, small = ends_of(seed)
    more = along(seed, JACOBIAN_MAX.name, small) - along(seed, JACOBIAN_MAX.name, large)
    return exponent(more, math.log(large / small))


def sharpness_is_larger(seed: Seed, over_start: bool = False) -> float:
    """The power of the Jacobian norm with which sharpness is larger at the smallest scale."""

    def larger(of: Of, name: str) -> float:
        large, small = (numbers(seed, of, scale) for scale in ends_of(seed))
        return grown(large, small, name)

    start = larger(FIRST, SHARPNESS.name) if over_start else 0.0
    return exponent(larger(max, SHARPNESS.name) - start, larger(LAST, JACOBIAN_MAX.name))


def breaks(seed: Seed) -> Shortfall:
    """What breaks the ansatz from the largest scale to the smallest."""
    return shortfall(*(numbers(seed, LAST, scale) for scale in ends_of(seed)))


def ends_of(seed: Seed) -> tuple[float, float]:
    """The largest and the smallest scale."""
    return seed.study.input_scales[-1], seed.study.input_scales[0]


def share_of_df(found: Shortfall, layer: int, of: Shortfall) -> float:
    """The share of a layer's Df in a shortfall."""
    return share(of_part(of_layer(found, layer), "layer"), of)
