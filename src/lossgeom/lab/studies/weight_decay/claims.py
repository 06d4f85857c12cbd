"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._growth import PARTS, changes, layers
from lossgeom.lab.studies._solution import GAP, JACOBIAN, LOSS, SHARPNESS, TRAIN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import Ends, jacobian_beats_sharpness, shuffled, trends
from lossgeom.lab.studies.weight_decay.config import Config
from lossgeom.recording.claim import Claim, Interval

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
OTHERS = ("tail", "layer", "alignment")  # of what changes, beside the root


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
    measured = "{} over that {}; the smallest ratio of both and of all learning rates"
    gone = [TRAIN + LOSS, SHARPNESS.name]
    yield made(
        "sharpness_vanishes",
        statement="Without weight decay, training loss and sharpness are next to nothing.",
        measured=measured.format("training loss, or sharpness, with most weight decay", "without"),
        values=[math.exp(min(_changes(config, seed, gone))) for seed in seeds],
        expected=TWICE,
    )
    yield made(
        "jacobian_and_gap_stay",
        statement="Without weight decay, the Jacobian norm and the gap are large all the same.",
        measured=measured.format("Jacobian norm, or gap, without weight decay", "with most"),
        values=[math.exp(-max(_changes(config, seed, [JACOBIAN.name, GAP]))) for seed in seeds],
        expected=LARGER,
    )


def _mediators(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    """Which of the mediators makes summands rise while Jacobians fall."""
    found = [parts(config, seed) for seed in seeds]
    each = {name: [of[name] for of in found] for name in ("summand", *PARTS)}
    log = "from no to most weight decay, averaged over layers and learning rates"
    without = (
        f"mean change of the logarithm of the largest eigenvalue of a layer's summand {log}, less "
        "that of {}"
    )

    def left(name: str) -> list[float]:
        return [of["summand"] - of[name] for of in found]

    made = partial(stats.claim_over_seeds, source=MEDIATORS)
    yield made(
        "root_breaks_the_ansatz",
        statement="Sharpness rises while Jacobians fall because C does: without its change, the "
        "summands of the layers would fall, too, on average.",
        measured=without.format("the square of the norm of C"),
        values=left("root"),
        expected=NEGATIVE,
        note=stats.means(each, "+.2f"),
    )
    yield made(
        "root_changes_most",
        statement="Neither Df_l, nor the Jacobian of the later layers, nor how the three are "
        "aligned changes the summands as much as C.",
        measured=f"change of the logarithm of the square of the norm of C {log}, less the largest "
        "of the changes, up or down, of the others",
        values=[of["root"] - max(abs(of[name]) for name in OTHERS) for of in found],
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
    none, most = config.weight_decay[0], config.weight_decay[-1]
    each = [
        changes(seed.runs[lr, none] or {}, seed.runs[lr, most] or {}, layer)
        for lr in config.lr
        for layer in layers({name for run in seed.runs.values() for name in run or ()})
    ]
    found: dict[str, float] = {part: stats.mean(change[part] for change in each) for part in PARTS}
    return {"summand": sum(found.values()), **found}


def _changes(config: Config, seed: Ends, metrics: Sequence[str]) -> list[float]:
    """Changes of the logarithms of metrics from no to most weight decay, at each learning rate."""
    none, most = config.weight_decay[0], config.weight_decay[-1]
    return [seed.change(m, (lr, none), (lr, most)) for lr in config.lr for m in metrics]
