"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._network import CLASSES
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.eigenspace_overlap.config import Config

WU = "Wu et al., arXiv:2010.04261, abstract"
DERIVED = f"derived here, after {WU}"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FAR_ABOVE: Interval = (20.0, math.inf)  # times the overlap of random spaces
FALLS: Interval = (1.2, math.inf)  # the overlap at its peak by that at the end
AT_LIVE: Interval = (0.0, 1.0)  # difference of two numbers of directions
ALONG: Interval = (0.8, math.inf)  # energy
AS_DECOUPLED: Interval = (-math.inf, 0.2)  # difference of overlaps

Seeds = Sequence[SeedRecords[Config]]

MULTIPLE = "largest overlap over k, in the mean over pairs of models, by k / dim at that k"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    for kind, called in names(config).items():
        yield stats.claim_over_seeds(
            f"far_above_{kind}",
            statement="Top eigenspaces of independently trained models overlap far more than "
            f"random ones: {called}.",
            source=WU,
            measured=MULTIPLE,
            values=over_seeds(seeds, kind, "multiple"),
            expected=FAR_ABOVE,
            note=told(seeds, kind),
        )
    for m in config.narrow:
        yield from _narrow(seeds, m)
    yield stats.claim_of_seeds(
        "wide_peak",
        statement="With more outputs than classes C, the overlap is largest at C - 1 or before.",
        source="measured here",
        of="place k of the peak",
        values=over_seeds(seeds, "wide", "peak"),
        inside=(1, CLASSES - 1),
    )
    yield from _mechanism(config, seeds)
    yield from _controls(config, seeds)


def _narrow(seeds: Seeds, m: int) -> Iterator[Claim]:
    yield stats.claim_of_seeds(
        f"peak_{m}",
        statement=f"With m = {m} outputs, fewer than classes, the overlap is largest at k = m or "
        "a little before.",
        source=WU,
        values=over_seeds(seeds, f"narrow-{m}", "peak"),
        **at_or_before(m),
    )
    yield stats.claim_over_seeds(
        f"falls_{m}",
        statement=f"With m = {m} outputs it falls after its peak.",
        source=WU,
        measured="overlap at the peak by that at k = 2 m",
        values=over_seeds(seeds, f"narrow-{m}", "fall"),
        expected=FALLS,
    )


def at_or_before(m: int) -> dict[str, Any]:
    """What a claim says that the peak is at k = m or a little before."""
    low = math.ceil(m / 2)
    said = f"share of seeds whose peak is at k from {low} to {m}, which is given for each seed"
    return {"measured": said, "inside": (low, m)}


def _mechanism(config: Config, seeds: Seeds) -> Iterator[Claim]:
    for kind, called in names(config).items():
        ends = zip(over_seeds(seeds, kind, "peak"), over_seeds(seeds, kind, "live"), strict=True)
        yield stats.claim_of_seeds(
            f"live_{kind}",
            statement="The peak is at the number of live directions of the outputs, up to one: "
            f"{called}.",
            source=DERIVED,
            measured="share of seeds with a difference of at most 1, which is given for each seed, "
            "between the peak and the number of eigenvalues of E[M] that are larger, relative to "
            "the first, than the second of E[x x^T] is to its first, in the mean over models",
            values=[abs(peak - live) for peak, live in ends],
            inside=AT_LIVE,
        )
    yield stats.claim_over_seeds(
        "mean_input",
        statement="Up to the peak, eigenvectors are an output direction times the mean input, "
        "which all models share.",
        source=DERIVED,
        measured="mean energy of the eigenvectors along the mean input, least over the networks",
        values=worst(config, seeds, "along", min),
        expected=ALONG,
    )
    yield stats.claim_over_seeds(
        "decoupled",
        statement="The decoupled Hessians of the same models overlap as their Hessians do.",
        source=DERIVED,
        measured="largest difference of overlaps up to the peak, largest over the networks",
        values=worst(config, seeds, "off", max),
        expected=AS_DECOUPLED,
    )


def _controls(config: Config, seeds: Seeds) -> Iterator[Claim]:
    m = config.narrow[0]
    yield stats.control(
        stats.claim_over_seeds,
        "random",
        statement="a random space overlaps with that of a model as far.",
        measured=f"overlap at the peak of a model's space and a random one by k / dim, m = {m}",
        values=over_seeds(seeds, f"narrow-{m}", "random"),
        expected=FAR_ABOVE,
    )
    yield stats.control(
        stats.claim_of_seeds,
        "centred_peak",
        statement="with centred inputs the peak is there, too.",
        values=over_seeds(seeds, "centred", "peak"),
        note=told(seeds, "centred"),
        **at_or_before(m),
    )
    yield stats.control(
        stats.claim_over_seeds,
        "centred_mean_input",
        statement="with centred inputs eigenvectors lie along the mean input, too.",
        measured="mean energy of the eigenvectors along the mean input",
        values=over_seeds(seeds, "centred", "along"),
        expected=ALONG,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    each = (
        f"{by_id[f'far_above_{kind}'].statistic:.0f} ({c})" for kind, c in names(config).items()
    )
    return (
        f"{stats.counted(found)} The largest overlap of two models is so many times that of random "
        f"spaces: {', '.join(each)}."
    )


# The statistics


def names(config: Config) -> dict[str, str]:
    """The kinds of networks with inputs that are not centred, and what to call them."""
    narrow = {f"narrow-{m}": f"{m} outputs in the first layer" for m in config.narrow}
    return {**narrow, "wide": f"{config.network.widths[0]} outputs in the first layer"}


def worst(
    config: Config, seeds: Seeds, number: str, of: Callable[[Iterable[float]], float]
) -> list[float]:
    """The least or largest of a number over these kinds, for each seed; NaN where one is."""
    rows = zip(*(over_seeds(seeds, kind, number) for kind in names(config)), strict=True)
    return [math.nan if any(map(math.isnan, row)) else of(row) for row in rows]


def told(seeds: Seeds, kind: str) -> str:
    """What the overlap is, where, and how good the models are, for a note."""
    value, peak, multiple, accuracy = (
        stats.mean_known(over_seeds(seeds, kind, number), ".3g")
        for number in ("value", "peak", "multiple", "accuracy")
    )
    return (
        f"Means over seeds: an overlap of {value} at k = {peak}, {multiple} times that of random "
        f"spaces; accuracy on test data {accuracy}."
    )
