"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.layerwise_structure.config import (
    BATCH_NORM,
    CENTRED,
    CLASSES,
    FEW,
    LAYERS,
    LENET5,
    MLP,
    NETWORKS,
    Config,
)
from lossgeom.lab.studies.layerwise_structure.run import array_name, layers

WU = "Wu et al., arXiv:2010.04261"
DERIVED = f"derived here, after {WU}"
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

OVERLAP = (
    f"overlap of the spaces of the k largest eigenpairs of Hessian and decoupling, median over "
    f"k = 1 to {FEW}"
)
ENERGY = f"median over the {FEW} largest eigenpairs"
HIDDEN = LAYERS[:2]
FEWEST = f"{ENERGY}; the lesser of {' and '.join(HIDDEN)}"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:  # noqa: ARG001
    """The verdicts."""
    yield from _decoupling(seeds)
    yield from _vectors(seeds)
    yield from _inputs(seeds)
    yield from _lenet5(seeds)
    yield from _controls(seeds)


def _decoupling(seeds: Seeds) -> Iterator[Claim]:
    for layer in HIDDEN:
        one, classes = (
            stats.mean_known(numbers(seeds, MLP, layer, f"overlap_of_{k}"))
            for k in ("one", "classes")
        )
        yield stats.claim_over_seeds(
            f"overlap_{layer}",
            statement=f"The decoupling E[M] x E[x x^T] of layer {layer} has the top eigenspaces of "
            "its Hessian.",
            source=WU,
            measured=OVERLAP,
            values=numbers(seeds, MLP, layer, "overlap"),
            expected=SAME_SPACE,
            note=f"With k = 1 it is {one}, with k = {MOST} {classes}, on average over seeds.",
        )
    each = {layer: numbers(seeds, MLP, layer, "excess") for layer in LAYERS}
    means = (f"{stats.mean_known(values)} in {layer}" for layer, values in each.items())
    yield stats.claim_over_seeds(
        "near_optimum",
        statement="The decoupling is nearly as close to the Hessian as a Kronecker product can be.",
        source=DERIVED,
        measured="Frobenius norm of the difference, as a multiple of that of the closest Kronecker "
        "product, mean over layers",
        values=[stats.mean(values) for values in zip(*each.values(), strict=True)],
        expected=NEAR_OPTIMUM,
        note=f"Means over seeds: {', '.join(means)}.",
    )


def _vectors(seeds: Seeds) -> Iterator[Claim]:
    yield stats.claim_over_seeds(
        "rank_one",
        statement="Reshaped to outputs by inputs, top eigenvectors have nearly rank one.",
        source=WU,
        measured=f"share of the largest singular value in their energy, {FEWEST}",
        values=least(seeds, MLP, "rank_one", HIDDEN),
        expected=RANK_ONE,
    )
    yield stats.claim_over_seeds(
        "along_mean",
        statement="Their rows are along the mean input.",
        source=DERIVED,
        measured=f"share of E[x] in their energy, {FEWEST}",
        values=least(seeds, MLP, "along_mean", HIDDEN),
        expected=ALONG_MEAN,
    )
    yield stats.claim_of_seeds(
        "outliers",
        statement="The Hessian of the last layer has C - 1 outliers.",
        source=WU,
        measured=f"share of seeds with {MOST} eigenvalues above the largest relative gap; their "
        "number is given for each seed",
        values=numbers(seeds, MLP, LAYERS[-1], "outliers"),
        inside=(MOST, MOST),
    )


def _inputs(seeds: Seeds) -> Iterator[Claim]:
    yield stats.claim_over_seeds(
        "input_ratio",
        statement="E[x x^T] has one eigenvalue that is large beside the others.",
        source=WU,
        measured="ratio of its two largest, the least of all layers",
        values=least(seeds, MLP, "input_ratio", LAYERS),
        expected=ONE_LARGE,
    )
    yield stats.claim_over_seeds(
        "mean_alignment",
        statement="Its eigenvector is the mean input.",
        source=DERIVED,
        measured="squared cosine of the angle between them, the least of all layers",
        values=least(seeds, MLP, "mean_alignment", LAYERS),
        expected=IS_MEAN,
    )
    yield stats.claim_of_seeds(
        "goes_with_input_ratio",
        statement="The more that eigenvalue stands out, the better does the decoupling hold.",
        source=DERIVED,
        of=f"rank correlation of the ratio and the {OVERLAP}, over the linear layers of all "
        "networks",
        values=list(map(correlation, seeds)),
        inside=GO_TOGETHER,
    )
    plain, normed = (
        {name: numbers(seeds, network, "fc2", name) for name in ("input_ratio", "along_mean")}
        for network in (MLP, BATCH_NORM)
    )
    weaker = partial(stats.claim_over_seeds, source=f"{WU}, abstract of version 1")
    yield weaker(
        "batch_norm_inputs",
        statement="With batch normalisation, it stands out less.",
        measured="ratio of the two largest eigenvalues of E[x x^T] in fc2, as a multiple of that "
        "without",
        values=[b / a for a, b in zip(plain["input_ratio"], normed["input_ratio"], strict=True)],
        expected=HALVED,
    )
    yield weaker(
        "batch_norm_vectors",
        statement="With batch normalisation, top eigenvectors are less along the mean input.",
        measured=f"share of E[x] in their energy in fc2, {ENERGY}, less the same without",
        values=[b - a for a, b in zip(plain["along_mean"], normed["along_mean"], strict=True)],
        expected=FALLS,
    )


