"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import sub, truediv
from typing import Any

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._network import CLASSES
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.layerwise_structure.config import (
    BATCH_NORM,
    CENTRED,
    FEW,
    LAYERS,
    LENET5,
    LINEAR,
    MLP,
    NETWORKS,
    Config,
)
from lossgeom.lab.studies.layerwise_structure.run import array_name
from lossgeom.recording.claim import Claim, Interval

WU = "Wu et al., arXiv:2010.04261"
DERIVED = f"derived here, after {WU}"
VERSION_1 = f"{WU}, abstract of version 1"
MOST = CLASSES - 1  # the outliers of the last layer

# What each statement expects of its statistic, fixed before the seeds of the study were run.
SAME_SPACE: Interval = (0.95, math.inf)  # overlap
NEAR_OPTIMUM: Interval = (1.0, 1.2)  # error as a multiple of the least one
RANK_ONE: Interval = (0.95, math.inf)  # energy of the largest singular value
ALONG_MEAN: Interval = (0.9, math.inf)  # energy along the mean input
ONE_LARGE: Interval = (4.0, math.inf)  # ratio of the two largest eigenvalues
IS_MEAN: Interval = (0.99, math.inf)  # squared cosine
GO_TOGETHER: Interval = (0.7, math.inf)  # rank correlation
HALVED: Interval = (-math.inf, 0.5)  # with batch normalisation by without
FALLS: Interval = (-math.inf, -0.2)  # with batch normalisation less without
LARGE: Interval = (0.85, math.inf)  # overlap in LeNet5
FAR_ABOVE_RANDOM: Interval = (0.4, math.inf)  # overlap where that of random spaces is below .07

Seeds = Sequence[SeedRecords[Config]]

# What the numbers of a layer are.
OF_FEW = f"median over the {FEW} largest eigenpairs"
MEASURED = {
    "overlap": f"overlap of the spaces of the k largest eigenpairs, median over k = 1 to {FEW}",
    "overlap_of_classes": f"overlap of the spaces of the {MOST} largest eigenpairs",
    "rank_one": f"share of the largest singular value in the energy of eigenvectors, {OF_FEW}",
    "along_mean": f"share of E[x] in the energy of eigenvectors, {OF_FEW}",
    "input_ratio": "ratio of the two largest eigenvalues of E[x x^T]",
    "mean_alignment": "squared cosine of the angle between its top eigenvector and E[x]",
}


@dataclass(frozen=True)
class Statement:
    """What is said of a number in some layers of a network, of which the least counts."""

    name: str
    text: str
    number: str
    expected: Interval
    layers: tuple[str, ...]
    network: str = MLP
    source: str = WU


FIRST, SECOND = ("fc1",), ("fc2",)
DECOUPLES = "The decoupling E[M] x E[x x^T] of {} has the top eigenspaces of its Hessian."
STATEMENTS = (
    Statement("overlap_fc1", DECOUPLES.format("fc1"), "overlap", SAME_SPACE, FIRST),
    Statement("overlap_fc2", DECOUPLES.format("fc2"), "overlap", SAME_SPACE, SECOND),
    Statement("rank_one", "Reshaped to outputs by inputs, top eigenvectors have nearly rank one.",
              "rank_one", RANK_ONE, (*FIRST, *SECOND)),
    Statement("along_mean", "Their rows are along the mean input.", "along_mean", ALONG_MEAN,
              (*FIRST, *SECOND), source=DERIVED),
    Statement("input_ratio", "One eigenvalue of E[x x^T] is large beside the others.",
              "input_ratio", ONE_LARGE, LINEAR),
    Statement("mean_alignment", "Its eigenvector is the mean input.", "mean_alignment", IS_MEAN,
              LINEAR, source=DERIVED),
    Statement("lenet5_fc1", DECOUPLES.format("fc1 in LeNet5"), "overlap", LARGE, FIRST, LENET5),
    Statement("lenet5", "In every layer of LeNet5, they overlap far more than random ones.",
              "overlap_of_classes", FAR_ABOVE_RANDOM, LAYERS[LENET5], LENET5),
)  # fmt: skip
CONTROLS = (
    Statement("centred_overlap", DECOUPLES.format("fc1 on centred inputs"), "overlap", SAME_SPACE,
              FIRST, CENTRED),
    Statement("centred_rank_one", "On centred inputs, top eigenvectors have nearly rank one.",
              "rank_one", RANK_ONE, FIRST, CENTRED),
    Statement("centred_inputs", "Of centred inputs, one eigenvalue of E[x x^T] is large.",
              "input_ratio", ONE_LARGE, FIRST, CENTRED),
    Statement("batch_norm_overlap", DECOUPLES.format("fc2 with batch normalisation"), "overlap",
              SAME_SPACE, SECOND, BATCH_NORM),
)  # fmt: skip


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:  # noqa: ARG001
    """The verdicts."""
    for each in STATEMENTS:
        yield stats.claim_over_seeds(each.name, source=each.source, **_least(seeds, each))
    yield from _all_layers(seeds)
    yield from _batch_norm(seeds)
    for each in CONTROLS:
        yield stats.control(stats.claim_over_seeds, each.name, **_least(seeds, each))
    yield stats.control(
        stats.claim_of_seeds,
        "hidden_outliers",
        statement="the Hessian of the first layer has C - 1 outliers, too.",
        **_nine(seeds, "fc1"),
    )


