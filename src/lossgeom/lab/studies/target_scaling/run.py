"""Training on targets that are scaled, or moved as far without being scaled."""

from __future__ import annotations

import math
from dataclasses import replace

from lossgeom.lab.datasets import Dataset
from lossgeom.lab.studies._network import build_with_indicators
from lossgeom.lab.studies._solution import JACOBIAN, JACOBIAN_MAX, SHARPNESS, solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.target_scaling.config import LINEAR, SHIFTED, Config
from lossgeom.recording.record import Record


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure along training."""
    study, kind, scale = run.study, run.place["kind"], run.place["target_scale"]
    shifted = kind == SHIFTED
    network = replace(study.network, target_scale=study.target_scales[0] if shifted else scale)
    if kind == LINEAR:
        network = replace(network, model="mlp", widths=())
    model, data = build_with_indicators(network, run.seed, centred=True)
    solve(
        study.training.recipe, model, moved(data, scale) if shifted else data, record,
        seed=run.seed, chunk=network.chunk, every=study.training.every,
        measured_on=study.training.measured_on, loss="squared_error",
        along=(SHARPNESS, JACOBIAN_MAX), at_end=(JACOBIAN,),
    )  # fmt: skip


def moved(data: Dataset, by: float) -> Dataset:
    """The data with a vector of this length added to all targets, the same number in each place."""
    each = by / math.sqrt(data.train[1].shape[1])
    train, test = ((x, y + each) for x, y in (data.train, data.test))
    return replace(data, train=train, test=test, scaling=f"{data.scaling}, plus {each:.3g}")