def _lenet5(seeds: Seeds) -> Iterator[Claim]:
    yield stats.claim_over_seeds(
        "lenet5_fc1",
        statement="LeNet5's first linear layer has the top eigenspaces of its decoupling, too.",
        source=WU,
        measured=OVERLAP,
        values=numbers(seeds, LENET5, "fc1", "overlap"),
        expected=LARGE,
    )
    each = {layer: numbers(seeds, LENET5, layer, "overlap_of_classes") for layer in layers(LENET5)}
    means = (f"{stats.mean_known(values)} in {layer}" for layer, values in each.items())
    yield stats.claim_over_seeds(
        "lenet5",
        statement="In every layer of LeNet5, C - 1 eigenvectors overlap with those of the "
        "decoupling far more than random spaces do.",
        source=WU,
        measured=f"overlap with k = {MOST}, the least of all layers",
        values=list(map(min, zip(*each.values(), strict=True))),
        expected=FAR_ABOVE_RANDOM,
        note=f"Means over seeds: {', '.join(means)}.",
    )


def _controls(seeds: Seeds) -> Iterator[Claim]:
    control = partial(stats.control, stats.claim_over_seeds)
    yield control(
        "centred_overlap",
        statement="the decoupling of fc1 has the top eigenspaces of its Hessian, too, where the "
        "mean is subtracted from the inputs.",
        measured=OVERLAP,
        values=numbers(seeds, CENTRED, "fc1", "overlap"),
        expected=SAME_SPACE,
        note="With k = 1 it is "
        f"{stats.mean_known(numbers(seeds, CENTRED, 'fc1', 'overlap_of_one'))} on average.",
    )
    yield control(
        "centred_inputs",
        statement="one eigenvalue of E[x x^T] is large where the mean is subtracted.",
        measured="ratio of its two largest in fc1",
        values=numbers(seeds, CENTRED, "fc1", "input_ratio"),
        expected=ONE_LARGE,
    )
    yield control(
        "centred_rank_one",
        statement="top eigenvectors have nearly rank one where the mean is subtracted.",
        measured=f"share of the largest singular value in their energy in fc1, {ENERGY}",
        values=numbers(seeds, CENTRED, "fc1", "rank_one"),
        expected=RANK_ONE,
    )
    yield control(
        "batch_norm_overlap",
        statement="the decoupling of fc2 has the top eigenspaces of its Hessian with batch "
        "normalisation, too.",
        measured=OVERLAP,
        values=numbers(seeds, BATCH_NORM, "fc2", "overlap"),
        expected=SAME_SPACE,
    )
    yield stats.control(
        stats.claim_of_seeds,
        "hidden_outliers",
        statement="the Hessian of the first layer has C - 1 outliers, too.",
        measured=f"share of seeds with {MOST} eigenvalues above the largest relative gap",
        values=numbers(seeds, MLP, LAYERS[0], "outliers"),
        inside=(MOST, MOST),
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim.statistic for claim in found}
    return (
        f"On {config.data}, {stats.counted(found)} In the median of seeds the top eigenspaces of a "
        f"layer's Hessian and of its decoupling overlap by {by_id['overlap_fc1']:.2f} in fc1 and "
        f"{by_id['overlap_fc2']:.2f} in fc2 of the mlp, and by {by_id['lenet5_fc1']:.2f} in fc1 of "
        f"LeNet5; by {by_id['control_centred_overlap']:.2f} with centred inputs, and by "
        f"{by_id['control_batch_norm_overlap']:.2f} with batch normalisation. The decoupling is "
        f"{by_id['near_optimum']:.2f} times as far from the Hessian as the closest Kronecker "
        "product."
    )


# The statistics


def numbers(seeds: Seeds, network: str, layer: str, number: str) -> list[float]:
    """A number of a layer for each seed; NaN where training diverged."""
    name = array_name(network, layer)
    found = [seed.at(network).load_arrays(name) for seed in seeds]
    return [math.nan if arrays is None else float(arrays[1][number]) for arrays in found]


def least(seeds: Seeds, network: str, number: str, of: Sequence[str]) -> list[float]:
    """The least of a number over some layers, for each seed."""
    each = (numbers(seeds, network, layer, number) for layer in of)
    return list(map(min, zip(*each, strict=True)))


def correlation(seed: SeedRecords[Config]) -> float:
    """Rank correlation of what the inputs are like and how the decoupling holds."""
    linear = [(network, layer) for network in NETWORKS for layer in LAYERS]
    ratios, overlaps = (
        [value for place in linear for value in numbers([seed], *place, number)]
        for number in ("input_ratio", "overlap")
    )
    return math.nan if any(map(math.isnan, overlaps)) else stats.rank_correlation(ratios, overlaps)
