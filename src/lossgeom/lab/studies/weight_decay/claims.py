"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import GAP, JACOBIAN, LOSS, SHARPNESS, TRAIN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import Ends, jacobian_beats_sharpness, shuffled, trends
from lossgeom.lab.studies.weight_decay.config import Config

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 2"
MEDIATORS = "MacDonald et al., arXiv:2305.14683, equation (4) and figure 2"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
RISES: Interval = (0.8, math.inf)  # rank correlation with the weight decay
FALLS: Interval = (-math.inf, -0.8)
TWICE: Interval = (2.0, math.inf)  # times, of most weight decay and none
LARGER: Interval = (1.2, math.inf)
POSITIVE: Interval = (0.0, math.inf)  # of changes of logarithms
NEGATIVE: Interval = (-math.inf, 0.0)

DECAY = 1  # the place of the weight decay among the settings
CAUSE, OF = "More weight decay", "the weight decay, averaged over learning rates"
PARTS = ("summand", "root", "layer", "tail", "alignment")


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:
    """The verdicts."""
    seeds = [Ends.of(each) for each in records]
    directions = {SHARPNESS.name: RISES, JACOBIAN.name: FALLS, GAP: FALLS}
    yield from trends(seeds, DECAY, directions, cause=CAUSE, of=OF, source=PAPER_A)
    yield from _without(config, seeds)
    yield from _mediators(config, seeds)
    yield jacobian_beats_sharpness(seeds, PAPER_A)
    yield shuffled(seeds, DECAY, FALLS, cause=CAUSE.lower(), of=OF)


def _without(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    """What runs without weight decay are like."""
    made = partial(stats.claim_over_seeds, source=PAPER_A)
    measured = "how many times {} with most weight decay what it is without; the smaller one of {}"
    gone = [TRAIN + LOSS, SHARPNESS.name]
    yield made(
        "sharpness_vanishes",
        statement="Without weight decay, training loss and sharpness are next to nothing.",
        measured=measured.format("as large it is", "loss and sharpness, and of learning rates"),
        values=[math.exp(min(_changes(config, seed, gone))) for seed in seeds],
        expected=TWICE,
    )
    yield made(
        "jacobian_and_gap_stay",
        statement="Without weight decay, the Jacobian norm and the gap are large all the same.",
        measured=measured.format("as small it is", "norm and gap, and of learning rates"),
        values=[math.exp(-max(_changes(config, seed, [JACOBIAN.name, GAP]))) for seed in seeds],
        expected=LARGER,
    )


def _mediators(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    """Which of the mediators makes summands rise while Jacobians fall."""
    found = [parts(config, seed) for seed in seeds]
    log = "from no to most weight decay, averaged over layers and learning rates"
    without = (
        f"mean change of the logarithm of the largest eigenvalue of a layer's summand {log}, less "
        "that of {}"
    )

    def left(name: str) -> list[float]:
        return [each["summand"] - each[name] for each in found]

    made = partial(stats.claim_over_seeds, source=MEDIATORS)
    yield made(
        "root_breaks_the_ansatz",
        statement="Sharpness rises while Jacobians fall because C does: without its change, the "
        "summands of all layers would fall, too.",
        measured=without.format("the square of the norm of C"),
        values=left("root"),
        expected=NEGATIVE,
        note=stats.means({name: [each[name] for each in found] for name in PARTS}, "+.2f"),
    )
    yield made(
        "root_changes_most",
        statement="Neither Df_l, nor the Jacobian of the later layers, nor how the three are "
        "aligned changes the summands as much as C.",
        measured=f"change of the logarithm of the square of the norm of C {log}, less the largest "
        "of the changes, up or down, of the others",
        values=[each["root"] - max(abs(each[name]) for name in PARTS[2:]) for each in found],
        expected=POSITIVE,
    )
    for name, label in (("layer", "Df_l"), ("tail", "the later layers' Jacobian")):
        yield stats.control(
            stats.claim_over_seeds,
            f"{name}_breaks_the_ansatz",
            statement=f"without the change of {label}, the summands would fall.",
            measured=without.format(f"the square of the norm of {label}"),
            values=left(name),
            expected=NEGATIVE,
        )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"On {config.network.data} with SGD, {stats.counted(found)} From no weight decay to "
        f"{config.weight_decay[-1]:g}, the logarithm of a layer's summand of equation (4) would "
        f"change by {by_id['root_breaks_the_ansatz'].statistic:+.2f} without C."
    )


# The statistics of a seed


def parts(config: Config, seed: Ends) -> dict[str, float]:
    r"""The change of the logarithm of a layer's summand, and what each mediator adds to it.

    .. math:: \Delta \log \lambda_{\max}(K_l) = 2 \Delta \log \|C\| + 2 \Delta \log \|D_l\|
        + 2 \Delta \log \|T_l\| + \Delta \log \alpha_l

    from no weight decay to most, in the mean over layers and learning rates.
    """
    some = next((run for run in seed.runs.values() if run is not None), {})
    layers = [name.removeprefix("summand") for name in some if name.startswith("summand_")]

    def mean(name: str) -> float:
        return stats.mean(_changes(config, seed, [name + layer for layer in layers]))

    found = {
        "summand": mean("summand"),
        "root": 2 * stats.mean(_changes(config, seed, ["root"])),
        "layer": 2 * mean("layer_jacobian"),
        "tail": 2 * mean("tail_jacobian"),
    }
    factors = found["root"] + found["layer"] + found["tail"]
    return {**found, "alignment": found["summand"] - factors}


def _changes(config: Config, seed: Ends, metrics: Sequence[str]) -> list[float]:
    """Changes of the logarithms of metrics from no to most weight decay, at each learning rate."""
    none, most = config.weight_decay[0], config.weight_decay[-1]
    ratios = [(seed.at((lr, most), m), seed.at((lr, none), m)) for lr in config.lr for m in metrics]
    return [_log(high) - _log(low) for high, low in ratios]


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
