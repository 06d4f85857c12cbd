"""Training networks of several widths, and models of them that are linear in their parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from lossgeom.lab.studies._network import build_with_indicators, in_chunks
from lossgeom.lab.studies._solution import JACOBIAN, JACOBIAN_MAX, SHARPNESS, mediators, solve
from lossgeom.lab.studies._stages import append_missing
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.width.config import FEATURES, LINEARISED, NTK, STANDARD, Config
from lossgeom.problem import Problem
from lossgeom.recording.record import Record


class Linearised(nn.Module):
    """A network to first order in its parameters' moves, which is the kernel machine of its NTK."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.moved = nn.ParameterList(torch.zeros_like(p) for p in network.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """The outputs at the start, and their change."""
        start = dict(self.network.named_parameters())
        moved = dict(zip(start, self.moved, strict=True))
        found = jvp(lambda p: functional_call(self.network, p, (x,)), (start,), (moved,))
        outputs: Tensor = found[0] + found[1]
        return outputs


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure along training; of standard networks the mediators, too.

    These are measured at both ends, and of a first chunk of examples.
    """
    study, kind = run.study, run.place["kind"]
    network = replace(
        study.network, model="mlp", widths=(run.place["width"],) * len(study.network.widths),
        parametrization="ntk" if kind == NTK else "standard",
    )  # fmt: skip
    model, data = build_with_indicators(network, run.seed, centred=True)
    if kind == LINEARISED:
        model = Linearised(model)
    if kind == FEATURES:
        nn.Sequential(*list(model.children())[:-1]).requires_grad_(False)
    few = min(network.chunk, network.examples)

    def further(problem: Problem) -> Iterable[dict[str, float]]:
        return mediators(problem.take(few), run.seed) if kind == STANDARD else ()

    start = Problem(model, "squared_error", in_chunks(data.train, network.chunk), mode="train")
    for numbers in further(start):
        append_missing(record, 0, numbers)
    solve(
        study.recipe(kind), model, data, record, seed=run.seed, chunk=network.chunk,
        every=study.training.every, measured_on=study.training.measured_on,
        loss="squared_error", along=(SHARPNESS, JACOBIAN_MAX), at_end=(JACOBIAN,), further=further,
    )  # fmt: skip