def _least(seeds: Seeds, each: Statement) -> dict[str, Any]:
    """The parts of a claim about the least of a number over layers."""
    found = {layer: numbers(seeds, each.network, layer, each.number) for layer in each.layers}
    where, beside = " and ".join(each.layers), found
    if each.number == "overlap":
        others = {"k = 1": "overlap_of_one", f"k = {MOST}": "overlap_of_classes"}
        beside = {at: numbers(seeds, each.network, where, name) for at, name in others.items()}
    return {
        "statement": each.text,
        "measured": f"{MEASURED[each.number]}; {each.network}, "
        f"{'the least of ' if len(found) > 1 else ''}{where}",
        "values": list(map(min, zip(*found.values(), strict=True))),
        "expected": each.expected,
        "note": stats.means(beside),
    }


def _all_layers(seeds: Seeds) -> Iterator[Claim]:
    excess = {layer: numbers(seeds, MLP, layer, "excess") for layer in LINEAR}
    yield stats.claim_over_seeds(
        "near_optimum",
        statement="The decoupling is nearly as close to the Hessian as a Kronecker product can be.",
        source=DERIVED,
        measured="distance as a multiple of the closest one's, mean over layers of the mlp",
        values=[stats.mean(values) for values in zip(*excess.values(), strict=True)],
        expected=NEAR_OPTIMUM,
        note=stats.means(excess),
    )
    yield stats.claim_of_seeds(
        "outliers",
        statement="The Hessian of the last layer has C - 1 outliers.",
        source=WU,
        **_nine(seeds, "fc3"),
    )
    yield stats.claim_of_seeds(
        "goes_with_input_ratio",
        statement="The more that eigenvalue of E[x x^T] stands out, the better is the decoupling.",
        source=DERIVED,
        of=f"rank correlation over linear layers of {MEASURED['input_ratio']} and overlap",
        values=list(map(correlation, seeds)),
        inside=GO_TOGETHER,
    )


def _nine(seeds: Seeds, layer: str) -> dict[str, Any]:
    return {
        "measured": f"share of seeds with {MOST} above the largest gap; given is their number",
        "values": numbers(seeds, MLP, layer, "outliers"),
        "inside": (MOST, MOST),
    }


def _batch_norm(seeds: Seeds) -> Iterator[Claim]:
    def both(number: str) -> Iterator[list[float]]:
        return (numbers(seeds, network, "fc2", number) for network in (BATCH_NORM, MLP))

    yield stats.claim_over_seeds(
        "batch_norm_inputs",
        statement="After batch normalisation, that eigenvalue stands out less.",
        source=VERSION_1,
        measured=f"{MEASURED['input_ratio']} in fc2, as a multiple of that without",
        values=list(map(truediv, *both("input_ratio"))),
        expected=HALVED,
    )
    yield stats.claim_over_seeds(
        "batch_norm_vectors",
        statement="After batch normalisation, top eigenvectors are less along the mean input.",
        source=VERSION_1,
        measured=f"{MEASURED['along_mean']} in fc2, less that without",
        values=list(map(sub, *both("along_mean"))),
        expected=FALLS,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    said = {claim.id: f"{claim.statistic:.2f}" for claim in found}
    return (
        f"On {config.network.data}, {stats.counted(found)} Median overlaps of the top eigenspaces "
        f"of a layer's Hessian and its decoupling: {said['overlap_fc1']} in fc1 and "
        f"{said['overlap_fc2']} in fc2 of the mlp, {said['lenet5_fc1']} in fc1 of LeNet5, "
        f"{said['control_centred_overlap']} with centred inputs, and "
        f"{said['control_batch_norm_overlap']} with batch normalisation. The decoupling is "
        f"{said['near_optimum']} times as far from the Hessian as the closest Kronecker product."
    )


# The statistics


def numbers(seeds: Seeds, network: str, layer: str, number: str) -> list[float]:
    """A number of a layer for each seed; NaN where training diverged."""
    name = array_name(network, layer)
    found = [seed.at(network).load_arrays(name) for seed in seeds]
    return [math.nan if arrays is None else float(arrays[1][number]) for arrays in found]


def correlation(seed: SeedRecords[Config]) -> float:
    """Rank correlation of what the inputs are like and how the decoupling holds."""
    linear = [(network, layer) for network in NETWORKS for layer in LINEAR]
    ratios, overlaps = (
        [value for place in linear for value in numbers([seed], *place, number)]
        for number in ("input_ratio", "overlap")
    )
    return math.nan if any(map(math.isnan, overlaps)) else stats.rank_correlation(ratios, overlaps)
