"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._network import CLASSES
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.eigenspace_overlap.config import Config
from lossgeom.recording.claim import Claim, Interval

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
ENERGY = "mean energy of the eigenvectors along the mean input"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    for kind, called in names(config).items():
        yield stats.claim_over_seeds(
            f"far_above_{kind}",
            statement=f"Top eigenspaces of two models overlap far more than random ones: {called}.",
            source=WU,
            measured=MULTIPLE,
            values=over_seeds(seeds, kind, "multiple"),
            expected=FAR_ABOVE,
            note=told(seeds, kind),
        )
    for m in config.narrow:
        yield stats.claim_of_seeds(
            f"peak_{m}",
            statement=f"With m = {m} outputs, it is largest at k = m or a little before.",
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


def at_or_before(m: int) -> dict[str, Any]:
    """What a claim says that the peak is at k = m or a little before."""
    low = math.ceil(m / 2)
    said = f"share of seeds whose peak is at k from {low} to {m}, which is given for each seed"
    return {"measured": said, "inside": (low, m)}


def _mechanism(config: Config, seeds: Seeds) -> Iterator[Claim]:
    apart = abs(by_kind(config, seeds, "peak") - by_kind(config, seeds, "live"))
    for (kind, called), values in zip(names(config).items(), apart.tolist(), strict=True):
        yield stats.claim_of_seeds(
            f"live_{kind}",
            statement=f"The peak is at the number of live directions, up to one: {called}.",
            source=DERIVED,
            measured="share of seeds with at most 1, which is given for each seed, between the "
            "peak and the number of eigenvalues of E[M] that are larger, relative to the first, "
            "than the second of E[x x^T], in the mean over models",
            values=values,
            inside=AT_LIVE,
        )
    yield stats.claim_over_seeds(
        "mean_input",
        statement="Up to the peak, eigenvectors are an output direction times the mean input.",
        source=DERIVED,
        measured=f"{ENERGY}, least over the networks",
        values=by_kind(config, seeds, "along").min(0).tolist(),
        expected=ALONG,
    )
    yield stats.claim_over_seeds(
        "decoupled",
        statement="The decoupled Hessians of the same models overlap as their Hessians do.",
        source=DERIVED,
        measured="largest difference of overlaps up to the peak, largest over the networks",
        values=by_kind(config, seeds, "off").max(0).tolist(),
        expected=AS_DECOUPLED,
    )


def _controls(config: Config, seeds: Seeds) -> Iterator[Claim]:
    m, of_median = config.narrow[0], partial(stats.control, stats.claim_over_seeds)
    yield of_median(
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
    yield of_median(
        "centred_mean_input",
        statement="with centred inputs eigenvectors lie along the mean input, too.",
        measured=ENERGY,
        values=over_seeds(seeds, "centred", "along"),
        expected=ALONG,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim.statistic for claim in found}
    each = (f"{by_id[f'far_above_{kind}']:.0f} ({said})" for kind, said in names(config).items())
    return (
        f"{stats.counted(found)} The largest overlap of two models, as a multiple of that of "
        f"random spaces: {', '.join(each)}."
    )


# The statistics


def names(config: Config) -> dict[str, str]:
    """The kinds of networks with inputs that are not centred, and what to call them."""
    widths = {**{f"narrow-{m}": m for m in config.narrow}, "wide": config.network.widths[0]}
    return {kind: f"{m} outputs in the first layer" for kind, m in widths.items()}


def by_kind(config: Config, seeds: Seeds, number: str) -> Float[np.ndarray, "kinds seeds"]:
    """A number of these kinds for each seed, or NaN."""
    return np.array([over_seeds(seeds, kind, number) for kind in names(config)])


def told(seeds: Seeds, kind: str) -> str:
    """What the overlap is, where, and how good the models are, for a note."""
    said = {
        "overlap": "value",
        "at k =": "peak",
        "multiple of that of random spaces": "multiple",
        "accuracy on test data": "accuracy",
    }
    return stats.means({text: over_seeds(seeds, kind, number) for text, number in said.items()})
