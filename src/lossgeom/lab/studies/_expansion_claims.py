"""The claims of the study of networks beside their Taylor models."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lossgeom.claim import Claim, Interval
from lossgeom.lab.statistics import claim_over_seeds
from lossgeom.recording.record import Record

if TYPE_CHECKING:
    from lossgeom.lab.studies.quadratic_expansion import Config

AGARWALA = "Agarwala et al., arXiv:2210.04860, abstract"
OURS = "this study"

Which = Literal["network", "linear", "quadratic"]
MODELS: tuple[Which, ...] = ("network", "linear", "quadratic")

# What each statement expects of its statistic, fixed before the seeds of the study were run.
AT_THE_EDGE: Interval = (0.9, 1.1)  # eigenvalue * lr / 2
RIGHT = 0.1  # relative error of a model that is right
RIGHT_THERE: Interval = (-math.inf, RIGHT)
FURTHER: Interval = (1.25, math.inf)  # times as far
APART: Interval = (0.3, math.inf)  # relative error


@dataclass(frozen=True)
class SeedRuns:
    """The records of one seed by learning rate and model."""

    config: Config
    records: dict[tuple[float, str], Record]

    def values(self, lr: float, model: str, metric: str) -> list[float]:
        """A metric along a run."""
        return self.records[lr, model].series(metric)[1]

    def at_the_edge(self, lr: float, model: str) -> float:
        """The median of eigenvalue * lr / 2 over the second half; infinite for divergence."""
        if self.records[lr, model].status == "diverged":
            return math.inf
        values = self.values(lr, model, "ntk")
        return statistics.median(values[len(values) // 2 :]) * lr / 2

    def error_at_the_edge(self, model: str) -> float:
        """Of a model where the network first is at 2 / lr; NaN if it never is."""
        lr = self.config.lr
        eigenvalues, errors = self.values(lr, "network", "ntk"), self.errors(model)
        return next((e for s, e in zip(eigenvalues, errors, strict=True) if s >= 2 / lr), math.nan)

    def errors(self, model: str) -> list[float]:
        """Of a model along the path of the network at the large learning rate."""
        return self.values(self.config.lr, model, "taylor_error")

    def reach(self, model: str) -> float:
        """How far from the start the network is when the model stops being right; NaN if never."""
        distances = self.values(self.config.lr, model, "distance")
        apart = (d for d, e in zip(distances, self.errors(model), strict=True) if e > RIGHT)
        return next(apart, math.nan)


def seeds_of(config: Config, records: Sequence[Record]) -> list[SeedRuns]:
    """Those all of whose runs are complete."""
    found: dict[int, dict[tuple[float, str], Record]] = {}
    for record in records:
        place = (record.config["lr"], record.config["model"])
        found.setdefault(record.config["seed"], {})[place] = record
    wanted = 2 * len(MODELS)
    return [SeedRuns(config, runs) for _, runs in sorted(found.items()) if len(runs) == wanted]


def claims(config: Config, records: Sequence[Record]) -> list[Claim]:
    """The verdicts."""
    seeds = seeds_of(config, records)
    edge = partial(_edge, config, seeds)
    return [
        edge(
            "network", statement="The network sharpens to the edge of stability and stays near it."
        ),
        edge("quadratic", statement="So does its quadratic model."),
        *_errors(seeds),
        edge(
            "linear",
            statement="Negative control: so does its linear model, whose eigenvalue is constant.",
            control=True,
        ),
        edge(
            "network",
            small=True,
            statement="Negative control: the network is at 2 / lr at the small learning rate, too.",
            control=True,
        ),
        _error_at_the_edge(
            seeds,
            "linear",
            statement="Negative control: the linear model is right until the network is there.",
            control=True,
        ),
    ]


def _edge(
    config: Config, seeds: Sequence[SeedRuns], model: str, *, small: bool = False, **parts: Any
) -> Claim:
    lr = config.small_lr if small else config.lr
    name = f"{model}_at_{'small_lr' if small else 'the_edge'}"
    control = parts.get("control", False)
    return claim_over_seeds(
        f"control_{name}" if control else name,
        source="made to fail" if control else AGARWALA,
        measured=f"eigenvalue * lr / 2 at lr = {lr:g}, its median over the second half of the run",
        values=[seed.at_the_edge(lr, model) for seed in seeds],
        expected=AT_THE_EDGE,
        **parts,
    )


def _error_at_the_edge(seeds: Sequence[SeedRuns], model: str, **parts: Any) -> Claim:
    control = parts.get("control", False)
    return claim_over_seeds(
        f"{'control_' * control}{model}_right_until_the_edge",
        source="made to fail" if control else OURS,
        measured="relative error of the model where the network is first measured at 2 / lr",
        values=[seed.error_at_the_edge(model) for seed in seeds],
        expected=RIGHT_THERE,
        **parts,
    )


def _errors(seeds: Sequence[SeedRuns]) -> list[Claim]:
    linear = statistics.fmean([seed.errors("linear")[-1] for seed in seeds] or [math.nan])
    return [
        _error_at_the_edge(
            seeds,
            "quadratic",
            statement="The quadratic model is right until the network is at the edge.",
        ),
        claim_over_seeds(
            "quadratic_reaches_further",
            statement="It is right at least a quarter further than the linear model.",
            source=OURS,
            measured="distance at which the relative error is first measured above "
            f"{RIGHT:g}, over that of the linear model",
            values=[seed.reach("quadratic") / seed.reach("linear") for seed in seeds],
            expected=FURTHER,
        ),
        claim_over_seeds(
            "quadratic_departs_later",
            statement="In the end the network has left its quadratic model.",
            source=OURS,
            measured="relative error of the quadratic model at the last step",
            values=[seed.errors("quadratic")[-1] for seed in seeds],
            expected=APART,
            note="" if math.isnan(linear) else f"That of the linear model is {linear:.2f}.",
        ),
    ]


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}

    def said(name: str) -> str:
        return f"{by_id[name].statistic:.2f} ({by_id[name].verdict})"

    return (
        f"On two classes of {config.data}, the eigenvalue in the second half of the run is "
        f"{said('network_at_the_edge')} times 2 / lr for the network, "
        f"{said('quadratic_at_the_edge')} for its quadratic and "
        f"{by_id['control_linear_at_the_edge'].statistic:.2f} for its linear model. The relative "
        f"error of the quadratic model is {said('quadratic_right_until_the_edge')} where the "
        f"network comes to the edge and {said('quadratic_departs_later')} in the end."
    )
