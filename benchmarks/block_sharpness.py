"""``python -m benchmarks.block_sharpness``: how sharp the parts of a transformer are in training.

Of a small GPT that Adam trains on the tokens of the benchmarks. Printed is a table for the
documentation: means over seeds of the average sharpness, and in how many seeds the parts are in the
order of the means.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import tyro
from torch import nn

import lossgeom as lg
from benchmarks.cases import LENGTH, VOCABULARY, MeanCrossEntropy, text
from benchmarks.table import markdown
from lossgeom.curvature import Matrix
from lossgeom.lab.models.gpt import GPT

VALUES_AND_OUTPUT = {"VO": "blocks.*.project.*"}  # whose name says nothing; V is in the fused layer
MATRICES: tuple[Matrix, ...] = ("gauss_newton", "hessian")
PARTS = ("embedding", "QK", "VO", "MLP", "norm")


@dataclass(frozen=True)
class Options:
    """Sizes of model, data and training."""

    steps: tuple[int, ...] = (0, 30, 100, 300, 1000)
    """When to measure."""
    seeds: int = 3
    """Initialisations, and orders of batches."""
    layers: int = 4
    """Of the model."""
    width: int = 32
    """Of the model."""
    examples: int = 64
    """Sequences of 64 tokens."""
    batch_size: int = 16
    """Sequences in a step, and those that are measured on."""
    rate: float = 3e-3
    """Learning rate of Adam."""
    matvecs: int = 40
    """Products for each measurement."""
    tied: bool = True
    """Whether the embedding is the head, too."""

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS if self.tied else (*PARTS, "head")


def training(options: Options, seed: int) -> Iterator[tuple[int, GPT]]:
    """Train, and yield the model when to measure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(VOCABULARY, LENGTH, options.layers, options.width, heads=4)
    if not options.tied:
        model.head.weight = nn.Parameter(model.tokens.weight.detach().clone())
    ((x, y),) = text(options.examples)
    loss, optimizer = MeanCrossEntropy(), torch.optim.Adam(model.parameters(), options.rate)
    generator = torch.Generator().manual_seed(seed)
    for step in range(max(options.steps) + 1):
        if step in options.steps:
            yield step, model
        chosen = torch.randperm(len(x), generator=generator)[: options.batch_size]
        optimizer.zero_grad()
        loss(model(x[chosen]), y[chosen]).backward()
        optimizer.step()


def measured(options: Options, model: GPT, matrix: Matrix) -> dict[str, float]:
    """The loss, and the average sharpness of each part with its standard error."""
    problem = lg.Problem(model, "token_cross_entropy", text(options.batch_size), mode="eval")
    found = lg.block_sharpness(problem, VALUES_AND_OUTPUT, matrix=matrix, matvecs=options.matvecs)
    return {
        "loss": problem.loss(),
        **{name: block.average.value for name, block in found.items()},
        **{f"{name} error": block.average.stderr or 0.0 for name, block in found.items()},
    }


def row(parts: tuple[str, ...], matrix: str, step: int, seeds: list[dict[str, float]]) -> list[str]:
    """A line of the table."""
    mean = {name: statistics.fmean(seed[name] for seed in seeds) for name in seeds[0]}
    order = sorted(parts, key=lambda name: mean[name])
    same = sum(sorted(parts, key=lambda name: seed[name]) == order for seed in seeds)
    values = [f"{mean[name]:.2g}" for name in parts]
    return [matrix, f"{step}", f"{mean['loss']:.2f}", *values, " < ".join(order), f"{same}"]


def main(arguments: list[str] | None = None) -> int:
    """Train, measure, and print the table, and every measurement before it."""
    options = tyro.cli(Options, args=arguments, description=__doc__)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        for step, model in training(options, seed):
            for matrix in MATRICES:
                numbers = measured(options, model, matrix)
                found.setdefault((matrix, step), []).append(numbers)
                line = {"seed": seed, "step": step, "matrix": matrix, **numbers}
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
    head = ["matrix", "step", "loss", *options.parts, "order", f"seeds of {options.seeds}"]
    rows = [row(options.parts, *place, seeds) for place, seeds in sorted(found.items())]
    sys.stdout.write(markdown(head, rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
